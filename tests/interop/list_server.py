"""A resource server that accepts Dayfly's task tokens and goes by the broker's status lists, with PyJWT and
the standard library.

usage: list_server.py ISSUER AUDIENCE CA_FILE ACTION [PORT]
"""

import base64
import http.server
import json
import re
import ssl
import sys
import threading
import time
import urllib.request
import zlib

import jwt

TIMEOUT_S = 2  # for the broker, at each step
FRESH_S, COOLDOWN_S, STALE_MAX_S = 300, 30, 3600  # the broker's keys
RETRY_S = 5  # after a list could not be had
LIST_MAX_BYTES = 1 << 14  # 2^17 entries of one bit
CLAIMS = ["iss", "sub", "aud", "exp", "iat", "jti", "authorization_details", "status"]
LIST_CLAIMS = ["sub", "iat", "exp", "ttl", "status_list"]


class Refused(Exception):
    """The token is not good: 401."""


class Unavailable(Exception):
    """Whether it is good cannot be found out now: 503, and nobody gets in."""


class Broker:
    """Checks a token's signature and claims, then its entry on the broker's status list."""

    def __init__(self, issuer, audience, ca_file):
        self.issuer, self.audience = issuer, audience
        self.tls = ssl.create_default_context(cafile=ca_file)
        self.lock = threading.Lock()
        self.keys, self.fetched, self.tried = {}, -STALE_MAX_S, -STALE_MAX_S
        self.lists, self.failed = {}, {}
        self.refresh("")
        if not self.keys:
            raise SystemExit(f"no keys from {issuer}")

    def check(self, token):
        """The claims of a token for this server that has not ended, or Refused, or Unavailable."""
        try:
            claims = self.verified(token, "at+jwt", CLAIMS, audience=self.audience, issuer=self.issuer)
            place = claims["status"]["status_list"]
            index, uri = place["idx"], place["uri"]
        except (jwt.InvalidTokenError, KeyError, TypeError) as error:
            raise Refused(error) from error
        if "cnf" in claims:
            raise Refused("bound to a key, and this server checks no proof")
        # Only lists of the broker itself, whatever a token says.
        if not isinstance(uri, str) or not re.fullmatch(re.escape(self.issuer) + r"/status/[A-Za-z0-9_-]{1,64}", uri):
            raise Refused("its list is elsewhere")
        bits, array = self.list_of(uri)
        if type(index) is not int or not 0 <= index < len(array) * 8 // bits:
            raise Refused("its entry is not on the list")
        # From the least significant bit on.
        if array[index * bits // 8] >> index * bits % 8 & (1 << bits) - 1:
            raise Refused("not active")
        return claims

    def list_of(self, uri):
        """The list of this URL: fetched when its `ttl` is over, used to its `exp` while that fails."""
        with self.lock:
            now = time.monotonic()
            fetched, claims, array = self.lists.get(uri, (0, None, None))
            fresh = claims and now - fetched < claims["ttl"]
            if not fresh and now - self.failed.get(uri, -RETRY_S) >= RETRY_S:
                try:
                    newer, unpacked = self.read_list(self.get(uri), uri)
                    if claims and newer["iat"] < claims["iat"]:
                        raise ValueError("an older list than the one at hand")
                    claims, array = newer, unpacked
                    self.lists = {url: kept for url, kept in self.lists.items() if kept[1]["exp"] > time.time()}
                    self.lists[uri] = (now, claims, array)
                    self.failed.pop(uri, None)
                except (Unavailable, ValueError, KeyError, TypeError, zlib.error, jwt.PyJWTError) as error:
                    self.failed[uri] = time.monotonic()
                    print(f"the status list: {error}", file=sys.stderr)
            if not claims or claims["exp"] <= time.time():
                raise Unavailable("no status list that is not expired")
            return claims["status_list"]["bits"], array

    def read_list(self, body, uri):
        """draft-ietf-oauth-status-list-21, section 8.3: its claims, and the bytes that hold the entries."""
        claims = self.verified(body.decode("ascii").strip(), "statuslist+jwt", LIST_CLAIMS)
        listed = claims["status_list"]
        if claims["sub"] != uri or listed["bits"] not in (1, 2, 4, 8) or claims["ttl"] <= 0:
            raise ValueError("not the list that the token names")
        packed = base64.b64decode(listed["lst"] + "==", altchars=b"-_")
        unpacker = zlib.decompressobj()
        array = unpacker.decompress(packed, LIST_MAX_BYTES + 1)
        if len(array) > LIST_MAX_BYTES or not unpacker.eof:
            raise ValueError("larger than is read, or not whole")
        return claims, array

    def verified(self, token, typ, required, **expected):
        header = jwt.get_unverified_header(token)
        # A list is no token and a token no list.
        if header.get("typ") != typ:
            raise jwt.InvalidTokenError("another kind of token")
        options = {"require": required, "strict_aud": True, "verify_aud": "audience" in expected}
        return jwt.decode(token, self.key_of(header.get("kid")), algorithms=["ES256"], options=options, **expected)

    def key_of(self, kid):
        now = time.monotonic()
        if kid not in self.keys or now - self.fetched > FRESH_S:
            self.refresh(kid)
        if now - self.fetched > STALE_MAX_S:
            raise Unavailable("no fresh keys")
        if kid not in self.keys:
            raise jwt.InvalidTokenError("an unknown key")
        return self.keys[kid]

    def refresh(self, kid):
        """Fetches the keys, at most once in 30 s whatever tokens say; old ones stay when it fails."""
        now = time.monotonic()
        if now - self.tried < COOLDOWN_S:
            return
        self.tried = now
        try:
            metadata = json.loads(self.get(f"{self.issuer}/.well-known/oauth-authorization-server"))
            if metadata["issuer"] != self.issuer:
                raise Unavailable("metadata of another issuer")
            keys = jwt.PyJWKSet.from_dict(json.loads(self.get(metadata["jwks_uri"]))).keys
            self.keys, self.fetched = {key.key_id: key.key for key in keys}, now
        except (Unavailable, ValueError, jwt.PyJWTError, KeyError, TypeError) as error:
            print(f"the broker's keys: {error}", file=sys.stderr)

    def get(self, url):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=self.tls) as answer:
                return answer.read(256 * 1024)
        except OSError as error:
            raise Unavailable(error) from error


def allows(claims, action):
    return any(action in detail.get("actions", []) for detail in claims["authorization_details"])


def door(broker, action):
    class Door(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            sent = self.headers.get_all("Authorization", [])
            scheme, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
            if scheme.lower() != "bearer":
                return self.answer(401, "Bearer")
            try:
                claims = broker.check(token)
            except Refused as refused:
                self.log_message("refused: %s", refused)
                return self.answer(401, 'Bearer error="invalid_token"')
            except Unavailable as outage:
                self.log_message("the broker: %s", outage)
                return self.answer(503)
            if not allows(claims, action):
                return self.answer(403, f'Bearer error="insufficient_scope", scope="{action}"')
            self.answer(200, text=f"rows for {claims['sub']} in {claims['txn']}\n")

        def answer(self, status, challenge=None, text=""):
            self.send_response(status)
            if challenge:
                self.send_header("WWW-Authenticate", challenge)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

    return Door


def main(issuer, audience, ca_file, action, port="0"):
    broker = Broker(issuer, audience, ca_file)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), door(broker, action))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])

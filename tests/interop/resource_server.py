"""A resource server that accepts Dayfly's task tokens, with PyJWT and the standard library.

usage: resource_server.py ISSUER AUDIENCE CA_FILE CLIENT_ID KEY_FILE ACTION [PORT]
"""

import hashlib
import http.server
import json
import ssl
import sys
import threading
import time
import urllib.parse
import urllib.request

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key

TIMEOUT_S = 2  # for the broker, at each step
FRESH_S, COOLDOWN_S, STALE_MAX_S = 300, 30, 3600  # the broker's keys
ASSERTION_S, RENEW_S = 300, 60
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLAIMS = ["iss", "sub", "aud", "exp", "iat", "jti", "authorization_details"]


class Refused(Exception):
    """The token is not good: 401."""


class Unavailable(Exception):
    """Whether it is good cannot be found out now: 503, and nobody gets in."""


class Broker:
    """Checks a token's signature and claims, then asks the broker whether it is still active."""

    def __init__(self, issuer, audience, ca_file, client_id, key_file):
        self.issuer, self.audience, self.client_id = issuer, audience, client_id
        self.tls = ssl.create_default_context(cafile=ca_file)
        with open(key_file, "rb") as file:
            self.key = load_pem_private_key(file.read(), password=None)
        jwk = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        self.kid = thumbprint(jwk)
        self.lock = threading.Lock()
        self.keys, self.fetched, self.tried = {}, -STALE_MAX_S, -STALE_MAX_S
        self.kept, self.made = None, 0
        self.refresh("")
        if not self.keys:
            raise SystemExit(f"no keys from {issuer}")

    def check(self, token):
        """The claims of an active token for this server, or Refused, or Unavailable."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != "at+jwt":
                raise Refused("not an access token")
            options = {"require": CLAIMS, "strict_aud": True}
            claims = jwt.decode(
                token, self.key_of(header.get("kid")), algorithms=["ES256"],
                audience=self.audience, issuer=self.issuer, options=options,
            )
        except jwt.InvalidTokenError as error:
            raise Refused(error) from error
        if "cnf" in claims:
            raise Refused("bound to a key, and this server checks no proof")
        if not self.active(token, claims["jti"]):
            raise Refused("not active")
        return claims

    def key_of(self, kid):
        with self.lock:
            now = time.monotonic()
            if kid not in self.keys or now - self.fetched > FRESH_S:
                self.refresh(kid)
            if now - self.fetched > STALE_MAX_S:
                raise Unavailable("no fresh keys")
            if kid not in self.keys:
                raise Refused("an unknown key")
            return self.keys[kid]

    def refresh(self, kid):
        """Fetches the keys, at most once in 30 s whatever tokens say; old ones stay when it fails."""
        now = time.monotonic()
        if now - self.tried < COOLDOWN_S:
            return
        self.tried = now
        try:
            metadata = self.get(f"{self.issuer}/.well-known/oauth-authorization-server")
            if metadata["issuer"] != self.issuer:
                raise Unavailable("metadata of another issuer")
            keys = jwt.PyJWKSet.from_dict(self.get(metadata["jwks_uri"])).keys
            self.keys, self.fetched = {key.key_id: key.key for key in keys}, now
        except (Unavailable, jwt.PyJWTError, KeyError, TypeError) as error:
            print(f"the broker's keys: {error}", file=sys.stderr)

    def active(self, token, jti):
        """RFC 7662. Each request asks, so an end is heard by the very next one."""
        form = {
            "token": token,
            "client_assertion_type": JWT_BEARER,
            "client_assertion": self.assertion(),
        }
        answer = self.get(f"{self.issuer}/oauth2/introspect", urllib.parse.urlencode(form).encode())
        return answer.get("active") is True and answer.get("jti") == jti

    def assertion(self):
        """RFC 7523. Used again until its last minute: the broker remembers that it is good."""
        with self.lock:
            now = int(time.time())
            if not self.made <= now < self.made + ASSERTION_S - RENEW_S:
                claims = {"iss": self.client_id, "sub": self.client_id, "aud": self.issuer}
                claims |= {"iat": now - 5, "exp": now + ASSERTION_S}
                self.kept = jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": self.kid})
                self.made = now
            return self.kept

    def get(self, url, form=None):
        try:
            with urllib.request.urlopen(url, data=form, timeout=TIMEOUT_S, context=self.tls) as answer:
                return json.loads(answer.read(256 * 1024))
        except (OSError, ValueError) as error:
            raise Unavailable(error) from error


def thumbprint(jwk):
    """RFC 7638: the `kid` of the key."""
    text = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return jwt.utils.base64url_encode(hashlib.sha256(text.encode()).digest()).decode()


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


def main(issuer, audience, ca_file, client_id, key_file, action, port="0"):
    broker = Broker(issuer, audience, ca_file, client_id, key_file)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), door(broker, action))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) not in (7, 8):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])

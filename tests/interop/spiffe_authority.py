"""The authority of a SPIFFE trust domain, made of foreign parts.

Signs JWT-SVIDs with PyJWT, serves its trust bundle over HTTPS, and says of each SVID what the
`spiffe` package makes of it. Prints one line of JSON (`url`, `bundle`), then answers each line of
JSON with another:

  {"claims", "audience", "header", "key": "jwt" | "x509" | "retired"}     ->  {"token", "valid"}
  "rotate"   a new key for JWT-SVIDs, the old one taken out              ->  {"bundle"}
  "fetches"  how often the bundle was fetched                            ->  {"fetches"}

usage: spiffe_authority.py TRUST_DOMAIN CERT_FILE KEY_FILE
"""

import http.server
import json
import ssl
import sys
import threading

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from spiffe import JwtBundle, JwtSvid, TrustDomain
from spiffe.errors import PySpiffeError


class Authority:
    """Keys by what they are for. Key ids count up."""

    def __init__(self, trust_domain):
        self.trust_domain = TrustDomain(trust_domain)
        self.fetches = 0
        self.sequence = 0
        self.keys = {"x509": (None, ec.generate_private_key(ec.SECP256R1()))}
        self.rotate()

    def rotate(self):
        self.sequence += 1
        if "jwt" in self.keys:
            self.keys["retired"] = self.keys["jwt"]
        self.keys["jwt"] = (f"authority-{self.sequence}", ec.generate_private_key(ec.SECP256R1()))

    def jwk(self, name, use):
        kid, key = self.keys[name]
        jwk = json.loads(ECAlgorithm.to_jwk(key.public_key()))
        return {**jwk, "use": use, **({"kid": kid} if kid else {})}

    def bundle(self):
        keys = [self.jwk("x509", "x509-svid"), self.jwk("jwt", "jwt-svid")]
        return {"keys": keys, "spiffe_sequence": self.sequence, "spiffe_refresh_hint": 300}

    def sign(self, claims, header, key):
        kid, private = self.keys[key]
        header = {name: value for name, value in {"kid": kid, **header}.items() if value is not None}
        return jwt.encode(claims, private, algorithm="ES256", headers=header)

    def valid(self, token, audience):
        """What the `spiffe` package says, which is given the keys for JWT-SVIDs only."""
        ours = json.dumps({"keys": [self.jwk("jwt", "jwt-svid")]}).encode()
        bundle = JwtBundle.parse(self.trust_domain, ours)
        try:
            return str(JwtSvid.parse_and_validate(token, bundle, {audience}).spiffe_id)
        except PySpiffeError:
            return None


def serve(authority, cert, key):
    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            authority.fetches += 1
            body = json.dumps(authority.bundle()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"https://127.0.0.1:{server.server_port}/bundle.json"


def answer(authority, line):
    if line == "rotate":
        authority.rotate()
        return {"bundle": authority.bundle()}
    if line == "fetches":
        return {"fetches": authority.fetches}
    audience = line["audience"]
    token = authority.sign(line["claims"], line.get("header", {}), line.get("key", "jwt"))
    return {"token": token, "valid": authority.valid(token, audience)}


def main():
    trust_domain, cert, key = sys.argv[1:]
    authority = Authority(trust_domain)
    url = serve(authority, cert, key)
    print(json.dumps({"url": url, "bundle": authority.bundle()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(authority, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

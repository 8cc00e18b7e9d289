"""A resource server in Python as Authlib's users write it: its validator of RFC 9068 access tokens,
unmodified, with the keys found by discovery.

Prints the claims of one task token as JSON, then alters the token in every way an attacker would
and prints `refused N`. Exit 1 if the token was refused or any altered one was accepted.

usage: verify_authlib.py ISSUER CA_FILE TOKEN AUDIENCE      (TOKEN `-`: read from stdin)
"""

import json
import ssl
import sys
import urllib.request

from authlib.oauth2 import OAuth2Error, ResourceProtector
from authlib.oauth2.rfc6749.requests import OAuth2Request
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc.jwk import KeySet

from forgeries import TIMEOUT_S, altered, discover, elsewhere


class Validator(JWTBearerTokenValidator):
    """What Authlib leaves to its user: where the keys are."""

    def __init__(self, issuer, audience, jwks):
        super().__init__(issuer=issuer, resource_server=audience)
        self.jwks = jwks

    def get_jwks(self):
        return self.jwks


def fetch(url, tls):
    with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=tls) as answer:
        return json.load(answer)


def verify(jwks, token, audience, issuer):
    """The claims of the token in a request, or Authlib's refusal."""
    protector = ResourceProtector()
    protector.register_token_validator(Validator(issuer, audience, jwks))
    request = OAuth2Request("GET", audience, headers={"Authorization": f"Bearer {token}"})
    return protector.validate_request(None, request)


def accepted(jwks, token, audience, issuer):
    """Whether a token passes. Only Authlib's own refusal counts as one."""
    try:
        verify(jwks, token, audience, issuer)
    except OAuth2Error:
        return False
    return True


def main(issuer, ca_file, token, audience):
    token = sys.stdin.read().strip() if token == "-" else token
    tls = ssl.create_default_context(cafile=ca_file)
    jwks = KeySet.import_key_set(fetch(discover(issuer, tls), tls))
    print(json.dumps(dict(verify(jwks, token, audience, issuer)), sort_keys=True))

    key = load_pem_public_key(jwks.keys[0].as_pem(private=False))
    attacks = [(name, forged, audience, issuer) for name, forged in altered(token, key)]
    attacks += elsewhere(token, audience, issuer)
    passed = [name for name, forged, aud, iss in attacks if accepted(jwks, forged, aud, iss)]
    for name in passed:
        print(f"accepted: {name}", file=sys.stderr)
    print(f"refused {len(attacks) - len(passed)}")
    return 1 if passed else 0


if __name__ == "__main__":
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    sys.exit(main(*sys.argv[1:]))

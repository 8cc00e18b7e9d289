"""A resource server in Python, written from the standards alone.

Finds the issuer's keys by discovery, as RFC 8414 and OpenID Connect Discovery say, checks one task
token with PyJWT, prints its claims as JSON, then alters the token in every way an attacker would
and prints `refused N`. Exit 1 if the token was refused or any altered one was accepted.

usage: verify_pyjwt.py ISSUER CA_FILE TOKEN AUDIENCE      (TOKEN `-`: read from stdin)
"""

import json
import ssl
import sys

import jwt

from forgeries import TIMEOUT_S, altered, discover, elsewhere

ALGS = ["ES256"]
TYP = "at+jwt"


def verify(keys, token, audience, issuer):
    """The claims of a task token, or an exception. Strict: one audience, `typ` as RFC 9068."""
    if jwt.get_unverified_header(token).get("typ", "").lower() != TYP:
        raise jwt.InvalidTokenError("not an access token")
    return jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token).key,
        algorithms=ALGS,
        audience=audience,
        issuer=issuer,
        options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"], "strict_aud": True},
    )


def accepted(keys, token, audience, issuer):
    """Whether a token passes. Only a verifier's own refusal counts as one."""
    try:
        verify(keys, token, audience, issuer)
    except (jwt.InvalidTokenError, jwt.PyJWKClientError):
        return False
    return True


def main(issuer, ca_file, token, audience):
    token = sys.stdin.read().strip() if token == "-" else token
    tls = ssl.create_default_context(cafile=ca_file)
    keys = jwt.PyJWKClient(discover(issuer, tls), ssl_context=tls, timeout=TIMEOUT_S)
    print(json.dumps(verify(keys, token, audience, issuer), sort_keys=True))

    key = keys.get_signing_key_from_jwt(token).key
    attacks = [(name, forged, audience, issuer) for name, forged in altered(token, key)]
    attacks += elsewhere(token, audience, issuer)
    passed = [name for name, forged, aud, iss in attacks if accepted(keys, forged, aud, iss)]
    for name in passed:
        print(f"accepted: {name}", file=sys.stderr)
    print(f"refused {len(attacks) - len(passed)}")
    return 1 if passed else 0


if __name__ == "__main__":
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    sys.exit(main(*sys.argv[1:]))

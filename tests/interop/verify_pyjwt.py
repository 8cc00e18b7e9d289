"""A resource server in Python, written from the standards alone.

Finds the issuer's keys by discovery, as RFC 8414 and OpenID Connect Discovery say, checks one task
token with PyJWT, prints its claims as JSON, then alters the token in every way an attacker would
and prints `refused N`. Exit 1 if the token was refused or any altered one was accepted.

usage: verify_pyjwt.py ISSUER CA_FILE TOKEN AUDIENCE      (TOKEN `-`: read from stdin)
"""

import base64
import hashlib
import hmac
import json
import ssl
import sys
import urllib.request

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ALGS = ["ES256"]
TYP = "at+jwt"
TIMEOUT_S = 10


def b64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def discover(issuer, tls):
    """The `jwks_uri` of an issuer whose metadata names that very issuer."""
    url = f"{issuer}/.well-known/openid-configuration"
    with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=tls) as answer:
        metadata = json.load(answer)
    if metadata["issuer"] != issuer:
        raise SystemExit(f"metadata of `{issuer}` is for `{metadata['issuer']}`")
    return metadata["jwks_uri"]


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


def joined(header, payload, signature):
    return ".".join([header, payload, signature])


def signed_with(key, header, payload):
    """The same claims under a key that is not the issuer's."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return jwt.encode(json.loads(unb64(payload)), pem, algorithm="ES256", headers=header)


def altered(token, key):
    """Every forgery, by name."""
    head, payload, signature = token.split(".")
    header = json.loads(unb64(head))
    claims = json.loads(unb64(payload))

    def with_header(**changes):
        return b64(json.dumps({**header, **changes}).encode())

    def with_claims(**changes):
        return b64(json.dumps({**claims, **changes}).encode())

    flipped = bytearray(unb64(signature))
    flipped[0] ^= 1
    yield "a longer life", joined(head, with_claims(exp=claims["exp"] + 3600), signature)
    yield "another audience in the payload", joined(head, with_claims(aud="https://other.example"), signature)
    yield "another task", joined(head, with_claims(sub="spiffe://other.example/x"), signature)
    yield "another signature", joined(head, payload, b64(bytes(flipped)))
    yield "no signature", joined(head, payload, "")
    yield "half a signature", joined(head, payload, b64(unb64(signature)[:32]))
    yield "a signature of zeros", joined(head, payload, b64(bytes(64)))
    yield "alg none", joined(with_header(alg="none"), payload, "")
    yield "alg none, signature kept", joined(with_header(alg="none"), payload, signature)

    public = [
        key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint),
    ]
    hs256 = with_header(alg="HS256")
    for secret in public:
        mac = hmac.new(secret, f"{hs256}.{payload}".encode(), hashlib.sha256).digest()
        yield "HS256 with the public key", joined(hs256, payload, b64(mac))

    stranger = ec.generate_private_key(ec.SECP256R1())
    yield "a stranger's key under our kid", signed_with(stranger, header, payload)
    yield "a kid nobody has", joined(with_header(kid="nobody"), payload, signature)
    yield "another typ", joined(with_header(typ="JWT"), payload, signature)


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
    attacks.append(("the true token at another audience", token, "https://other.example", issuer))
    attacks.append(("the true token of another issuer", token, audience, f"{issuer}/other"))
    passed = [name for name, forged, aud, iss in attacks if accepted(keys, forged, aud, iss)]
    for name in passed:
        print(f"accepted: {name}", file=sys.stderr)
    print(f"refused {len(attacks) - len(passed)}")
    return 1 if passed else 0


if __name__ == "__main__":
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    sys.exit(main(*sys.argv[1:]))

"""What the Python verifiers share: an issuer's keys by discovery, and every way to alter a token."""

import base64
import hashlib
import hmac
import json
import urllib.request

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

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


def joined(header, payload, signature):
    return ".".join([header, payload, signature])


def signed_with(key, signed):
    """These very bytes under a key that is not the issuer's, as RFC 7518 section 3.4 wants it."""
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def altered(token, key):
    """Every forgery of a token whose issuer signs with `key` (public, P-256), by name."""
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
    yield "a stranger's key under our kid", joined(head, payload, signed_with(stranger, f"{head}.{payload}"))
    yield "a kid nobody has", joined(with_header(kid="nobody"), payload, signature)
    yield "another typ", joined(with_header(typ="JWT"), payload, signature)


def elsewhere(token, audience, issuer):
    """The true token where it does not belong: name, token, audience, issuer."""
    yield "the true token at another audience", token, "https://other.example", issuer
    yield "the true token of another issuer", token, audience, f"{issuer}/other"

"""Token Status Lists, read as draft-ietf-oauth-status-list-21 says: the standard library for the list, PyJWT
for its signature, nothing of ours.

usage: status_list.py vectors FILE          (every published vector, entry by entry)
       status_list.py read JWKS_FILE URI    (a list token on stdin: what is set on it, as JSON)
       status_list.py follow ISSUER CA_FILE (a task token a line on stdin: what its entry says, as JSON)
"""

import base64
import json
import ssl
import sys
import urllib.request
import zlib

import jwt

TIMEOUT_S = 10
MOST_BYTES = 1 << 20  # 2^20 entries of 8 bits, the largest vector


def decode(bits, lst):
    """Section 4: base64url without padding, then zlib. The bytes that hold the entries."""
    if bits not in (1, 2, 4, 8) or isinstance(bits, bool):
        raise ValueError("bits")
    if "=" in lst:
        raise ValueError("padding")
    packed = base64.b64decode(lst + "=" * (-len(lst) % 4), altchars=b"-_", validate=True)
    unpacker = zlib.decompressobj()
    array = unpacker.decompress(packed, MOST_BYTES + 1)
    if len(array) > MOST_BYTES or not unpacker.eof or unpacker.unused_data:
        raise ValueError("not one zlib stream, or too large")
    return array


def entry(bits, array, index):
    """Section 4.1: entries are counted from the least significant bit of the first byte on."""
    first = index * bits
    if index < 0 or first // 8 >= len(array):
        raise ValueError("no such entry")
    return array[first // 8] >> first % 8 & (1 << bits) - 1


def read(token, key, uri):
    """Section 8.3, steps 3 to 5: the claims of a list token and its bytes."""
    if jwt.get_unverified_header(token)["typ"] != "statuslist+jwt":
        raise ValueError("typ")
    options = {"require": ["sub", "iat", "exp", "ttl", "status_list"], "verify_aud": False}
    claims = jwt.decode(token, key, algorithms=["ES256"], options=options)
    if claims["sub"] != uri:
        raise ValueError("sub")
    if not isinstance(claims["ttl"], int) or claims["ttl"] <= 0:
        raise ValueError("ttl")
    listed = claims["status_list"]
    return claims, decode(listed["bits"], listed["lst"])


def status(token, fetch, keys):
    """What the entry of a token says (section 8.3, steps 1 to 7)."""
    claims = jwt.decode(token, options={"verify_signature": False})
    place = claims["status"]["status_list"]
    text = fetch(place["uri"])
    listed, array = read(text, keys.get_signing_key_from_jwt(text).key, place["uri"])
    value = entry(listed["status_list"]["bits"], array, place["idx"])
    return {"jti": claims["jti"], "idx": place["idx"], "uri": place["uri"], "value": value, "iat": listed["iat"]}


def vectors(file):
    with open(file, encoding="utf-8") as text:
        published = json.load(text)
    for vector in published:
        bits, array = vector["bits"], decode(vector["bits"], "".join(vector["lst"]))
        if len(array) * 8 // bits != vector["entries"]:
            raise SystemExit(f"{vector['name']}: {len(array)} bytes")
        expected = {index: value for index, value in vector["set"]}
        for index in range(vector["entries"]):
            if entry(bits, array, index) != expected.get(index, 0):
                raise SystemExit(f"{vector['name']}: entry {index}")
    print(f"vectors {len(published)}")


def what_is_set(jwks_file, uri):
    text = sys.stdin.read().strip()
    with open(jwks_file, encoding="utf-8") as file:
        keys = jwt.PyJWKSet.from_dict(json.load(file))
    claims, array = read(text, keys[jwt.get_unverified_header(text)["kid"]].key, uri)
    bits = claims["status_list"]["bits"]
    entries = len(array) * 8 // bits
    found = {index: entry(bits, array, index) for index in range(entries)}
    print(json.dumps({"bits": bits, "entries": entries, "set": {k: v for k, v in found.items() if v}}))


def follow(issuer, ca_file):
    tls = ssl.create_default_context(cafile=ca_file)

    def fetch(url):
        request = urllib.request.Request(url, headers={"Accept": "application/statuslist+jwt"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=tls) as answer:
            if answer.headers.get_content_type() != "application/statuslist+jwt":
                raise ValueError("media type")
            return answer.read().decode("ascii").strip()

    keys = jwt.PyJWKClient(f"{issuer}/oauth2/jwks", ssl_context=tls, timeout=TIMEOUT_S)
    for line in sys.stdin:
        try:
            said = status(line.strip(), fetch, keys)
        except (ValueError, KeyError, OSError, zlib.error, jwt.PyJWTError) as error:
            said = {"refused": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["vectors", file]:
            vectors(file)
        case ["read", jwks_file, uri]:
            what_is_set(jwks_file, uri)
        case ["follow", issuer, ca_file]:
            follow(issuer, ca_file)
        case _:
            raise SystemExit(__doc__)

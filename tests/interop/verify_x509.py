"""Python `cryptography` on a chain of ours: ROOTS CHAIN AT [CRLS]. Exit 0 accepted, 1 refused, 2 trouble.

Its verifier knows no revocation, so the lists are asked here: the issuer's signature, nextUpdate, the serials.
"""

import datetime
import re
import sys

from cryptography import x509
from cryptography.x509 import verification


def revoked(certificate, issuer, lists, at):
    for crl in lists:
        if crl.issuer != certificate.issuer:
            continue
        if not crl.is_signature_valid(issuer.public_key()):
            return "the list is not its issuer's"
        if at >= crl.next_update_utc:
            return "the list is stale"
        entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
        return "revoked" if entry is not None else None
    return "no list of its issuer"


def main(roots, chain, at, crls=None):
    with open(roots, "rb") as file:
        store = verification.Store(x509.load_pem_x509_certificates(file.read()))
    at = datetime.datetime.fromtimestamp(int(at), datetime.timezone.utc)
    try:
        with open(chain, "rb") as file:
            leaf, *above = x509.load_pem_x509_certificates(file.read())
        verifier = verification.PolicyBuilder().store(store).time(at).build_client_verifier()
        verified = verifier.verify(leaf, above)
    except (ValueError, verification.VerificationError) as error:
        print("refused:", error)
        return 1
    if crls:
        with open(crls, "rb") as file:
            blocks = re.findall(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", file.read(), re.S)
        lists = [x509.load_pem_x509_crl(block) for block in blocks]
        for certificate, issuer in zip(verified.chain, verified.chain[1:]):
            why = revoked(certificate, issuer, lists, at)
            if why:
                print("refused:", why)
                return 1
    (name,) = [name.value for name in verified.subjects if isinstance(name, x509.UniformResourceIdentifier)]
    print("accepted", name, format(leaf.serial_number, "x"))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""pkilint (the linter of certificates, CRLs and OCSP responses) on files of ours: cert|crl|ocsp FILE...

Prints a line `FILE CODE` for each finding from a notice up, and `linted FILE` after each file.
"""

import contextlib
import csv
import io
import sys

from pkilint.bin import lint_crl, lint_ocsp_response, lint_pkix_cert

TOOLS = {
    "cert": (lint_pkix_cert, []),
    "crl": (lint_crl, ["-t", "CRL", "-p", "PKIX"]),
    "ocsp": (lint_ocsp_response, []),
}


def main(kind, *files):
    tool, options = TOOLS[kind]
    for file in files:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            tool.main(["lint", "-s", "NOTICE", "-f", "CSV", *options, file])
        for row in csv.DictReader(io.StringIO(said.getvalue())):
            print(file, row["code"])
        print("linted", file)


if __name__ == "__main__":
    main(*sys.argv[1:])

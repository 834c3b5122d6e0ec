# ruff: noqa: INP001 - takes the place of certifi/core.py in the packages
"""certifi without its certificates: those of the host count, as in the packages of distributions."""

import host_certificates


def where() -> str:
    """The file with the CAs that this host trusts."""
    bundle = host_certificates.bundle()
    # Without any, whoever asks is to fail with the name of a file that should be there.
    return bundle or "/etc/ssl/certs/ca-certificates.crt"


def contents() -> str:
    """What is in it."""
    with open(where(), encoding="ascii", errors="replace") as stream:
        return stream.read()

# ruff: noqa: INP001 - goes into the standard library of the packages
"""Where the host keeps the certificates of the CAs that it trusts. Added by the packages of codedeploy-agent."""

import os

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",  # Amazon Linux, Fedora, RHEL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # the same, newer
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)


def bundle() -> str | None:
    """The first of the known files that this host has; None when it has none."""
    for file in _BUNDLES:
        if os.path.isfile(file):
            return file
    return None

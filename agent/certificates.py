"""Which CAs are trusted: those of the host, or those that the environment names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

CA_VARIABLES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "AWS_SSL_CA_DIRECTORY", "SSL_CERT_DIR")

# Python knows only the places of the distribution that it was built for. A directory with hashed names
# comes first: it is read as needed, where a bundle costs 30 ms and more than a megabyte.
_DIRECTORIES = (Path("/etc/ssl/certs"), Path("/etc/pki/tls/certs"))
_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Arch, Gentoo
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Amazon Linux, Fedora, RHEL
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # the same, newer
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/cert.pem"),  # Alpine
)


class TrustedCAs(NamedTuple):
    """A file with certificates in PEM form, or a directory of them with hashed names.

    Attributes:
        path: the file or directory, which may not be there.
        variable: of the environment, which has named it; empty when it is the host's own.
    """

    path: Path
    variable: str = ""


def trusted_cas(environment: Mapping[str, str], root: Path = Path("/")) -> TrustedCAs | None:
    """What the environment names, or else what the host has; None when it has nothing.

    AWS_CA_BUNDLE, SSL_CERT_FILE, AWS_SSL_CA_DIRECTORY and SSL_CERT_DIR name private CAs, the first of them wins.

    Args:
        environment: of the agent.
        root: directory that stands for the host's root.
    """
    for variable in CA_VARIABLES:
        if environment.get(variable):
            return TrustedCAs(Path(environment[variable]), variable)
    for directory in _DIRECTORIES:
        place = root / directory.relative_to("/")
        if _has_hashed_names(place):
            return TrustedCAs(place)
    for bundle in _BUNDLES:
        place = root / bundle.relative_to("/")
        if place.is_file():
            return TrustedCAs(place)
    return None


def _has_hashed_names(path: Path) -> bool:
    try:
        with os.scandir(path) as entries:
            return any(entry.name.endswith(".0") for entry in entries)
    except OSError:
        return False

"""Which CAs are trusted: those of the host, or those that the environment names."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ssl
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

_NOT_YET_VALID, _EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 9, 10, 62, 64  # of OpenSSL's X509_V_ERR_*
_OWN_CA = (
    "If a CA of your own, or of a proxy that looks into TLS, has issued it: put the certificate of that CA, in PEM form "
    "and named NAME.crt, into /usr/local/share/ca-certificates and run update-ca-certificates (Debian, Ubuntu), or into "
    "/etc/pki/ca-trust/source/anchors and run update-ca-trust (Amazon Linux, RHEL); or name its file with AWS_CA_BUNDLE "
    "in the environment of the agent's service. Then restart the agent."
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


def untrusted_because(error: ssl.SSLCertVerificationError, cas: TrustedCAs | None, about_name: str) -> str:
    """Why a server's certificate is not trusted and what to do about it, as the end of a sentence and more sentences.

    Args:
        error: of the handshake.
        cas: which CAs are trusted; None = nobody knows.
        about_name: what to check where the certificate is for another name, as a sentence.
    """
    said = error.verify_message
    if error.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        return f"its certificate is for another name ({said.rstrip('.')}). {about_name}"
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        return (
            f"its certificate is out of date ({said}), while this host's clock says {now}. If the clock is right, "
            "tell whoever runs that server."
        )
    return f"its certificate is not trusted ({said}). {_trusted(cas)}{_OWN_CA}"


def _trusted(cas: TrustedCAs | None) -> str:
    """The sentences that say which CAs count; empty where nobody knows."""
    if cas is None:
        return ""
    if not cas.variable:
        return f"Trusted are the CAs of this host, in {cas.path}. "
    # OpenSSL finds a certificate in a directory by the hash of its subject only.
    rehash = f" (after adding one, run `openssl rehash {cas.path}`)" if cas.path.is_dir() else ""
    return f"Trusted are only the CAs in {cas.path}, which {cas.variable} names{rehash}. "

"""The CA in the data directory, and the signer certificate it issues.

Hosts are told the CA (`codedeploy-control ca`); the signer behind it may change without telling them.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from controlplane.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CA_LIFETIME: Final = dt.timedelta(days=3650)
SIGNER_LIFETIME: Final = dt.timedelta(days=365)
SIGNER_RENEWAL: Final = dt.timedelta(days=60)
"""A signer with less time left than this is replaced at the next look."""
_CLOCK_MARGIN: Final = dt.timedelta(days=2)
"""Hosts whose clock is a day behind must not find the certificate not yet valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedKey:
    """A private key and the certificate of its public half."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)

    @property
    def certificate_pem(self) -> str:
        """The certificate as PEM text."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


class Authority:
    """The CA of one data directory."""

    def __init__(self, data_directory: Path) -> None:
        self._directory = data_directory

    def ca(self, now: dt.datetime) -> CertifiedKey:
        """The CA, made at the first call. It is never replaced by itself: every host was told this one."""
        with self._locked():
            found = self._read("ca")
            return found or self._write("ca", _make_ca(now))

    def signer(self, now: dt.datetime) -> CertifiedKey:
        """The signer of deployment specifications, issued by the CA, renewed when near its end."""
        ca = self.ca(now)
        with self._locked():
            found = self._read("signer")
            if found is not None and _is_fit(found, ca, now):
                return found
            return self._write("signer", _issue_signer(ca, now))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The server and a command line may look for the CA at the same time; only one may make it."""
        descriptor = os.open(self._directory / ".signing.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self, name: str) -> CertifiedKey | None:
        path = self._directory / f"{name}.pem"
        try:
            pem = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            key = serialization.load_pem_private_key(pem, password=None)
            certificate = x509.load_pem_x509_certificate(pem)
        except ValueError as error:
            raise OperatorError(
                f"{path} holds no usable key and certificate: {error}. Restore it from a backup; "
                "a new CA would have to be given to every host again."
            ) from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise OperatorError(f"{path} holds a key that is not RSA; it was not written by this program.")
        return CertifiedKey(certificate=certificate, key=key)

    def _write(self, name: str, made: CertifiedKey) -> CertifiedKey:
        """Key and certificate lie in one file, so that a kill can't leave one without the other."""
        pem = made.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write_durably(self._directory / f"{name}.pem", pem + made.certificate_pem.encode())
        return made


def _write_durably(path: Path, content: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _make_ca(now: dt.datetime) -> CertifiedKey:
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    name = _name("CodeDeploy control endpoint CA")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _certificate(name, name, key.public_key(), now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(_authority_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertifiedKey(certificate=certificate, key=key)


def _issue_signer(ca: CertifiedKey, now: dt.datetime) -> CertifiedKey:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    lifetime = min(SIGNER_LIFETIME, ca.certificate.not_valid_after_utc - now)
    name = _name("CodeDeploy deployment specifications")
    ca_identifier = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _certificate(name, ca.certificate.subject, key.public_key(), now, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_identifier(ca_identifier), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    return CertifiedKey(certificate=certificate, key=key)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: rsa.RSAPublicKey,
    now: dt.datetime,
    lifetime: dt.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_MARGIN)
        .not_valid_after(now + lifetime)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _authority_identifier(identifier: x509.SubjectKeyIdentifier) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _is_fit(signer: CertifiedKey, ca: CertifiedKey, now: dt.datetime) -> bool:
    ends = signer.certificate.not_valid_after_utc
    return signer.certificate.issuer == ca.certificate.subject and now + SIGNER_RENEWAL < ends

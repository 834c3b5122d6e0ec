"""Throw-away certificates, and messages signed with them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
DAY = dt.timedelta(days=1)
PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def write(self, directory: Path) -> tuple[Path, Path]:
        """Paths of the certificate and of the key, for the openssl command."""
        certificate, key = directory / "signer.pem", directory / "signer.key"
        certificate.write_bytes(self.pem)
        key.write_bytes(
            self.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return certificate, key


def issue(
    common_name: str,
    *,
    issuer: Identity | None = None,
    is_authority: bool = False,
    key: PrivateKey | None = None,
    ends_in: dt.timedelta = 30 * DAY,
) -> Identity:
    """A certificate that the issuer, or without one its own key, has signed."""
    own_key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(own_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * DAY)
        .not_valid_after(now + ends_in)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own_key.public_key()), critical=False)
        .sign(issuer.key if issuer else own_key, hashes.SHA256())
    )
    return Identity(certificate=certificate, key=own_key)


def sign(
    content: bytes, signer: Identity, *options: pkcs7.PKCS7Options, enclosed: tuple[Identity, ...] = ()
) -> bytes:
    """A PKCS#7 message in DER with the content and the signer's certificate inside."""
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content)
    builder = builder.add_signer(signer.certificate, signer.key, hashes.SHA256())
    for identity in enclosed:
        builder = builder.add_certificate(identity.certificate)
    return builder.sign(DER, [pkcs7.PKCS7Options.Binary, *options])

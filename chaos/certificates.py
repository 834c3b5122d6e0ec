"""Certificates for the servers that agents meet over TLS: a good one, an expired one, and one of another CA."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What is shown to agents.

    Attributes:
        ca_file: of the CA that agents are told to trust.
        good: a certificate of that CA for 127.0.0.1; also right for clocks that are off by days.
        expired: the same CA's, no longer valid.
        other: another CA's.
    """

    ca_file: Path
    good: ssl.SSLContext
    expired: ssl.SSLContext
    other: ssl.SSLContext


def make_certificates(directory: Path) -> Certificates:
    """Two CAs and three certificates; their files lie in this directory."""
    ca, other_ca = _Authority("campaign"), _Authority("somebody else")
    ca_file = directory / "tls-ca.pem"
    ca_file.write_bytes(ca.certificate.public_bytes(serialization.Encoding.PEM))
    return Certificates(
        ca_file=ca_file,
        good=ca.context(directory / "tls-good.pem", since=-30 * _DAY, until=30 * _DAY),
        expired=ca.context(directory / "tls-expired.pem", since=-60 * _DAY, until=-10 * _DAY),
        other=other_ca.context(directory / "tls-other.pem", since=-30 * _DAY, until=30 * _DAY),
    )


class _Authority:
    """A CA of its own, which issues certificates for 127.0.0.1."""

    def __init__(self, name: str) -> None:
        self._now = dt.datetime.now(dt.timezone.utc)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (
            self._builder(self._name, self._key, -90 * _DAY, 90 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def context(self, file: Path, *, since: dt.timedelta, until: dt.timedelta) -> ssl.SSLContext:
        """A server's side of TLS with a new certificate, valid from and until then as seen from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            self._builder(name, key, since, until)
            .add_extension(alternative, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, since: dt.timedelta, until: dt.timedelta
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now + since)
            .not_valid_after(self._now + until)
        )

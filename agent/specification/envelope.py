"""The signed envelope that a deployment specification travels in, and whose signature counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """As GetDeploymentSpecification delivers it; nothing in it is trusted yet."""

    format: str
    payload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAuthority:
    """Trust whom the certificates in this PEM file have issued, or are: roots, intermediates, signers."""

    file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LastSeen:
    """Trust any intact signature. The caller compares the signer with the one it saw last."""


SignerTrust = CertificateAuthority | LastSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Whose signature it is.

    Attributes:
        fingerprint: SHA-256 of the certificate, in lower-case hexadecimal.
        subject: of the certificate, such as `CN=Signer,O=Example`; printable ASCII.
    """

    fingerprint: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedEnvelope:
    """The content, exactly as the signer signed it."""

    content: bytes
    signer: Signer

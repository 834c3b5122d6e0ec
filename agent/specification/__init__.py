"""Signed envelope → DeploymentSpecification.

The values are here. `agent.specification.signature` gets the content out of its signature (with
ctypes, so it is imported only where that is done), and `agent.specification.parse` reads it.
"""

from agent.specification.envelope import (
    CertificateAuthority,
    Envelope,
    LastSeen,
    OpenedEnvelope,
    Signer,
    SignerTrust,
)
from agent.specification.revision import GitHubRevision, LocalRevision, Revision, S3Revision
from agent.specification.specification import DeploymentSpecification, UnknownFileExistsBehavior

__all__ = [
    "CertificateAuthority",
    "DeploymentSpecification",
    "Envelope",
    "GitHubRevision",
    "LastSeen",
    "LocalRevision",
    "OpenedEnvelope",
    "Revision",
    "S3Revision",
    "Signer",
    "SignerTrust",
    "UnknownFileExistsBehavior",
]

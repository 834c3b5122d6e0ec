"""Deployment specifications: the JSON a host acts on, signed."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs7

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from controlplane.domain.revisions import Revision
    from controlplane.signing.authority import Authority, CertifiedKey

ENVELOPE_FORMAT: Final = "PKCS7/JSON"
_RENEWAL_CHECK: Final = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpecification:
    """What a host has to know to carry out a deployment."""

    deployment_arn: str
    group_id: str
    group_name: str
    application_name: str
    revision: Revision
    file_exists_behavior: str

    def document(self) -> dict[str, Any]:
        """The members of the specification, as hosts read them."""
        return {
            "DeploymentId": self.deployment_arn,
            "DeploymentGroupId": self.group_id,
            "DeploymentGroupName": self.group_name,
            "ApplicationName": self.application_name,
            "DeploymentCreator": "user",
            "DeploymentType": "IN_PLACE",
            "AgentActionOverrides": {"AgentOverrides": {"FileExistsBehavior": self.file_exists_behavior}},
            "Revision": self.revision.specification(),
        }


class SpecificationSigner:
    """Signs with the current signer of the authority; may be used from several threads."""

    def __init__(self, authority: Authority, clock: Callable[[], float]) -> None:
        self._authority = authority
        self._clock = clock
        self._lock = Lock()
        self._signer: CertifiedKey | None = None
        self._checked_at = dt.datetime.min.replace(tzinfo=dt.timezone.utc)

    def prepare(self) -> None:
        """CA and signer exist; otherwise raises OperatorError now rather than at the first deployment."""
        self._current()

    def sign(self, document: Mapping[str, Any]) -> str:
        """PEM of a PKCS #7 signed-data with the JSON text inside."""
        signer = self._current()
        return (
            pkcs7.PKCS7SignatureBuilder()
            .set_data(json.dumps(document).encode())
            .add_signer(signer.certificate, signer.key, hashes.SHA256())
            .sign(serialization.Encoding.PEM, [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCapabilities])
            .decode()
        )

    def _current(self) -> CertifiedKey:
        now = dt.datetime.fromtimestamp(self._clock(), dt.timezone.utc)
        with self._lock:
            if self._signer is None or now - self._checked_at > _RENEWAL_CHECK:
                self._signer = self._authority.signer(now)
                self._checked_at = now
            return self._signer

"""Who a host on EC2 is, and the credentials of its role, as the metadata service says."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from agent.errors import CredentialsUnavailable, IdentityError
from agent.identity.credentials import Credentials, can_be_key
from agent.identity.endpoints import partition_of
from agent.identity.metadata import MetadataAbsent
from agent.protocol import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.identity.metadata import InstanceMetadata

_DOCUMENT = "/latest/dynamic/instance-identity/document"
_ROLES = "/latest/meta-data/iam/security-credentials/"

_SHAPES = {
    "region": re.compile(r"[a-z0-9]+(-[a-z0-9]+)+"),
    "accountId": re.compile(r"\d{12}"),
    "instanceId": re.compile(r"i-[0-9a-f]+"),
}
_ROLE = re.compile(r"[\w+=,.@-]+", re.ASCII)
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")

# New credentials are there at least five minutes before the old ones end.
_REFRESH_BEFORE_END_S = 600.0
_REFRESH_AGAIN_AFTER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An EC2 instance."""

    region: str
    host_identifier: str
    dns_suffix: str


def read_instance(metadata: InstanceMetadata) -> Instance:
    """Which instance this host is.

    Raises:
        IdentityError: no answer, or one of another cloud's metadata service.
    """
    document = _identity_document(metadata)
    region = document["region"]
    partition = partition_of(region)
    name = _name(metadata, "/latest/meta-data/services/partition") or partition.name
    return Instance(
        region=region,
        host_identifier=f"arn:{name}:ec2:{region}:{document['accountId']}:instance/{document['instanceId']}",
        dns_suffix=_name(metadata, "/latest/meta-data/services/domain") or partition.dns_suffix,
    )


def _identity_document(metadata: InstanceMetadata) -> dict[str, str]:
    try:
        members = metadata.members(_DOCUMENT)
    except MetadataAbsent as error:
        raise _foreign(metadata, "it has no identity document") from error
    wrong = [name for name, shape in _SHAPES.items() if not shape.fullmatch(str(members.get(name, "")))]
    if wrong:
        raise _foreign(metadata, f"its identity document has no usable {' and '.join(wrong)}")
    return {name: str(members[name]) for name in _SHAPES}


def _foreign(metadata: InstanceMetadata, reason: str) -> IdentityError:
    return IdentityError(
        f"What answers at {metadata.endpoint} is not the metadata service of EC2: {reason}. "
        f"Other clouds and emulators use the same address. {metadata.advice_elsewhere}"
    )


def _name(metadata: InstanceMetadata, path: str) -> str:
    """Empty where the service does not know the path, or says what can't be such a name."""
    try:
        text = metadata.text(path)
    except MetadataAbsent:
        return ""
    return text if _NAME.fullmatch(text) else ""


class RoleCredentials:
    """Credentials of the instance's role, renewed before they end."""

    def __init__(self, metadata: InstanceMetadata, *, now: Callable[[], float] = time.time) -> None:
        self._metadata = metadata
        self._now = now
        self._credentials: Credentials | None = None
        self._refresh_at = 0.0

    def current(self) -> Credentials:
        """Credentials that are valid now. If they can't be renewed, the old ones serve to their very end.

        Raises:
            IdentityError: there are none, with the reason.
        """
        now = self._now()
        if self._credentials is not None and now < self._refresh_at:
            return self._credentials
        try:
            self._credentials = self._fetch()
            self._refresh_at = max(
                _end(self._credentials) - _REFRESH_BEFORE_END_S, now + _REFRESH_AGAIN_AFTER_S
            )
        except IdentityError:
            if self._credentials is None or now >= _end(self._credentials):
                raise
            self._refresh_at = now + _REFRESH_AGAIN_AFTER_S
        return self._credentials

    def forget(self) -> None:
        """The next `current` asks the metadata service."""
        self._refresh_at = 0.0

    def describe(self) -> str:
        """Where the credentials come from."""
        return f"the instance's role, from the metadata service at {self._metadata.endpoint}"

    def _fetch(self) -> Credentials:
        try:
            role = self._metadata.text(_ROLES).partition("\n")[0].strip()
        except MetadataAbsent:
            role = ""
        if role and not _ROLE.fullmatch(role):
            raise _foreign(self._metadata, f"it names a role {role[:40]!r}")
        if not role:
            raise CredentialsUnavailable(
                f"No usable credentials. Tried: the metadata service at {self._metadata.endpoint}, which answers, "
                "but no role is attached to this instance. Attach an instance profile. "
                f"{self._metadata.advice_elsewhere}"
            )
        return _role_credentials(self._metadata.members(_ROLES + role), role)


def _role_credentials(members: dict[str, Any], role: str) -> Credentials:
    code = members.get("Code", "Success")
    if code != "Success":
        raise CredentialsUnavailable(
            f"No usable credentials: the metadata service says {code} for the role {role}. "
            "Check that the trust policy of the role allows ec2.amazonaws.com to assume it."
        )
    names = ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")
    missing = [name for name in names if not isinstance(members.get(name), str)]
    if missing:
        raise CredentialsUnavailable(
            f"No usable credentials: the metadata service's answer for the role {role} lacks {', '.join(missing)}. "
            "It is tried again."
        )
    odd = [name for name in names[:3] if not can_be_key(members[name])]
    if odd:
        raise CredentialsUnavailable(
            f"No usable credentials: in the metadata service's answer for the role {role}, {', '.join(odd)} has "
            "characters in it that no key has. It is tried again."
        )
    return Credentials(
        access_key_id=members["AccessKeyId"],
        secret_access_key=Secret(members["SecretAccessKey"]),
        session_token=Secret(members["Token"]),
        expires_at=_timestamp(members["Expiration"], role),
    )


def _timestamp(text: str, role: str) -> float:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise CredentialsUnavailable(
            f'No usable credentials: those of the role {role} expire at "{text}", which is no time. It is tried again.'
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _end(credentials: Credentials) -> float:
    return credentials.expires_at if credentials.expires_at is not None else float("inf")

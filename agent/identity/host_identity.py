"""Who this host is: the one thing that daemon and workers ask."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from agent.errors import ConfigurationError, IdentityError, Problem
from agent.identity.credentials import Credentials
from agent.identity.credentials_file import CredentialsFile
from agent.identity.endpoints import partition_of
from agent.identity.instance import RoleCredentials, read_instance
from agent.identity.on_premises import IamUser

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.identity.metadata import InstanceMetadata
    from agent.identity.on_premises import OnPremisesIdentity

_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class CredentialSource(Protocol):
    """Where credentials come from; they may be others each time."""

    def current(self) -> Credentials:
        """Credentials to sign with now.

        Raises:
            IdentityError: there are none at the moment.
        """

    def forget(self) -> None:
        """The service has refused the current ones: don't answer from memory next time."""

    def describe(self) -> str:
        """Where they come from, in words that go into a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostIdentity:
    """Region, name and credentials of this host.

    Attributes:
        region: such as `eu-west-1`.
        host_identifier: ARN of the user, session or instance that this host is.
        dns_suffix: domain of the services for this host, such as `amazonaws.com`.
        source: what all this was taken from, in words.
        credential_source: for `credentials`.
    """

    region: str
    host_identifier: str
    dns_suffix: str
    source: str
    credential_source: CredentialSource

    def credentials(self) -> Credentials:
        """Credentials to sign with now; ask again for each request.

        Raises:
            IdentityError: there are none at the moment.
        """
        return self.credential_source.current()

    def describe(self) -> str:
        """One line about who this host is, and why."""
        return (
            f"{self.host_identifier} in {self.region}, according to {self.source}; "
            f"credentials from {self.credential_source.describe()}"
        )


def identify_host(
    *,
    on_premises: OnPremisesIdentity | None,
    on_premises_file: Path,
    metadata: InstanceMetadata,
    environ: Mapping[str, str],
) -> HostIdentity:
    """Who this host is: what the on-premises file says if there is one, else the EC2 instance.

    Args:
        on_premises: what the file says; None = there is no such file.
        on_premises_file: its path, for messages.
        metadata: asked only without an on-premises file.
        environ: AWS_REGION and AWS_HOST_IDENTIFIER in it win; credentials in it are not used.

    Raises:
        IdentityError: not to be found out now, with all that was tried.
        ConfigurationError: the environment names something that can't be.
    """
    region = region_of(environ)
    if on_premises is not None:
        identity = _on_premises_host(on_premises, on_premises_file)
    else:
        identity = _instance_host(metadata, on_premises_file)
    if region:
        identity = replace(
            identity,
            region=region,
            # What the metadata service said is about the instance's own region only.
            dns_suffix=identity.dns_suffix if region == identity.region else partition_of(region).dns_suffix,
            source=f"AWS_REGION and {identity.source}",
        )
    if host_identifier := environ.get("AWS_HOST_IDENTIFIER", ""):
        identity = replace(
            identity, host_identifier=host_identifier, source=f"AWS_HOST_IDENTIFIER and {identity.source}"
        )
    return identity


def region_of(environ: Mapping[str, str]) -> str:
    """AWS_REGION; empty when it is not set.

    Raises:
        ConfigurationError: it can't be the name of a region.
    """
    region = environ.get("AWS_REGION", "")
    if region and not _REGION.fullmatch(region):
        raise ConfigurationError(
            "The environment of the agent",
            [
                Problem(
                    message=f'AWS_REGION is "{region}", but must be the name of a region, such as eu-west-1.'
                )
            ],
        )
    return region


def _on_premises_host(on_premises: OnPremisesIdentity, file: Path) -> HostIdentity:
    credential_source: CredentialSource
    if isinstance(on_premises, IamUser):
        host_identifier = on_premises.iam_user_arn
        credential_source = UserCredentials(on_premises, file)
    else:
        host_identifier = on_premises.iam_session_arn
        credential_source = CredentialsFile(on_premises.aws_credentials_file)
    return HostIdentity(
        region=on_premises.region,
        host_identifier=host_identifier,
        dns_suffix=partition_of(on_premises.region).dns_suffix,
        source=f"the on-premises file {file}",
        credential_source=credential_source,
    )


def _instance_host(metadata: InstanceMetadata, on_premises_file: Path) -> HostIdentity:
    try:
        instance = read_instance(metadata)
    except IdentityError as error:
        raise IdentityError(
            f"This host does not know who it is. Tried: the on-premises file {on_premises_file} (absent); "
            f"the metadata service of EC2. {error.message}"
        ) from error
    return HostIdentity(
        region=instance.region,
        host_identifier=instance.host_identifier,
        dns_suffix=instance.dns_suffix,
        source=f"the metadata service at {metadata.endpoint} (version {metadata.version})",
        credential_source=RoleCredentials(metadata),
    )


class UserCredentials:
    """The keys of an IAM user, as the on-premises file had them when the agent started."""

    def __init__(self, user: IamUser, file: Path) -> None:
        self._credentials = Credentials(
            access_key_id=user.aws_access_key_id, secret_access_key=user.aws_secret_access_key
        )
        self._file = file

    def current(self) -> Credentials:
        """The keys; they don't expire."""
        return self._credentials

    def forget(self) -> None:
        """Nothing to forget: there are no others."""

    def describe(self) -> str:
        """Where the credentials come from."""
        return f"the keys in {self._file}"

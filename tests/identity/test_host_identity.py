"""Which source decides about who this host is, and what is said when none does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.errors import ConfigurationError, IdentityError
from agent.identity import Credentials, HostIdentity, IamSession, IamUser, identify_host
from agent.protocol import Secret
from tests.identity.metadata_server import DOCUMENT, DOMAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.identity import InstanceMetadata, OnPremisesIdentity
    from tests.identity.metadata_server import MetadataServer

pytestmark = pytest.mark.server

FILE = Path("/etc/test/onpremises.yml")
USER = IamUser(
    region="eu-central-1",
    iam_user_arn="arn:aws:iam::123456789012:user/host-7",
    aws_access_key_id="AKIA",
    aws_secret_access_key=Secret("secret"),
)


def identify(
    metadata: InstanceMetadata,
    on_premises: OnPremisesIdentity | None = None,
    environ: Mapping[str, str] | None = None,
) -> HostIdentity:
    return identify_host(
        on_premises=on_premises, on_premises_file=FILE, metadata=metadata, environ=environ or {}
    )


def test_a_host_with_an_on_premises_file_is_who_the_file_says(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """Also on EC2: there, the metadata service is not even asked."""
    host = identify(metadata, USER)

    assert (host.region, host.host_identifier) == ("eu-central-1", "arn:aws:iam::123456789012:user/host-7")
    assert host.credentials() == Credentials(access_key_id="AKIA", secret_access_key=Secret("secret"))
    assert metadata_server.requests == []


def test_a_host_that_is_a_session_signs_with_the_rotated_keys(
    metadata: InstanceMetadata, tmp_path: Path
) -> None:
    """The file may appear after the agent has started."""
    file = tmp_path / "credentials"
    arn = "arn:aws:sts::123456789012:assumed-role/host/host-7"
    host = identify(metadata, IamSession(region="eu-west-1", iam_session_arn=arn, aws_credentials_file=file))
    file.write_text("[default]\naws_access_key_id=ASIA7\naws_secret_access_key=s\n")

    assert host.host_identifier == arn
    assert host.credentials().access_key_id == "ASIA7"


def test_a_host_without_the_file_is_an_instance(metadata: InstanceMetadata) -> None:
    """This is all the configuration that a host on EC2 needs."""
    host = identify(metadata)

    assert host.host_identifier == "arn:aws:ec2:eu-west-1:123456789012:instance/i-0abc1234567890def"
    assert host.credentials().access_key_id == "ASIA1"


def test_the_environment_overrides_region_and_name(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """For tests, and for hosts that are known to the control endpoint by another name."""
    metadata_server.texts[DOMAIN] = "amazonaws.test"
    environ = {"AWS_REGION": "cn-north-1", "AWS_HOST_IDENTIFIER": "arn:aws:iam::1:user/other"}

    host = identify(metadata, environ=environ)

    assert (host.region, host.dns_suffix) == ("cn-north-1", "amazonaws.com.cn")
    assert host.host_identifier == "arn:aws:iam::1:user/other"
    assert host.source.startswith("AWS_HOST_IDENTIFIER and AWS_REGION and the metadata service")


def test_credentials_in_the_environment_are_not_used(metadata: InstanceMetadata) -> None:
    """What root happens to have in its shell must not decide who deploys."""
    environ = {"AWS_ACCESS_KEY_ID": "AKIAROOT", "AWS_SECRET_ACCESS_KEY": "x"}

    assert identify(metadata, environ=environ).credentials().access_key_id == "ASIA1"


def test_a_region_in_the_environment_that_is_none_is_refused(metadata: InstanceMetadata) -> None:
    """It becomes a part of host names that requests with signatures go to."""
    with pytest.raises(ConfigurationError, match="AWS_REGION"):
        identify(metadata, environ={"AWS_REGION": "evil.example/"})


def test_a_host_that_cannot_be_identified_says_what_was_tried(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """One message with both places is what an operator needs to decide which one to repair."""
    del metadata_server.texts[DOCUMENT]

    with pytest.raises(
        IdentityError, match=rf"Tried: the on-premises file {FILE} \(absent\); the metadata service"
    ):
        identify(metadata)


def test_a_host_describes_where_its_identity_comes_from(metadata: InstanceMetadata) -> None:
    """Without the secrets."""
    assert identify(metadata, USER).describe() == (
        "arn:aws:iam::123456789012:user/host-7 in eu-central-1, "
        f"according to the on-premises file {FILE}; credentials from the keys in {FILE}"
    )

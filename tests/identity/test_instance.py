"""On EC2, identity and credentials come from the metadata service, and outlast its weak moments."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import CredentialsUnavailable, IdentityError
from agent.identity.credentials import Credentials
from agent.identity.instance import Instance, RoleCredentials, read_instance
from agent.protocol import Secret
from tests.identity.metadata_server import (
    DOCUMENT,
    DOMAIN,
    INSTANCE,
    PARTITION,
    ROLE,
    ROLES,
    MetadataServer,
    role_credentials,
)

if TYPE_CHECKING:
    from agent.identity.metadata import InstanceMetadata

pytestmark = pytest.mark.server

END = datetime(2030, 1, 1, tzinfo=timezone.utc).timestamp()


class Clock:
    """Stands still until a test moves it."""

    def __init__(self, time_s: float) -> None:
        self.time_s = time_s

    def __call__(self) -> float:
        return self.time_s


def test_an_instance_knows_region_name_and_domain(metadata: InstanceMetadata) -> None:
    """The host identifier is how the control endpoint finds the deployments of this host."""
    assert read_instance(metadata) == Instance(
        region="eu-west-1",
        host_identifier="arn:aws:ec2:eu-west-1:123456789012:instance/i-0abc1234567890def",
        dns_suffix="amazonaws.com",
    )


def test_partition_and_domain_of_the_metadata_service_win(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """New partitions work without a new agent."""
    metadata_server.texts |= {DOMAIN: "amazonaws.test", PARTITION: "aws-test"}

    instance = read_instance(metadata)

    assert instance.dns_suffix == "amazonaws.test"
    assert instance.host_identifier.startswith("arn:aws-test:ec2:")


def test_partition_and_domain_follow_from_the_region_where_the_service_is_old(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """Emulators often lack these two paths."""
    del metadata_server.texts[DOMAIN], metadata_server.texts[PARTITION]
    metadata_server.texts[DOCUMENT] = json.dumps({**INSTANCE, "region": "cn-north-1"})

    instance = read_instance(metadata)

    assert instance.dns_suffix == "amazonaws.com.cn"
    assert instance.host_identifier.startswith("arn:aws-cn:ec2:cn-north-1:")


def test_a_domain_that_is_no_name_is_not_used(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """It becomes a part of the address that requests with signatures go to."""
    metadata_server.texts[DOMAIN] = "<html>not found</html>"

    assert read_instance(metadata).dns_suffix == "amazonaws.com"


@pytest.mark.parametrize(
    "changes",
    [{"region": None}, {"accountId": "me"}, {"instanceId": "vm-7"}, {"region": "Europe West"}],
    ids=lambda changes: next(iter(changes)),
)
def test_the_document_of_another_cloud_is_recognised(
    changes: dict[str, Any], metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """Other clouds answer at the same address; the agent must not make up an identity from that."""
    metadata_server.texts[DOCUMENT] = json.dumps({**INSTANCE, **changes})

    with pytest.raises(IdentityError, match=f"not the metadata service of EC2.*{next(iter(changes))}"):
        read_instance(metadata)


def test_a_service_without_identity_document_is_recognised(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """So do virtual machines of other makers."""
    del metadata_server.texts[DOCUMENT]

    with pytest.raises(IdentityError, match="not the metadata service of EC2.*on-premises file"):
        read_instance(metadata)


def test_credentials_are_those_of_the_role(metadata: InstanceMetadata) -> None:
    """With the time at which they end, so that they can be renewed before."""
    assert RoleCredentials(metadata, now=Clock(0)).current() == Credentials(
        access_key_id="ASIA1",
        secret_access_key=Secret("secret-1"),
        session_token=Secret("token-1"),
        expires_at=END,
    )


def test_credentials_are_kept_while_they_are_fresh(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """Every poll signs; none of them should need the metadata service."""
    source = RoleCredentials(metadata, now=Clock(END - 3600))
    source.current()
    asked = len(metadata_server.requests)

    source.current()

    assert len(metadata_server.requests) == asked


def test_credentials_are_renewed_before_they_end(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """A long upload must not end with keys that ended in the middle."""
    clock = Clock(END - 3600)
    source = RoleCredentials(metadata, now=clock)
    source.current()
    metadata_server.texts[ROLES + ROLE] = role_credentials(2)
    clock.time_s = END - 300

    assert source.current().access_key_id == "ASIA2"


def test_old_credentials_serve_to_their_end_when_they_cannot_be_renewed(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """A weak moment of the metadata service is no reason to miss a deployment."""
    clock = Clock(END - 3600)
    source = RoleCredentials(metadata, now=clock)
    source.current()
    del metadata_server.texts[ROLES]
    clock.time_s = END - 1

    assert source.current().access_key_id == "ASIA1"


def test_credentials_that_have_ended_are_not_used(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """They would be refused with a message that says less."""
    clock = Clock(END - 3600)
    source = RoleCredentials(metadata, now=clock)
    source.current()
    del metadata_server.texts[ROLES]
    clock.time_s = END

    with pytest.raises(IdentityError, match="no role is attached"):
        source.current()


def test_a_failed_renewal_is_not_tried_at_every_request(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """The metadata service throttles, and a poll must not wait for it each time."""
    clock = Clock(END - 3600)
    source = RoleCredentials(metadata, now=clock)
    source.current()
    del metadata_server.texts[ROLES]
    clock.time_s = END - 300
    source.current()
    asked = len(metadata_server.requests)
    clock.time_s += 30

    source.current()

    assert len(metadata_server.requests) == asked


def test_credentials_that_the_service_refused_are_fetched_anew(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """Keys can be revoked long before their end."""
    source = RoleCredentials(metadata, now=Clock(END - 3600))
    source.current()
    metadata_server.texts[ROLES + ROLE] = role_credentials(2)

    source.forget()

    assert source.current().access_key_id == "ASIA2"


def test_a_refused_set_is_replaced_soon_even_if_the_first_attempt_fails(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """The refused keys look good for hours; waiting for their end would be hours without a deployment."""
    clock = Clock(END - 7200)
    source = RoleCredentials(metadata, now=clock)
    source.current()
    answer = metadata_server.texts.pop(ROLES)
    source.forget()
    during = source.current().access_key_id
    metadata_server.texts |= {ROLES: answer, ROLES + ROLE: role_credentials(2)}
    clock.time_s += 61

    assert (during, source.current().access_key_id) == ("ASIA1", "ASIA2")


def test_an_instance_without_a_role_is_told_so(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """The most frequent cause of all for an agent that can't sign."""
    del metadata_server.texts[ROLES]

    with pytest.raises(
        CredentialsUnavailable, match="no role is attached.*Attach an instance profile.*file /etc"
    ):
        RoleCredentials(metadata).current()


ODD_ROLE_ANSWERS = {
    "code": (
        json.dumps({"Code": "AssumeRoleUnauthorizedAccess"}),
        "AssumeRoleUnauthorizedAccess.*trust policy",
    ),
    "lacking": (
        json.dumps({"Code": "Success", "AccessKeyId": "A"}),
        "lacks SecretAccessKey, Token, Expiration",
    ),
    "no time": (role_credentials(expiration="soon"), '"soon", which is no time'),
    "no JSON": ("<html>", "not the metadata service of EC2"),
    "no key": (role_credentials().replace("secret-1", "sécret"), "SecretAccessKey has characters in it"),
    "two lines": (role_credentials().replace("token-1", "token\\n-1"), "Token has characters in it"),
}


@pytest.mark.parametrize(("answer", "message"), ODD_ROLE_ANSWERS.values(), ids=ODD_ROLE_ANSWERS)
def test_an_odd_answer_for_the_role_is_told_with_its_reason(
    answer: str, message: str, metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """Each of these has another remedy."""
    metadata_server.texts[ROLES + ROLE] = answer

    with pytest.raises(IdentityError, match=message):
        RoleCredentials(metadata).current()


def test_a_list_of_roles_that_is_a_page_is_recognised(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """The name of the role becomes a part of the next request."""
    metadata_server.texts[ROLES] = "<html>\n</html>"

    with pytest.raises(IdentityError, match="not the metadata service of EC2"):
        RoleCredentials(metadata).current()

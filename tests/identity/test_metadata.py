"""The metadata service is asked so that it answers wherever the host runs, and odd answers have a reason."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.errors import ConfigurationError, IdentityError
from agent.identity.metadata import (
    IPV4_ENDPOINT,
    IPV6_ENDPOINT,
    InstanceMetadata,
    MetadataAbsent,
    metadata_endpoint,
)
from tests.endpoint.scripted_server import Answer, ScriptedServer
from tests.identity.metadata_server import DOCUMENT, DOMAIN, TOKEN, MetadataServer

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.server


def strict(server: MetadataServer) -> InstanceMetadata:
    return InstanceMetadata(endpoint=server.url, disable_v1=True, sleep=lambda _: None)


def test_version_2_is_used_where_it_is_to_be_had(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """Hosts that allow version 2 only are the default of EC2 today."""
    metadata_server.versions = {2}

    assert metadata.text(DOMAIN) == "amazonaws.com"
    assert metadata.version == 2


def test_one_token_serves_many_requests(metadata_server: MetadataServer, metadata: InstanceMetadata) -> None:
    """The service throttles hosts that ask for a token each time."""
    for _ in range(3):
        metadata.text(DOMAIN)

    assert metadata_server.requests == [f"PUT {TOKEN}", *[f"GET {DOMAIN}"] * 3]


def test_a_token_that_has_ended_on_the_other_side_is_replaced(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """After a host was suspended and resumed, its token is refused before its time."""
    metadata.text(DOMAIN)
    metadata_server.versions = {2}
    metadata_server.tokens.clear()

    assert metadata.text(DOMAIN) == "amazonaws.com"


def test_a_token_is_renewed_before_it_ends(metadata_server: MetadataServer) -> None:
    """No request is lost to a token that ends on its way."""
    clock = [0.0]
    metadata = InstanceMetadata(endpoint=metadata_server.url, monotonic=lambda: clock[0])
    metadata.text(DOMAIN)
    clock[0] = 21_600 * 0.95

    metadata.text(DOMAIN)

    assert metadata_server.requests == [f"PUT {TOKEN}", f"GET {DOMAIN}"] * 2


def test_version_1_is_used_where_there_is_no_other(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """Old emulators know version 1 only."""
    metadata_server.versions = {1}

    assert metadata.text(DOMAIN) == "amazonaws.com"
    assert metadata.version == 1


def test_version_2_is_not_asked_for_again_before_every_request(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """Where its answer gets lost, each attempt costs seconds."""
    metadata_server.versions = {1}

    metadata.text(DOMAIN)
    metadata.text(DOMAIN)

    assert metadata_server.requests == [f"PUT {TOKEN}", f"GET {DOMAIN}", f"GET {DOMAIN}"]


def test_version_1_is_not_used_where_it_is_switched_off(metadata_server: MetadataServer) -> None:
    """The administrator has switched it off because it can be abused."""
    metadata_server.versions = {1}

    with pytest.raises(IdentityError, match="disable_imds_v1"):
        strict(metadata_server).text(DOMAIN)

    assert f"GET {DOMAIN}" not in metadata_server.requests


def test_a_lost_answer_to_the_token_request_ends_in_version_1(metadata_server: MetadataServer) -> None:
    """In a container with a hop limit of 1 the token never arrives, but version 1 works."""
    metadata_server.silent_paths = {TOKEN}
    metadata = InstanceMetadata(endpoint=metadata_server.url, timeout_s=0.05, sleep=lambda _: None)

    assert metadata.text(DOMAIN) == "amazonaws.com"
    assert metadata.version == 1


def test_a_slow_service_is_given_up_in_bounded_time(metadata_server: MetadataServer) -> None:
    """The agent must start on hosts where nothing answers at this address."""
    metadata_server.silent_paths = {TOKEN, DOMAIN}
    metadata = InstanceMetadata(endpoint=metadata_server.url, timeout_s=0.05, sleep=lambda _: None)

    with pytest.raises(IdentityError, match="no answer in time"):
        metadata.text(DOMAIN)

    assert metadata_server.requests.count(f"GET {DOMAIN}") == 3


def test_a_fault_of_the_service_is_survived(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """The service answers 500 and 503 now and then."""
    metadata_server.statuses = [500, 503]

    assert metadata.text(DOMAIN) == "amazonaws.com"


def test_a_service_that_is_switched_off_is_told_with_the_remedy(metadata_server: MetadataServer) -> None:
    """HTTP 403 means that the instance's metadata options say no."""
    metadata_server.token_status = 403

    with pytest.raises(IdentityError, match="HTTP 403.*switch the service on in the metadata options"):
        strict(metadata_server).text(DOMAIN)


@pytest.mark.parametrize("status", [400, 403, 418])
def test_a_refusal_is_told_with_the_file_that_a_host_outside_of_ec2_needs(
    metadata_server: MetadataServer, status: int
) -> None:
    """Other clouds refuse what lacks a header of theirs: nothing is to be switched on there."""
    metadata_server.statuses = [status]
    file = Path("/srv/conf/onpremises.yml")
    metadata = InstanceMetadata(endpoint=metadata_server.url, on_premises_file=file, sleep=lambda _: None)
    said = f"If this host is not on EC2, write the on-premises file {file}."
    with pytest.raises(IdentityError) as caught:
        metadata.text(DOMAIN)
    assert caught.value.message.endswith(said)


def test_a_name_that_can_not_be_one_is_told() -> None:
    """It must not end the agent."""
    metadata = InstanceMetadata(endpoint="http://a..b", sleep=lambda _: None)
    with pytest.raises(IdentityError, match=r"a\.\.b can't be reached"):
        metadata.text(DOMAIN)


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one() -> None:
    """`amazonaws.co` would be somebody else's domain."""
    with ScriptedServer() as server:
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\namazonaws.com"
        server.script.put(Answer(status=404))
        server.script.put(Answer(raw=whole[:-1], then_close=True))
        server.script.put(Answer(raw=whole))
        metadata = InstanceMetadata(endpoint=server.url, sleep=lambda _: None)

        assert metadata.text(DOMAIN) == "amazonaws.com"

        for _ in range(3):
            server.script.put(Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}"))
        with pytest.raises(IdentityError, match="can't be reached"):
            metadata.text(DOMAIN)

        for _ in range(3):
            server.script.put(Answer(raw=whole[:-13], then_close=True))
        with pytest.raises(IdentityError, match="its answer broke off"):
            metadata.text(DOMAIN)


def test_a_service_that_wants_tokens_but_gives_none_is_told_with_the_remedy(
    metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """The usual case is a container, two hops away from the service."""
    metadata_server.versions = {2}
    metadata_server.token_status = 400

    with pytest.raises(IdentityError, match="hop limit"):
        metadata.text(DOMAIN)


def test_a_path_that_is_not_there_is_told_from_a_service_that_is_not(metadata: InstanceMetadata) -> None:
    """The one is final, the other worth another try."""
    with pytest.raises(MetadataAbsent, match="/latest/nothing"):
        metadata.text("/latest/nothing")


def test_a_closed_port_is_told_with_address_and_remedy() -> None:
    """On a host outside of EC2, this is the message that a new user sees first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    metadata = InstanceMetadata(endpoint=f"http://127.0.0.1:{port}", sleep=lambda _: None)

    with pytest.raises(IdentityError, match=rf"127\.0\.0\.1:{port}.*refused.*on-premises file"):
        metadata.text(DOMAIN)


@pytest.mark.parametrize("text", ["<html>login</html>", "[]", "", "{" * 5000])
def test_an_answer_that_is_no_json_object_is_told_as_such(
    text: str, metadata_server: MetadataServer, metadata: InstanceMetadata
) -> None:
    """Captive portals and other clouds answer anything with a page."""
    metadata_server.texts[DOCUMENT] = text

    with pytest.raises(IdentityError, match="not the metadata service of EC2"):
        metadata.members(DOCUMENT)


def test_proxies_in_the_environment_are_not_used(
    metadata: InstanceMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would answer with its own host's metadata, or hand out ours."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    assert metadata.text(DOMAIN) == "amazonaws.com"


def test_an_endpoint_may_have_a_path(metadata_server: MetadataServer) -> None:
    """Emulators serve several hosts below one address."""
    metadata_server.texts["/host-7" + DOMAIN] = "example.com"
    metadata_server.versions = {1}

    assert InstanceMetadata(endpoint=metadata_server.url + "/host-7").text(DOMAIN) == "example.com"


NAME = "AWS_EC2_METADATA_SERVICE_ENDPOINT"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, IPV4_ENDPOINT),
        ({f"{NAME}_MODE": "ipv6"}, IPV6_ENDPOINT),
        ({f"{NAME}_MODE": "IPv4"}, IPV4_ENDPOINT),
        ({NAME: "http://10.0.0.1:8080/"}, "http://10.0.0.1:8080"),
        ({NAME: "http://10.0.0.1", f"{NAME}_MODE": "IPv6"}, "http://10.0.0.1"),
        ({NAME: ""}, IPV4_ENDPOINT),
    ],
)
def test_the_environment_may_name_another_service(environ: Mapping[str, str], expected: str) -> None:
    """The variables are those of the AWS SDKs, so that one setting serves all programs of a host."""
    assert expected == metadata_endpoint(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {NAME: "169.254.169.254"},
        {NAME: "https://169.254.169.254"},
        {NAME: "http://"},
        {NAME: "http://host:port"},
        {f"{NAME}_MODE": "both"},
    ],
)
def test_an_environment_that_names_no_service_is_refused(environ: Mapping[str, str]) -> None:
    """A typing error must not send the agent somewhere else silently."""
    with pytest.raises(ConfigurationError, match=NAME):
        metadata_endpoint(environ)

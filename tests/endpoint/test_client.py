"""The five operations: what is sent, and what answers mean."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from agent.endpoint import Connection, HostCommandClient
from agent.errors import EndpointUnavailable, RequestRefused, Throttled
from agent.identity.credentials import Credentials
from agent.identity.endpoints import ControlEndpoint
from agent.protocol import CommandStatus, HostCommand, Secret
from tests.endpoint.scripted_server import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.endpoint.scripted_server import ScriptedServer

pytestmark = pytest.mark.server

HOST = "arn:aws:iam::123456789012:user/web-1"
COMMAND = HostCommand(
    identifier="c-1", host_identifier=HOST, deployment_execution_id="r/1/d-A/1", name="Install", nonce=1
)


@dataclass
class StaticIdentity:
    """A host whose keys never change."""

    region: str = "eu-west-1"
    host_identifier: str = HOST

    key: str = "AKIA"

    @property
    def credential_source(self) -> StaticIdentity:
        return self

    def credentials(self) -> Credentials:
        return Credentials(access_key_id=self.key, secret_access_key=Secret("s"))

    def forget(self) -> None:
        self.key = "AKIANEW"

    def describe(self) -> str:
        return "the keys in /etc/keys"


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[HostCommandClient]:
    """A client of the scripted server."""
    stack = ControlEndpoint(url=server.url, target_prefix="Prefix_v1", signing_name="codedeploy-commands")
    made = HostCommandClient(Connection(server.url, read_timeout_s=5), stack, StaticIdentity())  # type: ignore[arg-type]
    yield made
    made.close()


def sent(server: ScriptedServer) -> tuple[str, dict[str, Any]]:
    request = server.requests[-1]
    return request.headers["x-amz-target"], json.loads(request.body)


def test_a_request_is_signed_and_says_which_agent_speaks(
    client: HostCommandClient, server: ScriptedServer
) -> None:
    """The service tells agents apart by these headers."""
    client.poll_host_command()
    headers = server.requests[0].headers
    assert ("application/x-amz-json-1.1", True, True) == (
        headers["content-type"],
        "x-amz-codedeploy-agent-version" in headers,
        "/eu-west-1/codedeploy-commands/aws4_request" in headers["authorization"],
    )


def test_a_command_is_polled(client: HostCommandClient, server: ScriptedServer) -> None:
    """Fields that nobody knows are ignored."""
    values = {
        "HostCommandIdentifier": "c-1",
        "HostIdentifier": HOST,
        "DeploymentExecutionId": "r/1/d-A/1",
        "CommandName": "Install",
        "Nonce": 1,
        "Future": {},
    }
    server.script.put(Answer.of(HostCommand=values))
    assert client.poll_host_command() == COMMAND
    assert ("Prefix_v1.PollHostCommand", {"HostIdentifier": HOST}) == sent(server)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{}", {}),
        (b'{"HostCommand": null}', {}),
        (b'{"Future": 1}', {}),
        (b"", {"Content-Type": "application/x-amz-json-1.1"}),
        (b"", {"x-amzn-RequestId": "r-1"}),
    ],
)
def test_no_command_is_none(
    client: HostCommandClient, server: ScriptedServer, body: bytes, headers: dict[str, str]
) -> None:
    """The ways in which the service says that there is nothing to do."""
    server.script.put(Answer(body=body, headers=headers))
    assert client.poll_host_command() is None


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"", {}, "the answer is empty"),
        (b"", {"Content-Type": "text/html"}, "the answer is empty"),
        (b'{"status": "ok"}', {}, "none of its members .status. is one of this protocol"),
        (b'{"__type": "ServerException", "message": "no"}', {}, "none of its members .__type, message."),
        (b'{"error": "who are you?"}', {"Content-Type": "application/json"}, "none of its members .error."),
        (
            b"<html>Sign in",
            {"Content-Type": "text/html"},
            "no JSON but text/html, and begins with '<html>Sign in'",
        ),
        (b'{"HostCommand": false}', {}, "HostCommand is not an object"),
        (b'{"HostCommand": {}}', {}, "the command has no HostCommandIdentifier"),
        (
            b'{"HostCommand": {"HostCommandIdentifier": "\\ud800"}}',
            {},
            "the command has no HostCommandIdentifier",
        ),
        (b'{"HostCommand": {"HostCommandIdentifier": "c"}}', {}, "the command has no HostIdentifier"),
        (
            b'{"HostCommand": {"HostCommandIdentifier": "c", "HostIdentifier": "h", "CommandName": ""}}',
            {},
            "the command has no CommandName",
        ),
    ],
)
def test_what_the_service_never_says_is_not_taken_for_no_command(
    client: HostCommandClient, server: ScriptedServer, body: bytes, headers: dict[str, str], said: str
) -> None:
    """A host behind a portal would look idle and healthy for days."""
    server.script.put(Answer(body=body, headers=headers))
    with pytest.raises(EndpointUnavailable, match=said) as caught:
        client.poll_host_command()
    assert "endpoint-answer-unusable" == caught.value.error_id


@pytest.mark.parametrize("body", [b"", b'{"status": "ok"}', b"<html>", b"[]"])
def test_what_the_service_never_says_is_no_answer_to_an_acknowledgement(
    client: HostCommandClient, server: ScriptedServer, body: bytes
) -> None:
    """The command would run although nobody knows of it, and could not be stopped."""
    server.script.put(Answer(body=body))
    with pytest.raises(EndpointUnavailable, match="with nonsense"):
        client.acknowledge("c-1", is_noop=False)


@pytest.mark.parametrize("body", [b'{"status": "ok"}', b'{"__type": "ServerException"}', b"<html>", b"[]"])
def test_what_the_service_never_says_is_no_answer_to_a_report(
    client: HostCommandClient, server: ScriptedServer, body: bytes
) -> None:
    """A report that a portal has swallowed is lost."""
    server.script.put(Answer(body=body))
    with pytest.raises(EndpointUnavailable, match="with nonsense"):
        client.complete("c-1", CommandStatus.SUCCEEDED, "{}")


def test_an_empty_page_is_no_answer_to_a_report_but_an_empty_answer_is(
    client: HostCommandClient, server: ScriptedServer
) -> None:
    """The service answers a report with nothing, and a portal may do so, too; only that calls it a page."""
    server.script.put(Answer(body=b"", headers={"Content-Type": "text/html"}))
    with pytest.raises(EndpointUnavailable, match="with nonsense: the answer is empty"):
        client.complete("c-1", CommandStatus.SUCCEEDED, "{}")
    server.script.put(Answer(body=b""))
    client.complete("c-1", CommandStatus.SUCCEEDED, "{}")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda client: client.poll_host_command(), f"does not know this host: register it there as {HOST}"),
        (
            lambda client: client.deployment_specification(COMMAND),
            "does not know this deployment, or it is over",
        ),
        (lambda client: client.acknowledge("c", is_noop=True), "does not know this command, or it is over"),
        (
            lambda client: client.complete("c", CommandStatus.FAILED, "{}"),
            "does not know this command, or it is over",
        ),
    ],
)
def test_what_the_endpoint_does_not_know_is_named_and_credentials_and_clock_are_not_blamed(
    client: HostCommandClient,
    server: ScriptedServer,
    call: Callable[[HostCommandClient], object],
    said: str,
) -> None:
    """ClientException says one thing for each operation."""
    server.script.put(Answer.of(400, __type="ClientException", message="No such thing."))
    with pytest.raises(RequestRefused) as caught:
        call(client)
    assert said in caught.value.message
    assert "No such thing." in caught.value.message
    assert "clock" not in caught.value.message


@pytest.mark.parametrize(
    "error_type", ["UnrecognizedClientException", "InvalidSignatureException", "AccessDeniedException"]
)
def test_refused_credentials_are_named_with_the_place_that_they_come_from(
    client: HostCommandClient, server: ScriptedServer, error_type: str
) -> None:
    """Which file, at 3 a.m."""
    for _ in range(2):
        server.script.put(Answer.of(403, __type=error_type))
    with pytest.raises(RequestRefused, match="the keys in /etc/keys"):
        client.poll_host_command()


@pytest.mark.parametrize("sent", [b"", b"{"])
@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.poll_host_command(),
        lambda client: client.acknowledge("c-1", is_noop=False),
        lambda client: client.complete("c-1", CommandStatus.SUCCEEDED, "{}"),
    ],
    ids=["poll", "acknowledgement", "report"],
)
def test_an_answer_that_breaks_off_is_none(
    client: HostCommandClient,
    server: ScriptedServer,
    call: Callable[[HostCommandClient], object],
    sent: bytes,
) -> None:
    """Cut off before its first byte, it looks like an empty one: a report would count as taken."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: 2\r\n\r\n"
    server.script.put(Answer(raw=head + sent, then_close=True))
    with pytest.raises(EndpointUnavailable, match="its answer broke off"):
        call(client)


@pytest.mark.parametrize("length", [b"-2", b"zz", b"", b"fffffffffffff"])
def test_chunks_of_impossible_length_are_no_answer(
    client: HostCommandClient, server: ScriptedServer, length: bytes
) -> None:
    """A broken proxy must not end the agent."""
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n{}" % length
    server.script.put(Answer(raw=raw, then_close=True))
    with pytest.raises(EndpointUnavailable):
        client.poll_host_command()


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 1990 00:00:00 GMT"])
def test_a_time_that_can_not_be_is_not_gone_by(
    client: HostCommandClient, server: ScriptedServer, date: str
) -> None:
    """A device on the way without a clock must not put ours out of order, nor end the agent."""
    server.script.put(Answer(status=403, body=b"", headers={"Date": date}))
    with pytest.raises(EndpointUnavailable):
        client.poll_host_command()
    assert client.poll_host_command() is None
    signed = [request.headers["x-amz-date"][:4] for request in server.requests]
    assert [str(datetime.now(timezone.utc).year)] * 2 == signed


@pytest.mark.parametrize("status", [400, 500])
def test_a_fault_of_the_service_is_one_whatever_its_status(
    client: HostCommandClient, server: ScriptedServer, status: int
) -> None:
    """It is worth another try."""
    server.script.put(Answer.of(status, __type="ServerException"))
    with pytest.raises(EndpointUnavailable, match="The fault is on its side"):
        client.poll_host_command()


def test_a_specification_arrives_in_its_envelope(client: HostCommandClient, server: ScriptedServer) -> None:
    """Nothing in it is trusted yet."""
    envelope = {"Format": "PKCS7/JSON", "Payload": "p"}
    server.script.put(
        Answer.of(DeploymentSystem="CodeDeploy", DeploymentSpecification={"GenericEnvelope": envelope})
    )
    answer = client.deployment_specification(COMMAND)
    assert ("CodeDeploy", "PKCS7/JSON", "p") == (
        answer.deployment_system,
        answer.envelope_format,
        answer.envelope_payload,
    )
    expected = {"DeploymentExecutionId": "r/1/d-A/1", "HostIdentifier": HOST}
    assert ("Prefix_v1.GetDeploymentSpecification", expected) == sent(server)


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        ("InProgress", CommandStatus.IN_PROGRESS),
        ("Failed", CommandStatus.FAILED),
        (None, None),
        ("New", None),
    ],
)
def test_an_acknowledgement_says_whether_there_is_work(
    client: HostCommandClient,
    server: ScriptedServer,
    answered: str | None,
    expected: CommandStatus | None,
) -> None:
    """Any answer but an end means: run."""
    server.script.put(Answer.of(CommandStatus=answered))
    assert expected == client.acknowledge("c-1", is_noop=True)
    diagnostics = {"Format": "JSON", "Payload": '{"IsCommandNoop":true}'}
    body = {"HostCommandIdentifier": "c-1", "Diagnostics": diagnostics}
    assert ("Prefix_v1.PutHostCommandAcknowledgement", body) == sent(server)


def test_a_completion_carries_status_and_diagnostics(
    client: HostCommandClient, server: ScriptedServer
) -> None:
    """An empty answer is all that comes back."""
    server.script.put(Answer(body=b""))
    client.complete("c-1", CommandStatus.FAILED, '{"error_code": 5}')
    diagnostics = {"Format": "JSON", "Payload": '{"error_code": 5}'}
    expected = {"HostCommandIdentifier": "c-1", "CommandStatus": "Failed", "Diagnostics": diagnostics}
    assert ("Prefix_v1.PutHostCommandComplete", expected) == sent(server)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (Answer.of(429), Throttled, "429"),
        (Answer.of(400, __type="ThrottlingException"), Throttled, "ThrottlingException"),
        (Answer.of(400, __type="ns#RateExceeded"), Throttled, "RateExceeded"),
        (Answer.of(500, __type="ServerException", message="boom"), EndpointUnavailable, "boom"),
        (Answer(status=503, body=b"<html>"), EndpointUnavailable, "503"),
        (
            Answer(status=403, body=b"<html>blocked"),
            EndpointUnavailable,
            "403 without a type.*portal or proxy",
        ),
        (Answer(status=404, body=b""), EndpointUnavailable, "404 without a type.*portal or proxy"),
        (Answer(status=407, body=b"[]"), EndpointUnavailable, "407 without a type.*portal or proxy"),
        (
            Answer(status=302, headers={"Location": "http://portal/login?for=secret"}),
            EndpointUnavailable,
            r"302 without a type. It leads to http://portal/login\. .*portal or proxy",
        ),
        (Answer(status=204), EndpointUnavailable, "204 without a type.*portal or proxy"),
        (Answer.of(413, message="too large"), EndpointUnavailable, "too large.*portal or proxy"),
        (Answer.of(400, __type="NewException"), RequestRefused, "Compare address, credentials and clock"),
        (Answer(body=b'{"HostCommand": {"HostCommandIdent'), EndpointUnavailable, "no JSON"),
        (Answer(body=b"[]"), EndpointUnavailable, "no object"),
        (Answer.of(400, __type="ClientException", message="no"), RequestRefused, "ClientException: no"),
        (Answer.of(400, __type="UnknownOperationException"), RequestRefused, "enable_auth_policy"),
        (Answer.of(403, __type="InvalidSignatureException"), RequestRefused, "clock"),
        (
            Answer(status=403, body=b"", headers={"x-amzn-ErrorType": "InvalidSignatureException:http://x"}),
            RequestRefused,
            "clock",
        ),
    ],
)
def test_every_other_answer_has_its_error(
    client: HostCommandClient, server: ScriptedServer, answer: Answer, error: type[Exception], said: str
) -> None:
    """Wait longer, try again, or give up: the class decides, the message tells a person."""
    server.script.put(answer)
    with pytest.raises(error, match=said):
        client.poll_host_command()


def test_credentials_that_have_expired_are_read_again_once(
    client: HostCommandClient, server: ScriptedServer
) -> None:
    """Rotated keys must not need a restart of the agent."""
    server.script.put(Answer.of(400, __type="ExpiredTokenException"))
    assert client.poll_host_command() is None
    keys = [
        request.headers["authorization"].split("Credential=")[1].split("/")[0] for request in server.requests
    ]
    assert ["AKIA", "AKIANEW"] == keys


def test_credentials_that_were_refused_are_not_kept(
    client: HostCommandClient, server: ScriptedServer
) -> None:
    """Whoever attaches a role with more rights should not have to wait six hours, nor to restart the agent."""
    server.script.put(Answer.of(400, __type="AccessDeniedException"))
    with pytest.raises(RequestRefused):
        client.poll_host_command()
    client.poll_host_command()
    assert 2 == len(server.requests)
    assert "Credential=AKIANEW/" in server.requests[1].headers["authorization"]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"DeploymentSpecification": {"GenericEnvelope": {"Format": "PKCS7/JSON"}}}']
)
def test_a_specification_answer_that_names_no_system_is_worth_another_try(
    client: HostCommandClient, server: ScriptedServer, body: bytes
) -> None:
    """Something in between has answered; the deployment must not fail of that."""
    server.script.put(Answer(body=body))
    with pytest.raises(EndpointUnavailable, match="GetDeploymentSpecification with nonsense"):
        client.deployment_specification(COMMAND)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{}", {"Content-Type": "application/x-amz-json-1.1"}),
        (b"{}", {"x-amzn-RequestId": "r-1"}),
        (b'{"DeploymentSpecification": {}}', {}),
    ],
)
def test_the_services_own_answer_without_a_specification_is_one(
    client: HostCommandClient, server: ScriptedServer, body: bytes, headers: dict[str, str]
) -> None:
    """It has nothing else to say, however often it is asked."""
    server.script.put(Answer(body=body, headers=headers))
    assert client.deployment_specification(COMMAND).is_empty


def test_a_host_whose_clock_is_wrong_goes_by_the_time_of_the_endpoint(
    client: HostCommandClient, server: ScriptedServer
) -> None:
    """The usual clients do so, too; a host without NTP could not deploy otherwise."""
    there = datetime.now(timezone.utc) + timedelta(hours=26)
    refusal = Answer.of(400, __type="InvalidSignatureException")
    server.script.put(replace(refusal, headers={"Date": format_datetime(there)}))
    assert client.poll_host_command() is None
    assert client.poll_host_command() is None
    signed = [
        datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%S%z") for request in server.requests
    ]
    assert 3 == len(signed)
    assert [False, True, True] == [abs(at - there) < timedelta(minutes=1) for at in signed]


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Nov 2026 08:00:00 GMT", None])
def test_a_refusal_with_a_useless_date_is_a_refusal(
    client: HostCommandClient, server: ScriptedServer, date: str | None
) -> None:
    """Proxies answer with all sorts of things."""
    refusal = Answer.of(400, __type="InvalidSignatureException")
    server.script.put(replace(refusal, headers={} if date is None else {"Date": date}))
    with pytest.raises(RequestRefused, match="clock of this host"):
        client.poll_host_command()
    assert 1 == len(server.requests)


def test_an_endpoint_that_refuses_at_any_time_is_asked_twice_at_most(
    client: HostCommandClient, server: ScriptedServer
) -> None:
    """Its clock may be the one that is wrong."""
    for hours in (26, -26):
        there = datetime.now(timezone.utc) + timedelta(hours=hours)
        refusal = Answer.of(400, __type="InvalidSignatureException")
        server.script.put(replace(refusal, headers={"Date": format_datetime(there)}))
    with pytest.raises(RequestRefused):
        client.poll_host_command()
    assert 2 == len(server.requests)


@pytest.mark.parametrize("status", [429, 400])
def test_throttling_says_that_the_agent_pauses_by_itself(
    client: HostCommandClient, server: ScriptedServer, status: int
) -> None:
    """Nobody has to do anything, and nobody should restart the agent, which would ask again at once."""
    server.script.put(Answer.of(status, **({} if status == 429 else {"__type": "ThrottlingException"})))
    with pytest.raises(Throttled, match="all processes of this agent pause"):
        client.poll_host_command()

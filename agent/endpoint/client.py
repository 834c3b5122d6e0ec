"""The host command protocol, seen from the host: five operations over signed JSON 1.1."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.endpoint.refusals import PORTAL_ADVICE, Refusals, beginning
from agent.errors import EndpointUnavailable, RequestRefused
from agent.identity.service_clock import ServiceClock
from agent.identity.signing import sign_headers
from agent.protocol import CommandStatus, HostCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.endpoint.connection import Connection, Response
    from agent.endpoint.stack import Stack
    from agent.identity import Credentials, HostIdentity

_STALE_CREDENTIALS = frozenset({"ExpiredTokenException", "UnrecognizedClientException"})
_MAY_BE_CLOCK = frozenset({400, 401, 403})
_CONTENT_TYPE = "application/x-amz-json-1.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecificationAnswer:
    """A deployment specification as it travels: who made it, and its envelope. Empty = not sent."""

    deployment_system: str
    envelope_format: str
    envelope_payload: str

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it was sent."""
        return not (self.deployment_system or self.envelope_format or self.envelope_payload)


class HostCommandClient:
    """Speaks for this host.

    Every method raises EndpointUnavailable, Throttled or RequestRefused when there is no good answer,
    and IdentityError when there are no credentials to sign with. RequestRefused always has the
    service's own word for why: an answer without one is none of the service's.
    """

    def __init__(
        self,
        connection: Connection,
        stack: Stack,
        identity: HostIdentity,
        *,
        on_exchange: Callable[[str, str, int, str], None] | None = None,
        clock: ServiceClock | None = None,
    ) -> None:
        """Make a client.

        Args:
            connection: to the endpoint; this client's own.
            stack: which one it is.
            identity: of this host.
            on_exchange: told of operation, sent text, status and received text, without secrets.
            clock: the endpoint's, when somebody else goes by it, too.
        """
        self._on_exchange = on_exchange
        self._connection = connection
        self._stack = stack
        self._identity = identity
        self._refusals = Refusals(stack, identity, lambda: connection.went_through)
        self._clock = clock or ServiceClock()

    def poll_host_command(self) -> HostCommand | None:
        """The next command for this host; None when there is none. May be held for about 60 s."""
        answer = self._call("PollHostCommand", {"HostIdentifier": self._identity.host_identifier})
        values = answer.get("HostCommand")
        if values is None:
            return None
        if not isinstance(values, dict):
            raise self._nonsense("PollHostCommand", "HostCommand is not an object")
        return self._host_command(values)

    def deployment_specification(self, command: HostCommand) -> SpecificationAnswer:
        """What the command's deployment is about, still in its signed envelope."""
        request = {
            "DeploymentExecutionId": command.deployment_execution_id,
            "HostIdentifier": self._identity.host_identifier,
        }
        values = self._call("GetDeploymentSpecification", request)
        specification = _object(values.get("DeploymentSpecification"))
        envelope = _object(specification.get("GenericEnvelope"))
        answer = SpecificationAnswer(
            deployment_system=_text(values.get("DeploymentSystem")),
            envelope_format=_text(envelope.get("Format")),
            envelope_payload=_text(envelope.get("Payload")),
        )
        if not answer.deployment_system and not answer.is_empty:
            raise self._nonsense("GetDeploymentSpecification", "it names no DeploymentSystem")
        return answer

    def acknowledge(self, identifier: str, *, is_noop: bool) -> CommandStatus | None:
        """Say that the command is about to run; the answer says whether it is still wanted."""
        payload = json.dumps({"IsCommandNoop": is_noop}, separators=(",", ":"))
        request = {
            "HostCommandIdentifier": identifier,
            "Diagnostics": {"Format": "JSON", "Payload": payload},
        }
        return _status(self._call("PutHostCommandAcknowledgement", request))

    def complete(self, identifier: str, status: CommandStatus, payload: str) -> None:
        """Report how the command ended. `payload` is the diagnostics, JSON of at most 8,192 characters."""
        request = {
            "HostCommandIdentifier": identifier,
            "CommandStatus": status.value,
            "Diagnostics": {"Format": "JSON", "Payload": payload},
        }
        self._call("PutHostCommandComplete", request)

    def update(self, identifier: str) -> CommandStatus | None:
        """Say that the command is still running; the answer says whether it is still wanted."""
        return _status(self._call("PostHostCommandUpdate", {"HostCommandIdentifier": identifier}))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        body = json.dumps(request).encode()
        try:
            return self._exchange(operation, body)
        except RequestRefused as error:
            # Whatever renews the credentials may have done so since they were read; whoever repairs this
            # may attach another role.
            self._identity.credential_source.forget()
            if error.error_type not in _STALE_CREDENTIALS:
                raise
        return self._exchange(operation, body)

    def _exchange(self, operation: str, body: bytes) -> dict[str, Any]:
        response = self._post(operation, body)
        if response.status in _MAY_BE_CLOCK and self._clock.learn(response.headers.get("Date")):
            response = self._post(operation, body)
        if response.status != 200:
            raise self._refusals.refusal(operation, response)
        if not response.body:
            return self._empty(operation, response)
        try:
            answer = json.loads(response.body)
        except (ValueError, RecursionError) as error:
            kind = response.headers.get("Content-Type", "an unknown type")
            why = f"the answer is no JSON but {kind}, and begins with {beginning(response.body)}"
            raise self._nonsense(operation, why) from error
        if not isinstance(answer, dict):
            raise self._nonsense(operation, "the answer is no object")
        if answer and not any(name[:1].isupper() for name in answer):
            # `{"status": "ok"}`, or an error with the status of a success.
            names = ", ".join(sorted(answer))[:100]
            raise self._nonsense(operation, f"none of its members ({names}) is one of this protocol")
        if not answer and operation == "GetDeploymentSpecification":
            return self._empty(operation, response)
        return answer

    def _empty(self, operation: str, response: Response) -> dict[str, Any]:
        """What an answer without a member means: nothing, if the service has given it."""
        kind = response.headers.get("Content-Type", "")
        is_of_service = "json" in kind or "x-amzn-RequestId" in response.headers
        # A report has no answer, so that nothing could be missing; but an empty page is not from the service.
        if is_of_service or (operation == "PutHostCommandComplete" and not kind):
            return {}
        raise self._nonsense(operation, "the answer is empty")

    def _post(self, operation: str, body: bytes) -> Response:
        response = self._connection.post(self._headers(operation, body, self._identity.credentials()), body)
        if self._on_exchange:
            self._on_exchange(operation, body.decode(), response.status, _shown(operation, response.body))
        return response

    def _headers(self, operation: str, body: bytes, credentials: Credentials) -> dict[str, str]:
        headers = {
            "Content-Type": _CONTENT_TYPE,
            "X-Amz-Target": f"{self._stack.target_prefix}.{operation}",
            "x-amz-codedeploy-agent-version": __version__,
            "User-Agent": f"codedeploy-host-agent/{__version__}",
        }
        return sign_headers(
            method="POST",
            url=f"{self._stack.url}/",
            headers=headers,
            payload_sha256=hashlib.sha256(body).hexdigest(),
            credentials=credentials,
            region=self._identity.region,
            service=self._stack.signing_name,
            now=self._clock.now(),
        )

    def _host_command(self, values: Mapping[str, Any]) -> HostCommand:
        nonce = values.get("Nonce")
        command = HostCommand(
            identifier=_text(values.get("HostCommandIdentifier")),
            host_identifier=_text(values.get("HostIdentifier")),
            deployment_execution_id=_text(values.get("DeploymentExecutionId")),
            name=_text(values.get("CommandName")),
            nonce=nonce if isinstance(nonce, int) else None,
        )
        for name, value in (
            ("HostCommandIdentifier", command.identifier),
            ("HostIdentifier", command.host_identifier),
            ("CommandName", command.name),
        ):
            if not value:
                raise self._nonsense("PollHostCommand", f"the command has no {name}")
        return command

    def _nonsense(self, operation: str, why: str) -> EndpointUnavailable:
        return EndpointUnavailable(
            f"The control endpoint {self._stack.url} answered {operation} with nonsense: {why}. "
            f"{PORTAL_ADVICE}{self._connection.went_through}",
            error_id="endpoint-answer-unusable",
        )


def _shown(operation: str, body: bytes) -> str:
    """An answer as it may be logged: a specification can hold a GitHub token."""
    if operation == "GetDeploymentSpecification":
        return f"({len(body)} bytes, not shown: they may hold a token)"
    return body.decode("utf-8", "replace")


def _status(answer: Mapping[str, Any]) -> CommandStatus | None:
    try:
        return CommandStatus(answer.get("CommandStatus"))
    except ValueError:
        return None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """Empty, too, where JSON has half of a character: neither a file nor a message can hold that."""
    if not isinstance(value, str):
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:
        return ""
    return value

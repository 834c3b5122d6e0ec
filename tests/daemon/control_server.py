"""A control endpoint on loopback that does what a test says: good commands, bad ones, and all kinds of trouble."""

from __future__ import annotations

import base64
import contextlib
import json
import select
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.specification.pki import Identity, issue, sign
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

HOST = "arn:aws:iam::123456789012:user/web-1"
POLL = "PollHostCommand"
SPECIFICATION = "GetDeploymentSpecification"
ACKNOWLEDGE = "PutHostCommandAcknowledgement"
COMPLETE = "PutHostCommandComplete"
UPDATE = "PostHostCommandUpdate"

# Signing keys are slow to make, and nothing depends on there being one for each server.
SIGNER = issue("Deployments of the test service")
STRANGER = issue("Somebody else")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a request gets instead of an answer.

    Attributes:
        raw: sent as it is, and then the connection is closed.
        is_reset: the connection is reset without a word.
        is_silent: nothing is ever sent.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    is_reset: bool = False
    is_silent: bool = False


def error(status: int, kind: str, message: str = "", **headers: str) -> Fault:
    """An error as the service writes it; underscores in names of headers stand for hyphens."""
    body = json.dumps({"__type": f"com.amazon.codedeploy#{kind}", "message": message}).encode()
    return Fault(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


SERVER_ERROR = error(500, "ServerException", "try again", x_amzn_RequestId="req-1")
THROTTLED = error(400, "ThrottlingException", "Rate exceeded")


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request as it came, and what kept it from being answered.

    `at` is monotonic seconds, of when it came.
    """

    at: float
    operation: str
    request: dict[str, Any]
    headers: dict[str, str] = field(repr=False)
    fault: Fault | None


@dataclass(frozen=True, kw_only=True)
class Completion:
    """How a command ended, according to its report."""

    identifier: str
    status: str
    code: int
    message: str
    script_name: str
    log: str
    at: float


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What a deployment specification says; `others` are members that few of them have."""

    deployment_id: str
    group_id: str
    revision: dict[str, Any]
    appspec_filename: str | None = None
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def execution_id(self) -> str:
        """As commands name it."""
        return f"arn:aws:codedeploy:us-east-1:123456789012/{HOST}/{self.group_id}/{self.deployment_id}"

    @property
    def members(self) -> dict[str, Any]:
        """The JSON object."""
        named = {"AppSpecFilename": self.appspec_filename} if self.appspec_filename else {}
        return {
            "DeploymentId": self.deployment_id,
            "DeploymentGroupId": self.group_id,
            "DeploymentGroupName": f"{self.group_id}-name",
            "ApplicationName": "shop",
            "Revision": self.revision,
            **named,
            **self.others,
        }


def sealed(content: bytes, signer: Identity = SIGNER) -> str:
    """A signed envelope's payload."""
    text = base64.encodebytes(sign(content, signer)).decode()
    return f"-----BEGIN PKCS7-----\n{text}-----END PKCS7-----\n"


def specification_answer(
    payload: str, envelope_format: str = "PKCS7/JSON", system: str = "CodeDeploy"
) -> dict[str, Any]:
    """An answer to GetDeploymentSpecification."""
    envelope = {"Format": envelope_format, "Payload": payload}
    return {"DeploymentSystem": system, "DeploymentSpecification": {"GenericEnvelope": envelope}}


class ControlServer:
    """Holds polls until there is a command; keeps every request.

    Attributes:
        hold_s: how long an empty poll is held.
        answers: host command identifier → CommandStatus that its acknowledgement gets.
        update_answer: CommandStatus that updates get.
        exchanges: all requests so far.
    """

    def __init__(self) -> None:
        self.hold_s = 60.0
        self.answers: dict[str, str] = {}
        self.update_answer = "InProgress"
        self.exchanges: list[Exchange] = []
        self._commands: deque[dict[str, Any]] = deque()
        self._specifications: dict[str, dict[str, Any]] = {}
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._lasting: dict[str, Fault] = {}
        self._changed = threading.Condition()
        self._number = 0
        self._port = 0
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    # -- what a test says --------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Its address, the same after every start."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> Self:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        self._spawn(self._accept, self._listener)
        return self

    def stop(self) -> None:
        """From now on connections are refused."""
        if self._listener is None:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = None
        with self._changed:
            for connection in self._open:
                # The other side, or its own thread, may have closed it already.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._threads.clear()

    def specify(self, execution_id: str, answer: dict[str, Any]) -> None:
        """GetDeploymentSpecification for this execution gets this answer."""
        self._specifications[execution_id] = answer

    def send(self, name: str, deployment: Deployment, **members: Any) -> str:
        """Deliver a command to the next poll; its identifier. `members` replace those of the command."""
        if deployment.execution_id not in self._specifications:
            payload = sealed(json.dumps(deployment.members).encode())
            self.specify(deployment.execution_id, specification_answer(payload))
        with self._changed:
            self._number += 1
            command = {
                "HostCommandIdentifier": f"command {self._number} / {name}",
                "HostIdentifier": HOST,
                "DeploymentExecutionId": deployment.execution_id,
                "CommandName": name,
                "Nonce": self._number,
                **members,
            }
            self._commands.append(command)
            self._changed.notify_all()
        identifier: str = command["HostCommandIdentifier"]
        return identifier

    def run(self, name: str, deployment: Deployment, **members: Any) -> Completion:
        """Deliver a command and wait for its report."""
        return self.completion(self.send(name, deployment, **members))

    def carry(self, deployment: Deployment, *names: str) -> None:
        """Deliver these commands one after the other; all of them must succeed."""
        for name in names:
            completion = self.run(name, deployment)
            assert (name, "Succeeded") == (name, completion.status), completion

    def trouble(self, operation: str, *faults: Fault) -> None:
        """The next requests of this operation get these."""
        self._faults[operation].extend(faults)

    def break_down(self, operation: str, fault: Fault) -> None:
        """All requests of this operation get this, until `heal`."""
        self._lasting[operation] = fault

    def heal(self) -> None:
        """No more trouble of any kind."""
        self._lasting.clear()
        self._faults.clear()

    # -- what it was asked -------------------------------------------------------------------------

    def of(self, operation: str) -> list[Exchange]:
        """The requests of this operation so far."""
        return [exchange for exchange in self.exchanges if exchange.operation == operation]

    def wait_for(
        self, claim: Callable[[], Any], what: str = "it never happened", within_s: float = PATIENCE_S
    ) -> Any:
        """The first true value of the claim, which is looked at after every request."""
        with self._changed:
            value = self._changed.wait_for(claim, within_s)
        assert value, f"not within {within_s} s: {what}; so far: {self.exchanges[-8:]}"
        return value

    def wait_for_requests(self, operation: str, count: int = 1) -> list[Exchange]:
        """The requests of this operation, once there are so many."""
        self.wait_for(lambda: len(self.of(operation)) >= count, f"{count} x {operation}")
        return self.of(operation)

    def completions(self, identifier: str) -> list[Completion]:
        """The reports about this command that were taken."""
        return [
            _completion(exchange)
            for exchange in self.of(COMPLETE)
            if exchange.fault is None and exchange.request["HostCommandIdentifier"] == identifier
        ]

    def completion(self, identifier: str) -> Completion:
        """The report about this command, once it is there."""
        found: list[Completion] = self.wait_for(
            lambda: self.completions(identifier), f"report about {identifier}"
        )
        return found[0]

    def is_noop(self, identifier: str) -> bool:
        """What the acknowledgement of this command says."""
        for exchange in self.of(ACKNOWLEDGE):
            if exchange.request["HostCommandIdentifier"] == identifier:
                diagnostics = exchange.request["Diagnostics"]
                assert "JSON" == diagnostics["Format"]
                payload: dict[str, bool] = json.loads(diagnostics["Payload"])
                return payload["IsCommandNoop"]
        raise AssertionError(f"{identifier} was not acknowledged")

    # -- connections -------------------------------------------------------------------------------

    def _spawn(self, function: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=function, args=(sock,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._changed:
                self._open.add(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while self._exchange(connection, stream):
                    pass
        except OSError:
            pass
        with self._changed:
            self._open.discard(connection)

    def _exchange(self, connection: socket.socket, stream: Any) -> bool:
        """Read and answer one request; False when the connection is over."""
        if not stream.readline():
            return False
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        body = stream.read(length)
        if not length or len(body) < length:
            # Cut off, by the death of the agent or by the end of this server.
            return False
        request = json.loads(body)
        operation = headers["x-amz-target"].rpartition(".")[2]
        fault = self._note(operation, request, headers)
        if fault is not None:
            return self._suffer(connection, fault)
        if operation == POLL:
            return self._answer_poll(connection)
        answer = self._answer(operation, request)
        _send(connection, 200, json.dumps(answer).encode())
        return True

    def _note(self, operation: str, request: dict[str, Any], headers: dict[str, str]) -> Fault | None:
        with self._changed:
            waiting = self._faults[operation]
            fault = waiting.popleft() if waiting else self._lasting.get(operation)
            exchange = Exchange(
                at=time.monotonic(), operation=operation, request=request, headers=headers, fault=fault
            )
            self.exchanges.append(exchange)
            self._changed.notify_all()
        return fault

    def _suffer(self, connection: socket.socket, fault: Fault) -> bool:
        if fault.is_silent:
            while not _is_gone(connection) and self._listener is not None:
                select.select([connection], [], [], 0.05)
            return False
        if fault.is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if fault.raw is not None:
            connection.sendall(fault.raw)
            return False
        _send(connection, fault.status, fault.body, fault.headers)
        return True

    def _answer_poll(self, connection: socket.socket) -> bool:
        """Hold the poll until there is a command; one whose caller has gone gets none."""
        deadline = time.monotonic() + self.hold_s
        with self._changed:
            while not self._commands and time.monotonic() < deadline:
                if _is_gone(connection) or self._listener is None:
                    return False
                self._changed.wait(min(0.02, self.hold_s))
            if _is_gone(connection):
                return False
            command = self._commands.popleft() if self._commands else None
        _send(connection, 200, json.dumps({"HostCommand": command}).encode())
        return True

    def _answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        if operation == SPECIFICATION:
            return self._specifications[request["DeploymentExecutionId"]]
        if operation == UPDATE:
            return {"CommandStatus": self.update_answer}
        if operation == ACKNOWLEDGE:
            return {"CommandStatus": self.answers.get(request["HostCommandIdentifier"], "InProgress")}
        return {}


def _send(connection: socket.socket, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def _is_gone(connection: socket.socket) -> bool:
    """Whether the other side has closed the connection."""
    try:
        if not select.select([connection], [], [], 0)[0]:
            return False
        return not connection.recv(1, socket.MSG_PEEK)
    except (OSError, ValueError):
        return True


def _completion(exchange: Exchange) -> Completion:
    request = exchange.request
    payload = json.loads(request["Diagnostics"]["Payload"])
    assert {"error_code", "script_name", "message", "log"} == set(payload)
    return Completion(
        identifier=request["HostCommandIdentifier"],
        status=request["CommandStatus"],
        code=payload["error_code"],
        message=payload["message"],
        script_name=payload["script_name"],
        log=payload["log"],
        at=exchange.at,
    )

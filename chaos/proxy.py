"""A proxy between one host and the control endpoint, which harms exchanges and records them."""
# ruff: noqa: S311 - reproducible, not secret

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.faults import NetworkFault, choose_network_fault
from chaos.listening import Handler, Listener

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from urllib.parse import SplitResult

    from chaos.listening import Gate

_UPSTREAM_TIMEOUT_S = 40.0
_UNSENT = (NetworkFault.LOST_REQUEST, NetworkFault.RESET, NetworkFault.ERROR, NetworkFault.THROTTLED)
_MALFORMED = (
    b"<html><body>Please log in</body></html>",
    b'{"CommandStatus": ',
    b"[]",
    b"null",
    b"",
    b"\xff\xfe\x00{}",
    b'{"CommandStatus": 7, "HostCommand": "x", "DeploymentSpecification": []}',
)


@dataclass(kw_only=True)
class Exchange:
    """One request of the agent and what became of it.

    Attributes:
        endpoint_status: what the control endpoint answered; 0 = it was not asked, or gave no answer.
        is_delivered: whether that answer was passed on whole and unchanged.
    """

    at: float
    operation: str
    request: dict[str, Any]
    fault: NetworkFault
    endpoint_status: int = 0
    answer: dict[str, Any] = field(default_factory=dict)
    is_delivered: bool = False
    is_over: bool = False

    @property
    def identifier(self) -> str:
        """Of the host command that this is about; empty when it is about none."""
        command = self.answer.get("HostCommand") or {}
        return str(self.request.get("HostCommandIdentifier") or command.get("HostCommandIdentifier", ""))


class Proxy:
    """Listens on loopback for one host. Harms nothing before `start_faults` and after `stop_faults`."""

    def __init__(self, endpoint: SplitResult, *, seed: int, share: float, gate: Gate | None = None) -> None:
        self.exchanges: list[Exchange] = []
        self.share = 0.0
        self._full_share = share
        self._endpoint = endpoint
        self._chance = random.Random(seed)
        self._changed = threading.Condition()
        self._is_given_up = False
        proxy = self

        class Owned(_Handler):
            owner = proxy

        self._listener = Listener(Owned, gate)

    @property
    def url(self) -> str:
        """What the agent takes for the control endpoint."""
        return self._listener.url

    def break_connections(self) -> None:
        """Whoever keeps a connection needs a new one."""
        self._listener.break_connections()

    def start_faults(self) -> None:
        """From now on exchanges are harmed."""
        self.share = self._full_share

    def stop_faults(self) -> None:
        """From now on nothing is harmed any more."""
        self.share = 0.0

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def commands(self) -> dict[str, str]:
        """Names of the commands that have been delivered, by identifier."""
        with self._changed:
            return dict(self._commands())

    def _commands(self) -> Iterator[tuple[str, str]]:
        for exchange in self.exchanges:
            command = exchange.answer.get("HostCommand")
            if command:
                yield command["HostCommandIdentifier"], command["CommandName"]

    def deployment_of(self, identifier: str) -> str:
        """Which deployment this command belongs to; empty when it was not delivered."""
        with self._changed:
            return deployments_of(self.exchanges).get(identifier, "")

    def wait_for(self, operation: str, event: str, *, turn: int, timeout_s: float) -> str:
        """Return once a command of this name has got there; its identifier, empty when none will or it takes too long.

        Args:
            operation: PutHostCommandAcknowledgement when it is told to run, PutHostCommandComplete at its end.
            event: name of the command.
            turn: how many others of this name there are before.
            timeout_s: how long to wait.
        """

        def found() -> str:
            names = dict(self._commands())
            there = dict.fromkeys(
                exchange.identifier
                for exchange in self.exchanges
                if exchange.operation == operation
                and exchange.endpoint_status == 200
                and names.get(exchange.identifier) == event
            )
            return next(itertools.islice(there, turn, None), "")

        with self._changed:
            self._changed.wait_for(lambda: found() or self._is_given_up, timeout_s)
            return found()

    def give_up(self) -> None:
        """Nobody needs to wait any longer: no more commands will come."""
        with self._changed:
            self._is_given_up = True
            self._changed.notify_all()

    def begin(self, operation: str, request: dict[str, Any]) -> Exchange:
        """Note a request, and decide its fate."""
        with self._changed:
            fault = choose_network_fault(self._chance, self.share, operation)
            exchange = Exchange(at=time.time(), operation=operation, request=request, fault=fault)
            self.exchanges.append(exchange)
            return exchange

    def end(self, exchange: Exchange) -> None:
        """Tell those who wait that an exchange has got further."""
        with self._changed:
            exchange.is_over = True
            self._changed.notify_all()

    def older_command(self) -> dict[str, Any] | None:
        """An answer to an earlier poll that had a command in it."""
        with self._changed:
            answers = [exchange.answer for exchange in self.exchanges if exchange.answer.get("HostCommand")]
            return self._chance.choice(answers[-4:]) if answers else None

    def malformed(self) -> bytes:
        """Something that is no answer."""
        return self._chance.choice(_MALFORMED)

    def forward(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Ask the control endpoint; status 0 when it gives no answer."""
        connection = http.client.HTTPConnection(
            self._endpoint.hostname or "", self._endpoint.port, timeout=_UPSTREAM_TIMEOUT_S
        )
        try:
            connection.request("POST", path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()


class _Handler(Handler):
    """One connection of the agent."""

    owner: Proxy

    def do_POST(self) -> None:  # noqa: N802 - the base class names it
        """Take one request through."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        exchange = self.owner.begin(operation, _document(body))
        try:
            self._exchange(exchange, body)
        except OSError:
            self.close_connection = True
        finally:
            self.owner.end(exchange)

    def _exchange(self, exchange: Exchange, body: bytes) -> None:
        fault = exchange.fault
        if fault in _UNSENT:
            self._refuse(fault)
            return
        if fault is NetworkFault.DELIVERED_AGAIN:
            older = self.owner.older_command()
            if older is not None:
                self._answer(200, json.dumps(older).encode())
                return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        status, content = self.owner.forward(self.path, headers, body)
        if fault is NetworkFault.DUPLICATED and status:
            status, content = self.owner.forward(self.path, headers, body)
        exchange.endpoint_status = status
        exchange.answer = _document(content) if status == 200 else {}
        self.owner.end(exchange)
        if status == 0:
            self.break_off()
            return
        self._pass_on(exchange, status, content)

    def _pass_on(self, exchange: Exchange, status: int, content: bytes) -> None:
        fault = exchange.fault
        if fault is NetworkFault.LOST_ANSWER:
            self.break_off()
        elif fault is NetworkFault.ERROR_AFTER:
            self._refuse(NetworkFault.ERROR)
        elif fault is NetworkFault.MALFORMED:
            self._answer(200, self.owner.malformed())
        elif fault is NetworkFault.CUT:
            self._answer(status, content, sent=len(content) // 2)
            self.break_off()
        elif fault is NetworkFault.SLOW:
            self._answer(status, content, pause_s=1.5)
            exchange.is_delivered = True
        else:
            self._answer(status, content)
            exchange.is_delivered = True

    def _refuse(self, fault: NetworkFault) -> None:
        if fault is NetworkFault.LOST_REQUEST:
            self.close_connection = True
        elif fault is NetworkFault.RESET:
            self.break_off()
        elif fault is NetworkFault.THROTTLED:
            self._answer(400, b'{"__type": "ThrottlingException", "message": "Rate exceeded"}')
        else:
            self._answer(500, b'{"__type": "ServerException", "message": "Out of order"}')

    def _answer(self, status: int, content: bytes, *, sent: int = -1, pause_s: float = 0.0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.flush()
        time.sleep(pause_s)
        self.wfile.write(content if sent < 0 else content[:sent])
        self.wfile.flush()


def deployments_of(exchanges: Iterable[Exchange]) -> dict[str, str]:
    """The deployment of each command that was delivered, by identifier."""
    commands = (exchange.answer.get("HostCommand") for exchange in exchanges)
    return {
        # As the control endpoint names an execution: region/account/deployment/number.
        command["HostCommandIdentifier"]: command["DeploymentExecutionId"].split("/")[2]
        for command in commands
        if command
    }


def _document(content: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(content)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}

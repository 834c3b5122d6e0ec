"""A proxy between one host and the control endpoint, which harms exchanges and records them."""
# ruff: noqa: S311 - reproducible, not secret

from __future__ import annotations

import http.client
import json
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from chaos.schedule import NetworkFault, choose_network_fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from urllib.parse import SplitResult

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

    def __init__(self, endpoint: SplitResult, *, seed: int, share: float) -> None:
        self.exchanges: list[Exchange] = []
        self.share = 0.0
        self._full_share = share
        self._endpoint = endpoint
        self._chance = random.Random(seed)
        self._changed = threading.Condition()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What the agent takes for the control endpoint."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start_faults(self) -> None:
        """From now on exchanges are harmed."""
        self.share = self._full_share

    def stop_faults(self) -> None:
        """From now on nothing is harmed any more."""
        self.share = 0.0

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def commands(self) -> dict[str, str]:
        """Names of the commands that have been delivered, by identifier."""
        with self._changed:
            return dict(self._commands())

    def _commands(self) -> Iterator[tuple[str, str]]:
        for exchange in self.exchanges:
            command = exchange.answer.get("HostCommand")
            if command:
                yield command["HostCommandIdentifier"], command["CommandName"]

    def wait_for_start(self, event: str, *, since: int, timeout_s: float) -> bool:
        """Return once a command of this name has been acknowledged; False when that takes too long.

        Args:
            event: name of the command.
            since: number of exchanges before, which don't count.
            timeout_s: how long to wait.
        """

        def is_started() -> bool:
            names = dict(self._commands())
            return any(
                exchange.operation == "PutHostCommandAcknowledgement"
                and exchange.endpoint_status == 200
                and names.get(exchange.identifier) == event
                for exchange in self.exchanges[since:]
            )

        with self._changed:
            return self._changed.wait_for(is_started, timeout_s)

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


class _Server(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: agents that are killed break their connections."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of the agent."""

    protocol_version = "HTTP/1.1"
    owner: Proxy

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Say nothing: every exchange is recorded."""

    def do_POST(self) -> None:
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
            self._break()
            return
        self._pass_on(exchange, status, content)

    def _pass_on(self, exchange: Exchange, status: int, content: bytes) -> None:
        fault = exchange.fault
        if fault is NetworkFault.LOST_ANSWER:
            self._break()
        elif fault is NetworkFault.ERROR_AFTER:
            self._refuse(NetworkFault.ERROR)
        elif fault is NetworkFault.MALFORMED:
            self._answer(200, self.owner.malformed())
        elif fault is NetworkFault.CUT:
            self._answer(status, content, sent=len(content) // 2)
            self._break()
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
            self._break()
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

    def _break(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def finish(self) -> None:
        """Close the connection, which may be broken already."""
        try:
            super().finish()
        except (OSError, ValueError):
            return


def _document(content: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(content)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}

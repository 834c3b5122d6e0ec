"""A server on loopback that answers as it is told, and keeps what it was asked."""

from __future__ import annotations

import json
import queue
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

if TYPE_CHECKING:
    import contextlib
    import ssl
    from types import TracebackType


@dataclass
class Request:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Answer:
    """What to send. `hold` is waited for first; `then_close` ends the connection without saying so."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None
    then_close: bool = False
    raw: bytes | None = None

    @classmethod
    def of(cls, status: int = 200, **values: Any) -> Answer:
        """A JSON answer."""
        return cls(status=status, body=json.dumps(values).encode())

    def encoded(self) -> bytes:
        """The bytes on the wire."""
        if self.raw is not None:
            return self.raw
        lines = [f"HTTP/1.1 {self.status} X", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


class ScriptedServer:
    """Answers each request with the next answer of its script; without one, with an empty object."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self._open: list[socket.socket] = []
        self.script: queue.Queue[Answer] = queue.Queue()
        self.requests: list[Request] = []
        self.arrived: queue.Queue[Request] = queue.Queue()
        self.connections = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
            finally:
                connection.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            with connection, connection.makefile("rb") as stream:
                while self._exchange(connection, stream, number):
                    pass
        except OSError:
            return

    def _exchange(self, connection: socket.socket, stream: Any, number: int) -> bool:
        line = stream.readline().decode().strip()
        if not line:
            return False
        headers = {}
        while header := stream.readline().strip():
            name, _, value = header.decode().partition(":")
            headers[name.lower()] = value.strip()
        request = Request(line, headers, stream.read(int(headers.get("content-length", 0))), number)
        self.requests.append(request)
        self.arrived.put(request)
        answer = self.script.get_nowait() if not self.script.empty() else Answer()
        if answer.hold:
            answer.hold.wait(30)
        connection.sendall(answer.encoded())
        return not answer.then_close


def fill_backlog(port: int, waiting: contextlib.ExitStack) -> None:
    """Connect until the kernel takes no more."""
    while True:
        sock = waiting.enter_context(socket.socket())
        sock.settimeout(0.2)
        try:
            sock.connect(("127.0.0.1", port))
        except TimeoutError:
            sock.close()
            return

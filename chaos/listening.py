"""What both proxies are made of: a server on loopback, over TLS where wanted, whose connections may break."""
# ruff: noqa: S311 - reproducible, not secret

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.certificates import Certificates

CUT = "handshake-cut"
EXPIRED = "handshake-expired"
OTHER = "handshake-other-ca"
GOOD = "handshake-good"
_HANDSHAKE_TIMEOUT_S = 10.0


class Gate:
    """The server's side of all handshakes of one proxy. Cuts none before `share` is set."""

    def __init__(self, certificates: Certificates, *, seed: int) -> None:
        self.share = 0.0
        self.seen: Counter[str] = Counter()
        self._shown = GOOD
        self._contexts = {
            GOOD: certificates.good,
            EXPIRED: certificates.expired,
            OTHER: certificates.other,
        }
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    def show(self, which: str) -> None:
        """From now on show this certificate: GOOD, EXPIRED or OTHER."""
        self._shown = which

    def admit(self, connection: socket.socket) -> ssl.SSLSocket | None:
        """The connection over TLS; None when the handshake came to nothing, as it was to or not."""
        with self._lock:
            what = CUT if self._chance.random() < self.share else self._shown
            place = self._chance.random()
            self.seen[what] += 1
        connection.settimeout(_HANDSHAKE_TIMEOUT_S)
        try:
            if what == CUT:
                self._cut(connection, place)
                return None
            admitted = self._contexts[what].wrap_socket(connection, server_side=True)
        except OSError:
            return None
        admitted.settimeout(None)
        return admitted

    def _cut(self, connection: socket.socket, place: float) -> None:
        """Send a part of what a server answers to the first message, and go away."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = self._contexts[GOOD].wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(connection.recv(65536))
        with contextlib.suppress(ssl.SSLWantReadError):
            server.do_handshake()
        flight = outgoing.read()
        connection.sendall(flight[: int(len(flight) * place)])
        reset(connection)


class Listener(ThreadingHTTPServer):
    """A server on a free port of the loopback address, with a thread for each connection."""

    daemon_threads = True

    def __init__(self, handler: type[Handler], gate: Gate | None) -> None:
        self.gate = gate
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), handler)
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'http' if self.gate is None else 'https'}://127.0.0.1:{self.server_address[1]}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, in its thread."""
        with self._noted(request) as connection:
            if connection is not None:
                super().finish_request(connection, client_address)

    @contextlib.contextmanager
    def _noted(self, raw: socket.socket) -> Iterator[socket.socket | None]:
        connection = raw if self.gate is None else self.gate.admit(raw)
        if connection is None:
            yield None
            return
        with self._lock:
            self._open.add(connection)
        try:
            yield connection
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def break_connections(self) -> None:
        """Whoever keeps a connection needs a new one."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def go_away(self) -> None:
        """Connections are refused, and those that there were break. The port stays ours."""
        self.shutdown()
        self.socket.close()
        self.socket = socket.socket(self.address_family, self.socket_type)
        self.server_bind()
        self.break_connections()

    def come_back(self) -> None:
        """Connections are accepted again, at the same address."""
        self.server_activate()
        self._serve()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: agents that are killed break their connections."""

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection of the agent, which may be broken off."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Say nothing: every exchange is recorded."""

    def break_off(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        reset(self.connection)

    def finish(self) -> None:
        """Close the connection, which may be broken already."""
        try:
            super().finish()
        except (OSError, ValueError):
            return


def reset(connection: socket.socket) -> None:
    """Close it so that the other side is told that it is broken."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()

"""Sockets that never block: all waiting is done by a function that the caller passes.

So a poll that is held, or an address that does not answer, does not keep the daemon from anything else.
"""

from __future__ import annotations

import io
import select
import ssl
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    class Waitable(Protocol):
        """What `select` takes."""

        def fileno(self) -> int:
            """Its file descriptor."""

    # Returns when this can be read, or raises TimeoutError after that many seconds.
    Wait = Callable[[Waitable, float], None]


def wait_readable(awaited: Waitable, timeout_s: float) -> None:
    """Wait for this and nothing else."""
    if not select.select([awaited], [], [], timeout_s)[0]:
        raise TimeoutError("timed out")


def wait_writable(sock: socket.socket, wait: Wait, timeout_s: float) -> None:
    """Wait until the socket can be written to, or its connection has failed."""
    with select.epoll() as poll:
        poll.register(sock, select.EPOLLOUT)
        # Itself readable as soon as what is registered with it has happened.
        wait(poll, timeout_s)


class WaitingSocket(io.RawIOBase):
    """Reads a non-blocking socket through the caller's wait."""

    def __init__(self, sock: socket.socket, wait: Wait, deadline: float) -> None:
        """`deadline` in monotonic seconds."""
        self._socket = sock
        # Holding the socket's own file keeps it open for as long as the response is read.
        self._file = sock.makefile("rb", buffering=0)
        self._wait = wait
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What HTTPResponse asks of a socket."""
        return io.BufferedReader(self, 65536)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        while True:
            try:
                received = self._file.readinto(buffer)
            except ssl.SSLWantReadError:
                received = None
            if received is not None:
                return received
            self._wait(self._socket, max(0.0, self._deadline - time.monotonic()))

    def close(self) -> None:
        self._file.close()
        super().close()

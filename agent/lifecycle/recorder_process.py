"""The process `hook-output`, which reads what scripts print and logs it: the whole life of it.

It is forked from the worker and tied to nothing of it. A worker that is killed does not take the
output of its script along; and an application that was started in the background without a
redirection neither hangs the hook nor dies of a broken pipe when we end, weeks later perhaps.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NoReturn

from agent.lifecycle.capture import Capture
from agent.lifecycle.script_log import ScriptLog
from agent.lifecycle.streams import Stream
from agent.processes import show_as

MAX_MESSAGE = 2**16

_NAME = b"hook-output"
_DESCRIPTORS = 2**12  # more than a worker has, where /proc does not tell which
# Whoever has gone takes what an application prints along, and in the end the application waits for ever.
_NEVER_OUT_OF_MEMORY = b"-1000"
_LOOK_AGAIN_S = 1.0  # at lines without end


class Request(Enum):
    """What the worker may ask; the first byte of a message."""

    EVENT = b"B"
    """Another event begins, whose output goes into the log that the rest of the message describes; answered."""
    REST = b"R"
    """Answered by whether nobody can write to any stream any more; the files are closed then."""
    NOTE = b"N"
    """Log the rest of the message as a line of our own."""
    STREAMS = b"S"
    """Read the descriptors that come with the message."""
    MARK = b"M"
    """Remember how long the script has printed nothing at this time of the monotonic clock."""
    SETTLE = b"W"
    """Log all there is, and wait so many seconds for the end of it; answered by its state."""
    TAIL = b"T"
    """Answered by the end of all that was logged."""
    FAILURE_TAIL = b"F"
    """Answered by the end of all that was logged, for an event that failed: with the first error, if that was long ago."""
    LAST_WORDS = b"E"
    """Answered by the end of what the last script printed; a blank before it."""


def record(connection: socket.socket, log: ScriptLog, *, late_s: float, late_bytes: int) -> NoReturn:
    """Serve the worker until it has gone, then log the beginning of what comes late, and drop the rest.

    To be called in a process just forked; it ends when nobody can write to the streams any more.

    Args:
        connection: to the worker.
        log: where the output goes.
        late_s: how long output is logged after the worker has gone.
        late_bytes: how much of it is logged.
    """
    try:
        connection = _leave_worker(connection)
        log.recall_tail()
        service = _Service(connection, log)
        service.run()
        capture, log = service.capture, service.log
        connection.close()
        end = time.monotonic() + late_s
        while capture.readers and late_bytes > 0 and (left_s := end - time.monotonic()) > 0:
            late_bytes -= capture.read(min(left_s, _LOOK_AGAIN_S))
        capture.flush()
        if capture.readers:
            log.note(b"Output - what background processes print from here on is dropped")
            log.close()
            _become_small(capture)
    finally:
        os._exit(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """What is known, at one time of the monotonic clock, about the output of the current script."""

    at: float
    last_output_at: float | None

    @property
    def silent_s(self) -> float | None:
        return None if self.last_output_at is None else max(self.at - self.last_output_at, 0.0)


class _Service:
    """Doing what the worker asks for."""

    def __init__(self, connection: socket.socket, log: ScriptLog) -> None:
        self._connection = connection
        self.capture = Capture(log)
        self.log = log
        self._mark: _Mark | None = None

    def run(self) -> None:
        """Return when the worker has gone."""
        while True:
            with self.capture.waking_on(self._connection.fileno()):
                self.capture.read(_LOOK_AGAIN_S)
            try:
                message, descriptors, _, _ = socket.recv_fds(self._connection, MAX_MESSAGE, len(Stream))
                if not message:
                    return
                self._obey(Request(message[:1]), message[1:], descriptors)
            except BlockingIOError:
                continue
            except ConnectionError:  # the worker was killed
                return

    def _obey(self, request: Request, content: bytes, descriptors: list[int]) -> None:
        match request:
            case Request.EVENT:
                self._begin(ScriptLog.described(content))
            case Request.REST:
                self._rest()
            case Request.NOTE:
                self.log.note(content)
            case Request.STREAMS:
                self._mark = None
                self.capture.add(descriptors)
            case Request.MARK:
                self._mark = _Mark(at=float(content), last_output_at=self.capture.last_output_at)
            case Request.SETTLE:
                self._settle(float(content))
            case Request.TAIL:
                self._connection.send(self.log.tail.encode())
            case Request.FAILURE_TAIL:
                self._connection.send(self.log.failure_tail.encode())
            case Request.LAST_WORDS:
                self._connection.send(f" {self.log.last_words}".encode())

    def _begin(self, log: ScriptLog) -> None:
        """Only where the events before have left no stream open."""
        self.log.close()
        self.log = log
        self.capture = Capture(log)
        self._mark = None
        self._connection.send(b"1")

    def _rest(self) -> None:
        is_idle = not self.capture.readers
        if is_idle:
            self.log.close()
        self._connection.send(b"1" if is_idle else b"0")

    def _settle(self, within_s: float) -> None:
        self.capture.read_to_end(within_s=within_s)
        mark = self._mark or _Mark(at=time.monotonic(), last_output_at=self.capture.last_output_at)
        state = {
            "is_open": self.capture.is_open,
            "silent_s": mark.silent_s,
            "trouble": self.log.trouble,
        }
        self._connection.send(json.dumps(state).encode())


def _become_small(capture: Capture) -> None:
    """Leave the reading to `cat`, which takes a hundredth of our memory; where there is none, go on."""
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    first, *others = capture.readers
    for descriptor in capture.readers:
        os.set_blocking(descriptor, True)
    try:
        for descriptor in others:
            taking = [(os.POSIX_SPAWN_DUP2, descriptor, 0), *silent]
            os.posix_spawnp("cat", ["cat"], os.environ, file_actions=taking)
        os.dup2(first, 0)
        os.execvp("cat", ["cat"])  # noqa: S606 - no shell is wanted
    except OSError:
        capture.discard()


def _leave_worker(connection: socket.socket) -> socket.socket:
    """Keep nothing of the worker that somebody could wait for: no lock, socket, handler or session."""
    gc.disable()  # a collection would copy every page that we share with the worker
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    empty = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(empty, standard)
    kept = connection.detach()
    for descriptor in _open_descriptors():
        if descriptor not in (0, 1, 2, kept):
            with contextlib.suppress(OSError):
                os.close(descriptor)
    show_as("hook output")
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_bytes(_NAME)
    with contextlib.suppress(OSError):  # only root may
        Path("/proc/self/oom_score_adj").write_bytes(_NEVER_OUT_OF_MEMORY)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=kept)
    connection.setblocking(False)
    return connection


def _open_descriptors() -> list[int]:
    # Not os.closerange, which takes minutes on kernels before 5.9 where the limit is a billion.
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return list(range(_DESCRIPTORS))

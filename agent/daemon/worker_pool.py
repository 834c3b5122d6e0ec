"""Workers that are kept for a while after their command, for the next one.

What a worker imports takes it ten times as long as what most commands ask of it, and the daemon must stay small.
So a worker that has finished its command says so and waits: the next command finds everything imported, and a
connection to the endpoint that is open. The daemon sends it the job record, with the lock that the record is held
by; from then on all is as with a worker just forked. After a minute without a command it is told to go.

The pool holds nothing that counts. A worker that dies with a record of which it has not said that it is done has
left it behind, whether it had begun or not: the record tells how far it came.

The other side, and what the two say to each other, is `agent.worker.service`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from agent.worker.process import CRASHED, DONE, LEAVING, TAKEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.deployments import Job

_IDLE_S = 60.0
# Each takes some 30 MB; more groups than that are seldom at work at a time.
_MAX_IDLE = 2
# What a worker was forked with should not be much older than that.
_MAX_AGE_S = 900.0
# A worker that waits takes a record within a millisecond, or when it has imported something.
_TAKING_S = 5.0
_MAX_MESSAGE = 64


class _State(Enum):
    """What a worker is at, as far as the daemon knows."""

    GIVEN = auto()
    """It has been sent a record, and has not said that it took it."""
    BUSY = auto()
    """It works on a record."""
    DONE = auto()
    """It has said that it is done; the caller of the pool has not been told."""
    IDLE = auto()
    """It can be given another one."""


@dataclass(slots=True, kw_only=True)
class _Kept:
    """A worker that may be given another record. `since` is when it got into this state (monotonic seconds)."""

    pid: int
    connection: socket.socket
    forked_at: float
    since: float
    state: _State = _State.BUSY

    def become(self, state: _State) -> None:
        self.state, self.since = state, time.monotonic()


class WorkerPool:
    """The daemon's workers, as far as they can be spoken to."""

    def __init__(
        self,
        fork: Callable[[Callable[[], None]], int],
        serve: Callable[[Job, socket.socket], None],
        *,
        idle_s: float = _IDLE_S,
    ) -> None:
        """Make an empty pool.

        Args:
            fork: starts a process that calls this, and lets go of all that belongs to the daemon first, with
                `close_in_worker` of this pool; its pid.
            serve: what a worker does: carries the command of this record, and of those that the socket brings.
            idle_s: how long a worker is kept without a command.
        """
        self._fork = fork
        self._serve = serve
        self._idle_s = idle_s
        self._kept: dict[int, _Kept] = {}
        self._left: list[int] = []

    def carry(self, job: Job) -> int:
        """Have a worker carry the command of this record, which this process holds, and return the worker's pid.

        Not one whose last command `take_finished` has not told to be over: for the caller, a pid stands for one
        command at a time.

        Raises:
            OSError: there is none, and the host cannot fork.
        """
        # The one that has waited for the shortest time has most of what it needs in the processor's caches.
        for kept in self._idle():
            if self._give(kept, job):
                return kept.pid
        return self._start(job)

    def take_finished(self) -> list[int]:
        """Pids of the workers that have finished a command since the last call; they may live on.

        Also sends those away that have waited for too long, and ends those that don't take what they were given.
        """
        for kept in list(self._kept.values()):
            self._hear(kept)
        finished, self._left = self._left, []
        for kept in self._kept.values():
            if kept.state is _State.DONE:
                kept.become(_State.IDLE)
                finished.append(kept.pid)
        self._send_away()
        return finished

    def forget(self, pid: int, code: int) -> int:
        """A process has ended with this exit code: its pid may be another one's from now on.

        Returns:
            The code, or that of a crash for a worker that was to carry a command and has not said that it is done.
        """
        kept = self._kept.get(pid)
        if kept is None:
            return code
        self._hear(kept)
        is_done = pid in self._left or kept.state in (_State.DONE, _State.IDLE)
        self._left = [left for left in self._left if left != pid]
        self._drop(kept)
        return 0 if is_done else code or CRASHED

    def descriptors(self) -> list[int]:
        """What becomes readable when there is something to take."""
        open_ones = (kept.connection.fileno() for kept in self._kept.values())
        return [descriptor for descriptor in open_ones if descriptor >= 0]

    def close_in_worker(self) -> None:
        """In a forked process: let go of the others, or they would not learn that the daemon has gone."""
        for kept in self._kept.values():
            kept.connection.close()

    def _idle(self) -> list[_Kept]:
        """Those that can be given a record; the one that became idle last comes first."""
        idle = [kept for kept in self._kept.values() if kept.state is _State.IDLE]
        return sorted(idle, key=lambda kept: kept.since, reverse=True)

    def _send_away(self) -> None:
        now = time.monotonic()
        for place, kept in enumerate(self._idle()):
            is_old = now >= kept.forked_at + _MAX_AGE_S
            if place >= _MAX_IDLE or is_old or now >= kept.since + self._idle_s:
                self._drop(kept)
        for kept in self._kept.values():
            if kept.state is _State.GIVEN and now >= kept.since + _TAKING_S:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(kept.pid, signal.SIGKILL)

    def _give(self, kept: _Kept, job: Job) -> bool:
        """Send the record; False when the worker has gone."""
        try:
            job.send_to(kept.connection)
        except OSError:
            self._drop(kept)
            return False
        kept.become(_State.GIVEN)
        return True

    def _start(self, job: Job) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pid = self._fork(lambda: self._serve_in_worker(job, ours, theirs))
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        now = time.monotonic()
        self._kept[pid] = _Kept(pid=pid, connection=ours, forked_at=now, since=now)
        return pid

    def _serve_in_worker(self, job: Job, ours: socket.socket, theirs: socket.socket) -> None:
        ours.close()
        self._serve(job, theirs)

    def _hear(self, kept: _Kept) -> None:
        """Note all that this worker has said; one that leaves, or has gone, is dropped."""
        while True:
            try:
                message = kept.connection.recv(_MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if message == TAKEN:
                kept.become(_State.BUSY)
            elif message == DONE:
                kept.become(_State.DONE)
            elif message == LEAVING:
                self._left.append(kept.pid)
                self._drop(kept)
                return
            elif kept.state is _State.IDLE:
                self._drop(kept)
                return
            elif not message:
                # Whether it has done what it was given, `forget` finds out when it has ended. Until then, which may
                # take long where a debugger or a dead disk holds it, the daemon must not be woken again and again.
                kept.connection.close()
                return

    def _drop(self, kept: _Kept) -> None:
        """Afterwards it is given nothing more, and knows."""
        kept.connection.close()
        self._kept.pop(kept.pid, None)

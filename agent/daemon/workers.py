"""The processes of workers: forking them, and hearing of their ends."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.daemon.tracked_jobs import TrackedState, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.daemon.tracked_jobs import TrackedJob
    from agent.daemon.worker_pool import WorkerPool
    from agent.deployments import Job
    from agent.logs import Log
    from agent.protocol import HostCommand


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairs:
    """How the host is put in order, which takes nothing but the host: each function forks, and returns the pid.

    Attributes:
        restore: ends and undoes what the lost command of this record has left, and keeps its result.
        recover_installs: undoes or completes Installs that were interrupted, of which there is no record.
    """

    restore: Callable[[Job], int]
    recover_installs: Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """How work for the control endpoint is started. The functions fork, and return the pid of the worker.

    Attributes:
        pool: brings the command of a record to its end, wherever that stopped.
        refuse: reports a command of which no record could be made, for this reason.
        abandon: reports the command of this record as lost, without a further try to clean up after it.
    """

    pool: WorkerPool
    refuse: Callable[[HostCommand, OSError], int]
    abandon: Callable[[Job], int]


class WorkerProcesses:
    """Repairs are started at once, what takes a control endpoint as soon as there is one.

    Attributes:
        workers: how commands are carried out and reported; None until the host knows who it is.
        without_record: pids of the workers that work on no record.
    """

    def __init__(self, repairs: Repairs, log: Log) -> None:
        self._repairs = repairs
        self._log = log
        self.workers: Workers | None = None
        self.without_record: set[int] = set()

    def refuse(self, command: HostCommand, reason: OSError) -> None:
        """Have a worker report this command, of which there is no record, as failed."""
        # Where that can't be, nothing has been done and nobody told; the service delivers it again.
        self._start_without_record(lambda: self._connected.refuse(command, reason))

    def recover_installs(self) -> None:
        """Have a worker undo or complete what was interrupted."""
        # Where that can't be: the next command of each group begins with the same.
        self._start_without_record(self._repairs.recover_installs)

    def start(self, tracked: TrackedJob, work: Work) -> None:
        """Fork a worker for a record that this process holds; where the host cannot fork, it stays to be started."""
        tracked.work = work
        error = self._fork(tracked)
        if error is not None:
            self._log.error("worker_not_started", job=tracked.name, error=str(error))

    def start_again(self, tracked: TrackedJob) -> bool:
        """Try to start what could not be started; whether that is done."""
        return self._fork(tracked) is None

    def finished(self) -> list[int]:
        """The pids whose commands are over, since the last call; the processes may live on."""
        return [] if self.workers is None else self.workers.pool.take_finished()

    def ended(self) -> Iterator[tuple[int, int]]:
        """Every process that has ended since: its pid, and its exit code or minus a signal; 0 = it did its work."""
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(wait_status)
            yield pid, code if self.workers is None else self.workers.pool.forget(pid, code)

    def close_in_worker(self) -> None:
        """In a forked worker: let go of the other ones."""
        if self.workers is not None:
            self.workers.pool.close_in_worker()

    def _fork(self, tracked: TrackedJob) -> OSError | None:
        """Fork what is to be done about the record; returns why that can't be, if so."""
        tracked.become(TrackedState.STARTING)
        try:
            pid = self._function(tracked.work)(tracked.job)
        except OSError as error:
            tracked.become(TrackedState.UNSTARTED)
            return error
        tracked.job.let_go()
        tracked.become(TrackedState.AT_WORK, pid=pid)
        return None

    def _function(self, work: Work) -> Callable[[Job], int]:
        if work is Work.RESTORE:
            return self._repairs.restore
        if work is Work.ABANDON:
            return self._connected.abandon
        return self._connected.pool.carry

    def _start_without_record(self, work: Callable[[], int]) -> None:
        try:
            self.without_record.add(work())
        except OSError as error:
            self._log.error("worker_not_started", error=str(error))

    @property
    def _connected(self) -> Workers:
        if self.workers is None:
            raise AssertionError("commands come after `connect`")
        return self.workers

"""The workers of this agent: starting them, noticing their ends, taking over what they leave."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.daemon.worker_pool import WorkerPool
    from agent.deployments import History, Job, JobStore
    from agent.logs import Log
    from agent.protocol import HostCommand

MAX_RESTARTS = 3

_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairs:
    """How the host is put in order, which takes nothing but the host: each function forks, and returns the pid.

    Attributes:
        restore: ends and undoes what the lost command of this record has left, and keeps its result.
        mend: undoes or completes Installs that were interrupted, of which there is no record.
    """

    restore: Callable[[Job], int]
    mend: Callable[[], int]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Child:
    """A process that we have forked. `job` None: it works on no record; a repair is not the last to do so."""

    job: Job | None = None
    is_repair: bool = False


class RunningWorkers:
    """Every command that is at work on this host, whoever started its worker.

    Until `connect`, only repairs are started; what takes a control endpoint waits.

    Attributes:
        on_change: called when there are more or fewer of them.
        has_one_ended: set when a worker has ended; for the daemon to unset.
    """

    def __init__(self, repairs: Repairs, store: JobStore, history: History, log: Log) -> None:
        self._repairs = repairs
        self._workers: Workers | None = None
        self._store = store
        self._history = history
        self._log = log
        self._children: dict[int, _Child] = {}
        self._adopted: list[Job] = []
        self._waiting: list[Job] = []
        self._unstarted: list[tuple[Job, Callable[[Job], int]]] = []
        self._kept: list[Job] = []
        self._unusable: list[Job] = []
        self._said_unusable: set[str] = set()
        self._look_again_at = 0.0
        self._restarts: dict[str, int] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.has_one_ended = False

    def __len__(self) -> int:
        """How many are at work; not those that wait for `connect`, whose next step may be another daemon's."""
        return len(self._children) + len(self._adopted) + len(self._unstarted)

    def connect(self, workers: Workers) -> None:
        """From now on commands can be carried out, and reported: those that wait are."""
        self._workers = workers
        while self._waiting:
            # Off the list one by one: the locks of those on it are let go of in every worker.
            job = self._waiting.pop(0)
            with self._noting_unusable(job):
                self._go_on_with(job)

    def close_in_worker(self) -> None:
        """In a forked worker: let go of the other workers' records."""
        for job in [*self._adopted, *self._waiting, *(job for job, _ in self._unstarted)]:
            job.let_go()
        if self._workers is not None:
            self._workers.pool.close_in_worker()

    def refuse(self, command: HostCommand, reason: OSError) -> None:
        """Have a worker report this command, of which there is no record, as failed."""
        try:
            self._children[self._connected.refuse(command, reason)] = _Child()
        except OSError as error:
            # Nothing has been done and nobody told; the service delivers it again.
            self._log.error("worker_not_started", error=str(error))

    def mend(self) -> None:
        """Have a worker undo or complete what was interrupted."""
        try:
            self._children[self._repairs.mend()] = _Child()
        except OSError as error:
            # The next command of each group begins with the same.
            self._log.error("worker_not_started", error=str(error))

    def carry(self, job: Job) -> None:
        """Have a worker bring the command of this record, which this process holds, to its end."""
        self._take_finished()
        self._start(job, self._connected.pool.carry)

    def report_again(self, job: Job) -> bool:
        """Have a worker report what this record of a finished command has kept; False while somebody works on it.

        Raises:
            OSError: the record can't be used.
        """
        ours = [*self._adopted, *(child.job for child in self._children.values())]
        ours += [job for job, _ in self._unstarted]
        if any(other is not None and other.directory == job.directory for other in ours) or not job.hold():
            return False
        self.carry(job)
        return True

    @property
    def _connected(self) -> Workers:
        if self._workers is None:
            raise AssertionError("commands come after `connect`")
        return self._workers

    def _start(self, job: Job, work: Callable[[Job], int]) -> None:
        """Fork a worker; where there is no process to be had, every tick tries again."""
        try:
            self._fork(job, work)
        except OSError as error:
            self._log.error("worker_not_started", job=job.directory.name, error=str(error))
            self._unstarted.append((job, work))

    def _fork(self, job: Job, work: Callable[[Job], int]) -> None:
        pid = work(job)
        job.let_go()
        self._children[pid] = _Child(job=job, is_repair=work is self._repairs.restore)
        self.on_change()

    def _start_again(self) -> None:
        while self._unstarted:
            # Taken off the list first: the locks of those on it are let go of in every worker.
            job, work = self._unstarted.pop(0)
            try:
                self._fork(job, work)
            except OSError:
                self._unstarted.insert(0, (job, work))
                return

    def recover(self) -> None:
        """Take over what an earlier daemon has left: living workers, and records of dead ones."""
        try:
            jobs = self._store.jobs()
        except OSError as error:
            self._log.error("records_unusable", error=str(error))
            return
        for job in jobs:
            with self._noting_unusable(job):
                self._recover_job(job)

    def _recover_job(self, job: Job) -> None:
        if not job.hold():
            self._adopted.append(job)
            self._log.info("worker_adopted", job=job.directory.name)
        elif job.read() is None:
            # Its acceptance never became whole, so nothing was done and nobody was told.
            job.let_go()
            job.remove_if_possible()
        else:
            self._log.warning("command_recovered", job=job.directory.name)
            self._go_on_with(job)

    def _go_on_with(self, job: Job) -> None:
        """Start whatever comes next for this record, which this process holds, or let it wait for `connect`."""
        state = job.read()
        is_hopeless = self._restarts.get(job.directory.name, 0) > MAX_RESTARTS
        if self._workers is not None:
            # Whatever has killed the workers would kill the next one that does the same.
            self._start(job, self._workers.abandon if is_hopeless else self._workers.pool.carry)
        elif state is not None and state.is_lost and not is_hopeless:
            self._start(job, self._repairs.restore)
        else:
            self._waiting.append(job)

    @contextlib.contextmanager
    def _noting_unusable(self, job: Job) -> Iterator[None]:
        """A record that can't be used, as when no descriptor is left, is looked at again and again."""
        try:
            yield
        except OSError as error:
            job.let_go()
            # Said once; it may be so for days, until somebody mends it.
            if job.directory.name not in self._said_unusable:
                self._said_unusable.add(job.directory.name)
                self._log.error("record_unusable", job=job.directory.name, error=str(error))
            self._unusable.append(job)

    def reap(self) -> None:
        """Note which workers have finished or ended; what one has left behind is carried on by another one."""
        self._take_finished()
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            code = os.waitstatus_to_exitcode(wait_status)
            if self._workers is not None:
                code = self._workers.pool.forget(pid, code)
            self._worker_over(pid, code)
        self._let_go_of_adopted()
        self._start_again()
        if (self._kept or self._unusable) and time.monotonic() >= self._look_again_at:
            self._take_kept()
            unusable, self._unusable = self._unusable, []
            for job in unusable:
                with self._noting_unusable(job):
                    self._recover_job(job)
            self._look_again_at = time.monotonic() + _LOOK_AGAIN_S

    def _take_finished(self) -> None:
        """Note which workers have finished their commands, and so may be given others."""
        if self._workers is not None:
            for pid in self._workers.pool.take_finished():
                self._worker_over(pid, 0)

    def _take_kept(self) -> None:
        """Have reported commands become history, now that there may be room for it."""
        kept, self._kept = self._kept, []
        for job in kept:
            try:
                # Not when somebody reports it once more.
                if job.hold():
                    self._history.take(job)
                    self.has_one_ended = True
            except OSError:
                self._kept.append(job)
            finally:
                job.let_go()

    def _worker_over(self, pid: int, code: int) -> None:
        """Act on the end of a worker, or of its command; `code` 0 = it has done what it was to do."""
        child = self._children.pop(pid, None)
        if child is None:
            return
        self.has_one_ended = True
        job = child.job
        if job is not None and not job.directory.exists():
            self._restarts.pop(job.directory.name, None)
        elif job is not None and code != 0:
            self._log.error("worker_died", pid=pid, exit_code=code, job=job.directory.name)
            self._restart(job, code)
        elif job is not None and child.is_repair:
            self._repaired(job)
        elif job is not None:
            # It has been reported, but not become history; its worker has said why.
            self._log.warning("record_kept", job=job.directory.name)
            self._kept.append(job)
        self.on_change()

    def _repaired(self, job: Job) -> None:
        """The host is in order; what is left is to say so."""
        with self._noting_unusable(job):
            if not job.hold():
                self._adopted.append(job)
            elif self._workers is None:
                self._waiting.append(job)
            else:
                self._start(job, self._workers.pool.carry)

    def _let_go_of_adopted(self) -> None:
        for job in [job for job in self._adopted if not self._is_alive(job)]:
            self._adopted.remove(job)
            self.has_one_ended = True
            if job.directory.exists():
                self._log.error("worker_died", job=job.directory.name)
                self._restart(job)
            self.on_change()

    def _is_alive(self, job: Job) -> bool:
        try:
            return job.is_alive()
        except OSError:
            # Whoever takes it over meets the same, and says so.
            return False

    def _restart(self, job: Job, code: int | None = None) -> None:
        """Have a new worker finish what a dead one left: undo, and report; `code` None = nobody saw how it ended."""
        with self._noting_unusable(job):
            self._restart_job(job, code)

    def _restart_job(self, job: Job, code: int | None) -> None:
        if not job.hold():
            # A worker that waits for its turn looks at the record just now, or the record has just gone.
            # The next tick sees to it.
            self._adopted.append(job)
            return
        if code is not None:
            # Only the report is less precise without it.
            with contextlib.suppress(OSError):
                job.note_worker_end(code)
        restarts = self._restarts[job.directory.name] = self._restarts.get(job.directory.name, 0) + 1
        if restarts > MAX_RESTARTS:
            self._log.error("command_abandoned", job=job.directory.name, restarts=restarts - 1)
        if restarts <= MAX_RESTARTS + 1:
            self._go_on_with(job)
        else:
            # Not even a report. The next start of the agent tries again.
            job.let_go()

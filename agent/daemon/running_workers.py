"""The workers of this agent: starting them, noticing their ends, taking over what they leave."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.daemon.left_records import LeftRecords
from agent.daemon.tracked_jobs import TrackedJobs, TrackedState, Work
from agent.daemon.workers import WorkerProcesses

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.daemon.tracked_jobs import TrackedJob
    from agent.daemon.workers import Repairs, Workers
    from agent.deployments import History, Job, JobStore
    from agent.logs import Log
    from agent.protocol import HostCommand

_LOOK_AGAIN_S = 1.0

# Who works on such a record, if anybody, is no worker of ours and no process that we know of.
_FREE = {TrackedState.REPORTED, TrackedState.UNUSABLE, TrackedState.GIVEN_UP}


class RunningWorkers:
    """Every command that is at work on this host, whoever started its worker.

    Until `connect`, only repairs are started; what takes a control endpoint waits.

    Attributes:
        on_change: called when there are more or fewer of them.
        ends: how many workers have ended so far.
    """

    def __init__(self, repairs: Repairs, store: JobStore, history: History, log: Log) -> None:
        self._processes = WorkerProcesses(repairs, log)
        self._store = store
        self._log = log
        self._jobs = TrackedJobs()
        self._left = LeftRecords(
            self._jobs,
            history,
            log,
            start=self._start,
            is_connected=lambda: self._processes.workers is not None,
        )
        self._look_again_at = 0.0
        self.on_change: Callable[[], None] = lambda: None
        self.ends = 0

    def __len__(self) -> int:
        """How many are at work; not those that wait for `connect`, whose next step may be another daemon's."""
        return len(self._processes.without_record) + self._jobs.at_work()

    def connect(self, workers: Workers) -> None:
        """From now on commands can be carried out, and reported: those that wait are."""
        self._processes.workers = workers
        for tracked in self._jobs.in_state(TrackedState.WAITING):
            with tracked.noting_unusable(self._log):
                self._left.go_on_with(tracked)

    def close_in_worker(self) -> None:
        """In a forked worker: let go of the other workers' records."""
        self._jobs.let_go_in_worker()
        self._processes.close_in_worker()

    def refuse(self, command: HostCommand, reason: OSError) -> None:
        """Have a worker report this command, of which there is no record, as failed."""
        self._processes.refuse(command, reason)

    def recover_installs(self) -> None:
        """Have a worker undo or complete what was interrupted."""
        self._processes.recover_installs()

    def carry(self, job: Job) -> None:
        """Have a worker bring the command of this new record, which this process holds, to its end."""
        self._take_finished()
        self._start(self._jobs.track(job), Work.CARRY)

    def report_again(self, job: Job) -> bool:
        """Have a worker report what this record of a finished command has kept; False while somebody works on it.

        Raises:
            OSError: the record can't be used.
        """
        tracked = self._jobs.find(job)
        if tracked is not None and tracked.state not in _FREE:
            return False
        if not job.hold():
            return False
        self._take_finished()
        if tracked is None:
            tracked = self._jobs.track(job)
        tracked.job = job
        self._start(tracked, Work.CARRY)
        return True

    def _start(self, tracked: TrackedJob, work: Work) -> None:
        self._processes.start(tracked, work)
        self.on_change()

    def recover(self) -> None:
        """Take over what an earlier daemon has left: living workers, and records of dead ones."""
        try:
            jobs = self._store.jobs()
        except OSError as error:
            self._log.error("records_unusable", error=str(error))
            return
        for job in jobs:
            self._left.take_over(self._jobs.track(job))

    def reap(self) -> None:
        """Note which workers have finished or ended; what one has left behind is carried on by another one."""
        self._take_finished()
        for pid, code in self._processes.ended():
            self._worker_over(pid, code)
        self._let_go_of_adopted()
        for tracked in self._jobs.in_state(TrackedState.UNSTARTED):
            if not self._processes.start_again(tracked):
                break
            self.on_change()
        self._look_again()

    def _take_finished(self) -> None:
        """Note which workers have finished their commands, and so may be given others."""
        for pid in self._processes.finished():
            self._worker_over(pid, 0)

    def _look_again(self) -> None:
        """Once a second: whether there is room for history, and whether unusable records can be used."""
        stuck = self._jobs.in_state(TrackedState.REPORTED, TrackedState.UNUSABLE)
        if not stuck or time.monotonic() < self._look_again_at:
            return
        for tracked in stuck:
            if tracked.state is TrackedState.REPORTED:
                self.ends += self._left.make_history(tracked)
            else:
                self._left.take_over(tracked)
        self._look_again_at = time.monotonic() + _LOOK_AGAIN_S

    def _worker_over(self, pid: int, code: int) -> None:
        """Act on the end of a worker, or of its command; `code` 0 = it has done what it was to do."""
        tracked = self._jobs.worked_on_by(pid)
        if tracked is not None:
            self.ends += 1
            self._left.left_by_worker(tracked, code)
        elif pid in self._processes.without_record:
            self.ends += 1
            self._processes.without_record.remove(pid)
        else:
            return
        self.on_change()

    def _let_go_of_adopted(self) -> None:
        for tracked in self._jobs.in_state(TrackedState.ADOPTED):
            if tracked.is_alive():
                continue
            self.ends += 1
            self._left.left_by_adopted(tracked)
            self.on_change()

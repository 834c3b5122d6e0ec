"""Records that their workers have left: what is done about each."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agent.daemon.tracked_jobs import TrackedState, Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.daemon.tracked_jobs import TrackedJob, TrackedJobs
    from agent.deployments import History, JobState
    from agent.logs import Log

MAX_RESTARTS = 3


class LeftRecords:
    """Has a new worker go on where one has left a record, as long as there is something to be done.

    Args:
        jobs: all records of this daemon.
        history: takes those that have been reported.
        log: of the daemon.
        start: starts a worker for a record that this process holds.
        is_connected: whether there is a control endpoint to report to.
    """

    def __init__(
        self,
        jobs: TrackedJobs,
        history: History,
        log: Log,
        *,
        start: Callable[[TrackedJob, Work], None],
        is_connected: Callable[[], bool],
    ) -> None:
        self._jobs = jobs
        self._history = history
        self._start = start
        self._is_connected = is_connected
        self._log = log

    def take_over(self, tracked: TrackedJob) -> None:
        """Go on with a record that an earlier daemon has left, or that could not be used, unless somebody has it."""
        with tracked.noting_unusable(self._log):
            job = tracked.job
            if not job.hold():
                tracked.become(TrackedState.ADOPTED)
                self._log.info("worker_adopted", job=tracked.name)
            elif job.read() is None:
                # Its acceptance never became whole, so nothing was done and nobody was told.
                job.let_go()
                job.remove_if_possible()
                self._jobs.forget(tracked)
            else:
                self._log.warning("command_recovered", job=tracked.name)
                self.go_on_with(tracked)

    def go_on_with(self, tracked: TrackedJob) -> None:
        """Start whatever comes next for this record, which this process holds, or let it wait for `connect`."""
        work = _next_work(tracked.job.read(), tracked.restarts, is_connected=self._is_connected())
        if work is None:
            tracked.become(TrackedState.WAITING)
        else:
            self._start(tracked, work)

    def left_by_worker(self, tracked: TrackedJob, code: int) -> None:
        """Act on the end of a worker of this process, or of its command; `code` 0 = it has done what it was to do."""
        if not tracked.job.directory.exists():
            self._jobs.forget(tracked)
        elif code != 0:
            self._log.error("worker_died", pid=tracked.pid, exit_code=code, job=tracked.name)
            self._restart(tracked, code)
        elif tracked.work is Work.RESTORE:
            self._repaired(tracked)
        else:
            # It has been reported, but not become history; its worker has said why.
            self._log.warning("record_kept", job=tracked.name)
            tracked.become(TrackedState.REPORTED)

    def left_by_adopted(self, tracked: TrackedJob) -> None:
        """Act on the end of a worker that is no child of this process: nobody has seen how it ended."""
        if tracked.job.directory.exists():
            self._log.error("worker_died", job=tracked.name)
            self._restart(tracked)
        else:
            self._jobs.forget(tracked)

    def make_history(self, tracked: TrackedJob) -> bool:
        """Make history of a record that has been reported, if there is room by now. Whether it was taken."""
        is_taken = False
        try:
            # Not when it has gone, or somebody else reports it once more.
            if tracked.job.hold():
                self._history.take(tracked.job)
                is_taken = True
        except OSError:
            return False
        finally:
            tracked.job.let_go()
        self._jobs.forget(tracked)
        return is_taken

    def _repaired(self, tracked: TrackedJob) -> None:
        """The host is in order; what is left is to say so."""
        with tracked.noting_unusable(self._log):
            if not tracked.job.hold():
                tracked.become(TrackedState.ADOPTED)
            elif not self._is_connected():
                tracked.become(TrackedState.WAITING)
            else:
                self._start(tracked, Work.CARRY)

    def _restart(self, tracked: TrackedJob, code: int | None = None) -> None:
        """Have a new worker finish what a dead one left: undo, and report; `code` None = nobody saw how it ended."""
        with tracked.noting_unusable(self._log):
            job = tracked.job
            if not job.hold():
                # A worker that waits for its turn looks at the record just now, or the record has just gone.
                # The next tick sees to it.
                tracked.become(TrackedState.ADOPTED)
                return
            if code is not None:
                # Only the report is less precise without it.
                with contextlib.suppress(OSError):
                    job.note_worker_end(code)
            tracked.restarts += 1
            if tracked.restarts > MAX_RESTARTS:
                self._log.error("command_abandoned", job=tracked.name, restarts=tracked.restarts - 1)
            if tracked.restarts <= MAX_RESTARTS + 1:
                self.go_on_with(tracked)
            else:
                # Not even a report.
                job.let_go()
                tracked.become(TrackedState.GIVEN_UP)


def _next_work(state: JobState | None, restarts: int, *, is_connected: bool) -> Work | None:
    """What comes next for a record; None = it takes a control endpoint, and there is none yet."""
    is_hopeless = restarts > MAX_RESTARTS
    if is_connected:
        # Whatever has killed the workers would kill the next one that does the same.
        return Work.ABANDON if is_hopeless else Work.CARRY
    if state is not None and state.is_lost and not is_hopeless:
        return Work.RESTORE
    return None

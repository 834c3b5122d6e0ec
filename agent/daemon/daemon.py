"""The daemon: polls, starts a worker per host command, reaps. Nothing else ever happens in it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent import __version__
from agent.daemon.wakeups import PollAbandoned, Wakeups
from agent.deployments import DaemonStatus, History, JobStore, StatusFile
from agent.endpoint import SharedThrottle, wait_after_failures
from agent.errors import EndpointError, IdentityError, Throttled
from agent.processes import start_ticks

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.daemon.notification import ServiceNotifier
    from agent.deployments import Job
    from agent.endpoint import HostCommandClient
    from agent.logs import Log
    from agent.protocol import HostCommand
    from agent.settings import Settings

MAX_WORKERS = 16
MAX_RESTARTS = 3
_TICK_S = 1.0
_SHOWN_CHARACTERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """How work is started: each function forks, and returns the pid of the worker.

    Attributes:
        carry: brings the command of this record to its end, wherever that stopped.
        refuse: reports a command of which no record could be made, for this reason.
    """

    carry: Callable[[Job], int]
    refuse: Callable[[HostCommand, str], int]


class Daemon:
    """One agent at work. Single-threaded: `run` returns when the daemon is to end."""

    def __init__(
        self,
        *,
        settings: Settings,
        client: HostCommandClient,
        wakeups: Wakeups,
        workers: Workers,
        notifier: ServiceNotifier,
        log: Log,
        status: DaemonStatus,
    ) -> None:
        self._settings = settings
        self._client = client
        self._wakeups = wakeups
        self._workers = workers
        self._notifier = notifier
        self._log = log
        self._status = status
        self._status_file = StatusFile(settings.state_directory)
        self._store = JobStore(settings.state_directory)
        self._history = History(settings.state_directory)
        self._throttle = SharedThrottle(settings.state_directory)
        self._children: dict[int, Job | None] = {}
        self._adopted: list[Job] = []
        self._restarts: dict[str, int] = {}
        self._stop_requests = 0
        self._worker_ended = False
        self._trouble = ""
        self._alive_at = 0.0

    def run(self) -> None:
        """Poll until a signal says stop, then wait for the workers as long as the settings allow."""
        self._wakeups.abandon_poll = lambda: self._is_stopping
        self._wakeups.cut_short = lambda: self._is_stopping or self._worker_ended
        self._recover()
        self._tell(state="polling")
        self._notifier.status("polling")
        while not self._is_stopping:
            self._wait_for_slot()
            if not self._is_stopping:
                self._wakeups.sleep_until(self._poll())
        self._wait_for_workers()
        self._tell(state="stopped")
        self._log.info("agent_stopped", workers_left=self._busy)

    def tick(self) -> None:
        """What has to be done about once a second, and whenever a signal comes."""
        for number in self._wakeups.take_signals():
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop_requests += 1
        self._reap()
        now = time.monotonic()
        if self._notifier.watchdog_interval_s and now - self._alive_at >= self._notifier.watchdog_interval_s:
            self._alive_at = now
            self._notifier.alive()

    # -- polling ---------------------------------------------------------------------------------

    @property
    def _is_stopping(self) -> bool:
        return self._stop_requests > 0

    @property
    def _busy(self) -> int:
        return len(self._children) + len(self._adopted)

    def _wait_for_slot(self) -> None:
        """Return when one more command may be accepted, and nobody asks for fewer requests."""
        while self._busy >= MAX_WORKERS and not self._is_stopping:
            self._worker_ended = False
            self._wakeups.sleep_until(time.monotonic() + _TICK_S)
        pause = self._throttle.wait_s()
        while pause > 0 and not self._is_stopping:
            self._worker_ended = False
            self._wakeups.sleep_until(time.monotonic() + pause)
            pause = self._throttle.wait_s()

    def _poll(self) -> float:
        """Ask once for a command and start it; returns when to ask again (monotonic seconds)."""
        began = time.monotonic()
        self._worker_ended = False
        try:
            with self._wakeups.interruptible():
                command = self._client.poll_host_command()
        except PollAbandoned:
            return began
        except Throttled as error:
            self._throttle.extend()
            return self._note_failure(error, began, self._throttle.wait_s())
        except (EndpointError, IdentityError) as error:
            wait = wait_after_failures(self._status.failures + 1, spent_s=time.monotonic() - began)
            return self._note_failure(error, began, wait)
        self._note_success("command" if command else "empty")
        if command and self._dispatch(command):
            return time.monotonic()
        return time.monotonic() + self._settings.wait_between_runs

    def _note_failure(self, error: EndpointError | IdentityError, began: float, wait_s: float) -> float:
        """Log a change of state, not every attempt; the figures are in the status file."""
        self._worker_ended = False
        failures = self._status.failures + 1
        reason, trouble = error.message, _without_request_id(error)
        if trouble != self._trouble:
            self._log.warning("poll_failed", error=reason, failures=failures, retry_in_s=round(wait_s, 1))
        self._trouble = trouble
        now = time.time()
        self._tell(
            last_poll_at=now,
            last_poll_result=reason[:_SHOWN_CHARACTERS],
            failures=failures,
            next_poll_at=now + wait_s,
        )
        self._show_work()
        return max(began, time.monotonic() + wait_s)

    def _note_success(self, outcome: str) -> None:
        self._throttle_is_over()
        if self._trouble:
            self._log.info("poll_recovered", after_failures=self._status.failures)
        self._log.debug("polled", result=outcome)
        now = time.time()
        self._tell(
            last_poll_at=now,
            last_poll_result=outcome,
            last_success_at=now,
            failures=0,
            next_poll_at=now + self._settings.wait_between_runs,
        )
        if self._trouble:
            self._trouble = ""
            self._show_work()

    def _throttle_is_over(self) -> None:
        if self._status.failures:
            self._throttle.clear()

    # -- commands --------------------------------------------------------------------------------

    def _dispatch(self, command: HostCommand) -> bool:
        """Start what has been delivered; False when there is nothing to start."""
        log = self._log.bind(host_command_identifier=command.identifier, command=command.name)
        if not command.name:
            log.error("command_ignored", reason="it has no CommandName")
            return False
        try:
            if self._store.find(command.identifier):
                log.info("command_ignored", reason="it was delivered before and is being worked on")
                return False
            job = self._record(command, log)
        except OSError as error:
            log.error("command_refused", error=str(error))
            self._children[self._workers.refuse(command, _no_record(error))] = None
            return True
        self._start(job)
        return True

    def _record(self, command: HostCommand, log: Log) -> Job:
        """A record of this command; with its result, when it was carried out before.

        Raises:
            OSError: there can be none, and there is none.
        """
        finished = self._history.find(command.identifier)
        job = self._store.accept(command)
        try:
            if finished:
                job.note_result(finished.result)
        except OSError:
            # A record without its result would be carried out once more.
            job.let_go()
            job.remove()
            raise
        log.info("command_redelivered" if finished else "command_accepted")
        return job

    def _start(self, job: Job) -> None:
        pid = self._workers.carry(job)
        job.let_go()
        self._children[pid] = job
        self._show_work()

    def _recover(self) -> None:
        """Take over what an earlier daemon has left: living workers, and records of dead ones."""
        for job in self._store.jobs():
            if not job.hold():
                self._adopted.append(job)
                self._log.info("worker_adopted", job=job.directory.name)
            elif job.read() is None:
                # Its acceptance never became whole, so nothing was done and nobody was told.
                job.let_go()
                job.remove()
            else:
                self._log.warning("command_recovered", job=job.directory.name)
                self._start(job)

    def _reap(self) -> None:
        """Note which workers have ended; one that left its record behind is started again."""
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._worker_over(pid, wait_status)
        self._let_go_of_adopted()

    def _worker_over(self, pid: int, wait_status: int) -> None:
        if pid not in self._children:
            return
        self._worker_ended = True
        job = self._children.pop(pid)
        if job is not None and not job.directory.exists():
            self._restarts.pop(job.directory.name, None)
        elif job is not None:
            code = os.waitstatus_to_exitcode(wait_status)
            self._log.error("worker_died", pid=pid, exit_code=code, job=job.directory.name)
            self._restart(job)
        self._show_work()

    def _let_go_of_adopted(self) -> None:
        for job in [job for job in self._adopted if not job.is_alive()]:
            self._adopted.remove(job)
            self._worker_ended = True
            if job.directory.exists():
                self._log.error("worker_died", job=job.directory.name)
                self._restart(job)
            self._show_work()

    def _restart(self, job: Job) -> None:
        """Have a new worker finish what a dead one left: undo, and report."""
        if not job.hold():
            # A worker that waits for its turn looks at the record just now, or the record has just gone.
            # The next tick sees to it.
            self._adopted.append(job)
            return
        restarts = self._restarts[job.directory.name] = self._restarts.get(job.directory.name, 0) + 1
        if restarts > MAX_RESTARTS:
            # Whatever kills the workers would kill the next one. The next start of the agent tries again.
            self._log.error("command_abandoned", job=job.directory.name, restarts=restarts - 1)
            job.let_go()
            return
        self._start(job)

    # -- the end, and what others see ------------------------------------------------------------

    def _wait_for_workers(self) -> None:
        """Workers need no daemon; waiting only tells the service manager that the host is idle."""
        patience_s = self._settings.kill_agent_max_wait_time_seconds
        deadline = time.monotonic() + patience_s
        self._tell(state="stopping")
        self._notifier.stopping()
        self._log.info("agent_stopping", running=self._busy, patience_s=patience_s)
        self._wakeups.cut_short = lambda: self._stop_requests > 1 or not self._busy
        self._wakeups.sleep_until(deadline)
        if self._busy:
            self._log.warning("workers_left_alone", running=self._busy)

    def _show_work(self) -> None:
        text = self._status.state
        if self._status.failures:
            text = f"polls fail ({self._status.failures} in a row): {self._trouble}"
        self._notifier.status(f"{text}; {self._busy} running" if self._busy else text)

    def _tell(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self._status_file.write(self._status)

    def close_in_worker(self) -> None:
        """Close everything that a forked worker must not share with the daemon."""
        self._client.close()
        self._status_file.close()
        for job in self._adopted:
            job.let_go()


def starting_status(*, host_identifier: str, endpoint: str) -> DaemonStatus:
    """What the status file says before the first poll."""
    return DaemonStatus(
        pid=os.getpid(),
        start_ticks=start_ticks(os.getpid()) or 0,
        version=__version__,
        state="starting",
        started_at=time.time(),
        host_identifier=host_identifier,
        endpoint=endpoint,
    )


def _without_request_id(error: EndpointError | IdentityError) -> str:
    """The message, the same for every request that meets the same trouble."""
    if isinstance(error, EndpointError) and error.request_id:
        return error.message.replace(error.request_id, "")
    return error.message


def _no_record(error: OSError) -> str:
    return (
        f"The agent can't keep a record of this command in {error.filename or 'its state directory'}: "
        f"{error.strerror or error}. Free some space there and deploy again."
    )

"""The daemon: polls, starts a worker per host command, reaps. Nothing else ever happens in it."""

from __future__ import annotations

import signal
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.daemon.commands_of_others import CommandsOfOthers
from agent.daemon.refusals import Refusals
from agent.daemon.running import RunningWorkers
from agent.daemon.wakeups import PollAbandoned, Wakeups
from agent.deployments import (
    DeploymentRoot,
    DrainMark,
    History,
    JobStore,
    StatusFile,
    starting_status,
)
from agent.deployments.group_files import interrupted_groups
from agent.endpoint import Setbacks, SharedThrottle
from agent.errors import EndpointError, EndpointUnavailable, IdentityError, Throttled

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.daemon.notification import ServiceNotifier
    from agent.daemon.running import Repairs, Workers
    from agent.deployments import Job
    from agent.endpoint import HostCommandClient
    from agent.logs import Log
    from agent.protocol import HostCommand
    from agent.settings import Settings

MAX_WORKERS = 16
_TICK_S = 1.0
_REMEMBERED = 256  # commands of which we know that they were taken, whatever happens to records and history
_SHOWN_CHARACTERS = 1200


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """What there is once the host knows who it is."""

    client: HostCommandClient
    workers: Workers
    host_identifier: str
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotYet:
    """The host does not know who it is: why, and in how many seconds it is worth to look again."""

    reason: str
    wait_s: float
    error_id: str = ""


class Daemon:
    """One agent at work. Single-threaded: `run` returns when the daemon is to end."""

    def __init__(
        self,
        *,
        settings: Settings,
        connect: Callable[[], Connected | NotYet],
        repairs: Repairs,
        wakeups: Wakeups,
        notifier: ServiceNotifier,
        log: Log,
    ) -> None:
        """Make a daemon.

        Args:
            settings: of the agent.
            connect: finds out who this host is, which may take its time during boot: answers why
                it does not know yet, and how long to wait before the next try.
            repairs: what can be done before.
            wakeups: of this process.
            notifier: told what happens.
            log: of the agent.
        """
        self._settings = settings
        self._connect = connect
        self._client: HostCommandClient | None = None
        self._wakeups = wakeups
        self._notifier = notifier
        self._log = log
        self._status = starting_status()
        self._status_file = StatusFile(settings.state_directory)
        self._store = JobStore(settings.state_directory)
        self._history = History(settings.state_directory)
        self._running = RunningWorkers(repairs, self._store, self._history, log)
        self._refusals = Refusals(self._history, self._store.directory)
        self._taken: deque[str] = deque(maxlen=_REMEMBERED)
        self._others = CommandsOfOthers(self._history)
        self._setbacks = Setbacks()
        self._throttle = SharedThrottle(settings.state_directory)
        self._drain_mark = DrainMark(settings.state_directory)
        self._is_draining = False
        self._must_look_again = False
        self._stop_requests = 0
        self._trouble = ""
        self._is_trouble_said = False

    def run(self) -> None:
        """Poll until a signal says stop, then wait for the workers as long as the settings allow."""
        self._tell(state="starting")
        self._running.recover()
        if self._is_install_interrupted():
            self._running.mend()
        # Ready to work, as far as this host is concerned; during boot the rest may take its time.
        self._notifier.ready()
        self._notifier.status("finding out who this host is")
        connected = self._connect_at_last()
        if connected is not None:
            self._poll_until_stopped(connected)
        self._wait_for_workers()
        self._tell(state="stopped")
        self._log.info("agent_stopped", workers_left=len(self._running))

    def _connect_at_last(self) -> Connected | None:
        """Return when the host knows who it is, however long that takes; None when told to stop meanwhile."""
        self._wakeups.cut_short = lambda: self._is_stopping
        next_at = time.monotonic()
        while True:
            self._wakeups.sleep_until(next_at)
            if self._is_stopping:
                return None
            try:
                with self._wakeups.interruptible():
                    connected = self._connect()
            except PollAbandoned:
                continue
            if isinstance(connected, Connected):
                return connected
            next_at = time.monotonic() + connected.wait_s
            self._tell_wait(connected)

    def _tell_wait(self, wait: NotYet) -> None:
        now = time.time()
        since = self._status.waits_since or now
        self._tell(
            waits_for=wait.reason[:_SHOWN_CHARACTERS],
            waits_error_id=wait.error_id,
            waits_since=since,
            next_try_at=now + wait.wait_s,
        )

    def _poll_until_stopped(self, connected: Connected) -> None:
        self._client = connected.client
        self._wakeups.abandon_poll = lambda: self._is_stopping or self._is_draining
        self._wakeups.cut_short = lambda: self._must_hurry or self._running.has_one_ended
        self._wakeups.also_watched = connected.workers.pool.descriptors
        self._running.on_change = self._show_work
        self._running.connect(connected.workers)
        # Before the first look at the mark: whoever puts it there and then reads `starting` can rely on that.
        self._tell(
            state="polling",
            host_identifier=connected.host_identifier,
            endpoint=connected.endpoint,
            waits_for="",
            waits_error_id="",
            waits_since=0.0,
            next_try_at=0.0,
        )
        self._notifier.status("polling")
        while not self._is_stopping:
            self._look_at_drain_mark()
            if self._is_draining:
                self._wakeups.sleep_until(time.monotonic() + _TICK_S)
                continue
            self._wait_for_slot()
            if not self._must_hurry:
                self._wakeups.sleep_until(self._poll(connected.client))

    def tick(self) -> None:
        """What has to be done about once a second, and whenever a signal comes."""
        for number in self._wakeups.take_signals():
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop_requests += 1
            elif number == signal.SIGHUP:
                # Also while a poll is held: its answer would be one command too many.
                self._must_look_again = True
                self._is_draining = self._drain_mark.counts()
        self._running.reap()
        self._notifier.keep_alive()
        if self._refusals.try_again():
            self._tell(refused={})
        self._status_file.beat()

    # -- polling ---------------------------------------------------------------------------------

    @property
    def _is_stopping(self) -> bool:
        return self._stop_requests > 0

    @property
    def _must_hurry(self) -> bool:
        """Whether something other than a poll comes next."""
        return self._is_stopping or self._must_look_again

    def _look_at_drain_mark(self) -> None:
        """Know whether commands may be taken, and say so when that has changed."""
        self._must_look_again = False
        self._running.has_one_ended = False
        self._is_draining = self._drain_mark.counts()
        state = "draining" if self._is_draining else "polling"
        if state != self._status.state:
            self._log.info("drain_began" if self._is_draining else "drain_ended", running=len(self._running))
            self._tell(state=state)
            self._show_work()

    def _wait_for_slot(self) -> None:
        """Return when one more command may be accepted, and nobody asks for fewer requests."""
        while len(self._running) >= MAX_WORKERS and not self._must_hurry:
            self._running.has_one_ended = False
            self._wakeups.sleep_until(time.monotonic() + _TICK_S)
        pause = self._throttle.wait_s()
        while pause > 0 and not self._must_hurry:
            self._running.has_one_ended = False
            self._wakeups.sleep_until(time.monotonic() + pause)
            pause = self._throttle.wait_s()

    def _poll(self, client: HostCommandClient) -> float:
        """Ask once for a command and start it; returns when to ask again (monotonic seconds)."""
        began = time.monotonic()
        self._running.has_one_ended = False
        try:
            with self._wakeups.interruptible():
                command = client.poll_host_command()
        except PollAbandoned:
            return began
        except (EndpointError, IdentityError) as error:
            return time.monotonic() + self._wait_after(error, time.monotonic() - began)
        if command and not command.is_for(self._status.host_identifier):
            return time.monotonic() + self._leave_alone(command)
        self._note_success("command" if command else "empty")
        if command and self._dispatch(command):
            return time.monotonic()
        return time.monotonic() + self._settings.wait_between_runs

    def _wait_after(self, error: EndpointError | IdentityError, spent_s: float) -> float:
        """Seconds until the next poll, after one that took so long and met this error."""
        self._running.has_one_ended = False
        if isinstance(error, Throttled):
            self._throttle.extend()
            self._setbacks.throttled()
            wait_s = self._throttle.wait_s()
        else:
            if isinstance(error, EndpointUnavailable):
                pause_s = self._setbacks.pause_before_repetition(spent_s)
                if pause_s is not None:
                    self._log.debug("poll_repeated", error=error.message, error_id=error.error_id)
                    return pause_s
            wait_s = self._setbacks.fail(spent_s)
        self._note_failure(error, wait_s)
        return wait_s

    def _leave_alone(self, command: HostCommand) -> float:
        """Do nothing about another host's command; returns how many seconds to wait for the next one."""
        self._running.has_one_ended = False
        wait_s = max(self._setbacks.meet_command_of_another(), self._settings.wait_between_runs)
        error, is_new = self._others.note(command, self._status.host_identifier, self._log)
        self._is_trouble_said |= is_new
        self._note_failure(error, wait_s, is_logged=False)
        return wait_s

    def _note_failure(
        self, error: EndpointError | IdentityError, wait_s: float, *, is_logged: bool = True
    ) -> None:
        """Log a change of state, not every attempt; the figures are in the status file."""
        failures = self._status.failures + 1
        reason, trouble = error.message, error.trouble
        if is_logged and trouble != self._trouble:
            self._is_trouble_said = True
            self._log.warning(
                "poll_failed",
                error=reason,
                error_id=error.error_id,
                failures=failures,
                retry_in_s=round(wait_s, 1),
            )
        self._trouble = trouble
        now = time.time()
        self._tell(
            last_poll_at=now,
            last_poll_result=reason[:_SHOWN_CHARACTERS],
            last_error_id=error.error_id,
            failures=failures,
            next_poll_at=now + wait_s,
        )
        self._show_work()

    def _note_success(self, outcome: str) -> None:
        self._setbacks.clear()
        if self._status.failures:
            self._throttle.clear()
        if self._is_trouble_said:
            self._is_trouble_said = False
            self._log.info("poll_recovered", after_failures=self._status.failures)
        self._log.debug("polled", result=outcome)
        now = time.time()
        self._tell(
            last_poll_at=now,
            last_poll_result=outcome,
            last_error_id="",
            last_success_at=now,
            failures=0,
            next_poll_at=now + self._settings.wait_between_runs,
        )
        if self._trouble:
            self._trouble = ""
            self._show_work()

    # -- commands --------------------------------------------------------------------------------

    def _dispatch(self, command: HostCommand) -> bool:
        """Start what has been delivered; False when there is nothing to start."""
        log = self._log.bind(host_command_identifier=command.identifier, command=command.name)
        try:
            if delivered := self._store.find(command.identifier):
                return self._take_again(delivered, log)
            job = self._record(command, log)
        except OSError as error:
            if command.identifier in self._taken:
                # Its true result has been reported; to refuse it now would contradict that.
                log.warning("command_ignored", reason="it was taken before", error=str(error))
                return False
            log.error("command_refused", error=str(error), error_id="record-impossible")
            self._running.refuse(command, error)
            self._refusals.note(command, error)
            self._tell(refused=self._refusals.shown())
            return True
        self._taken.append(command.identifier)
        self._running.carry(job)
        return True

    def _take_again(self, job: Job, log: Log) -> bool:
        """A command of which there is a record: a finished one is reported again, any other is under way."""
        is_finished = self._running.report_again(job)
        if is_finished:
            log.info("command_redelivered")
        else:
            log.info("command_ignored", reason="it was delivered before and is being worked on")
        return is_finished

    def _is_install_interrupted(self) -> bool:
        try:
            return bool(interrupted_groups(DeploymentRoot(path=self._settings.root_dir).instructions))
        except OSError:
            # Whoever needs what can't be read there says so.
            return False

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
            self._store.discard(job)
            raise
        log.info("command_redelivered" if finished else "command_accepted")
        return job

    # -- the end, and what others see ------------------------------------------------------------

    def _wait_for_workers(self) -> None:
        """Workers need no daemon; waiting only tells the service manager that the host is idle."""
        patience_s = self._settings.kill_agent_max_wait_time_seconds
        deadline = time.monotonic() + patience_s
        self._tell(state="stopping")
        self._notifier.stopping()
        self._show_work()
        self._log.info("agent_stopping", running=len(self._running), patience_s=patience_s)
        self._wakeups.cut_short = lambda: self._stop_requests > 1 or not self._running
        self._wakeups.sleep_until(deadline)
        if self._running:
            self._log.warning("workers_left_alone", running=len(self._running))

    def _show_work(self) -> None:
        text = self._status.state
        if self._status.failures and not self._is_stopping:
            text = f"polls fail ({self._status.failures} in a row): {self._trouble}"
        self._notifier.status(f"{text}; {len(self._running)} running" if self._running else text)

    def _tell(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self._status_file.write(self._status)

    def close_in_worker(self) -> None:
        """Close everything that a forked worker must not share with the daemon."""
        if self._client is not None:
            self._client.close()
        self._status_file.close()
        self._running.close_in_worker()

"""The daemon: polls, starts a worker per host command, reaps. Nothing else ever happens in it."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.daemon.intake import Intake
from agent.daemon.poll_results import PollResults
from agent.daemon.published_status import PublishedStatus
from agent.daemon.running_workers import RunningWorkers
from agent.daemon.wakeups import PollAbandoned
from agent.deployments import DeploymentRoot, DrainMark, History, JobStore
from agent.deployments.group_files import interrupted_groups
from agent.errors import EndpointError, IdentityError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.daemon.notification import ServiceNotifier
    from agent.daemon.wakeups import Wakeups
    from agent.daemon.workers import Repairs, Workers
    from agent.endpoint import HostCommandClient
    from agent.logs import Log
    from agent.settings import Settings

MAX_WORKERS = 16
_TICK_S = 1.0


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
        self._log = log
        store = JobStore(settings.state_directory)
        history = History(settings.state_directory)
        self._status = PublishedStatus(settings.state_directory, notifier)
        self._running = RunningWorkers(repairs, store, history, log)
        self._intake = Intake(store, history, self._running, self._status, log)
        self._results = PollResults(settings, history, self._status, log)
        self._drain_mark = DrainMark(settings.state_directory)
        self._is_draining = False
        self._must_look_again = False
        self._stop_requests = 0

    def run(self) -> None:
        """Poll until a signal says stop, then wait for the workers as long as the settings allow."""
        self._status.tell(state="starting")
        self._running.recover()
        if self._is_install_interrupted():
            self._running.recover_installs()
        # Ready to work, as far as this host is concerned; during boot the rest may take its time.
        self._status.ready()
        connected = self._connect_at_last()
        if connected is not None:
            self._poll_until_stopped(connected)
        self._wait_for_workers()
        self._status.tell(state="stopped")
        self._log.info("agent_stopped", workers_left=len(self._running))

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
        self._intake.try_again()
        self._status.beat()

    def close_in_worker(self) -> None:
        """Close everything that a forked worker must not share with the daemon."""
        if self._client is not None:
            self._client.close()
        self._status.close()
        self._running.close_in_worker()

    def _is_install_interrupted(self) -> bool:
        try:
            return bool(interrupted_groups(DeploymentRoot(path=self._settings.root_dir).instructions))
        except OSError:
            # Whoever needs what can't be read there says so.
            return False

    # -- until the host knows who it is ----------------------------------------------------------

    def _connect_at_last(self) -> Connected | None:
        """Return when the host knows who it is, however long that takes; None when told to stop meanwhile."""
        next_at = time.monotonic()
        while True:
            self._wakeups.sleep_until(next_at, lambda: self._is_stopping)
            if self._is_stopping:
                return None
            try:
                with self._wakeups.interruptible(lambda: self._is_stopping):
                    connected = self._connect()
            except PollAbandoned:
                continue
            if isinstance(connected, Connected):
                return connected
            next_at = time.monotonic() + connected.wait_s
            self._status.waiting(connected.reason, connected.error_id, connected.wait_s)

    # -- polling ---------------------------------------------------------------------------------

    @property
    def _is_stopping(self) -> bool:
        return self._stop_requests > 0

    @property
    def _must_hurry(self) -> bool:
        """Whether something other than a poll comes next."""
        return self._is_stopping or self._must_look_again

    def _poll_until_stopped(self, connected: Connected) -> None:
        self._client = connected.client
        self._wakeups.also_watched = connected.workers.pool.descriptors
        self._running.on_change = self._show_work
        self._running.connect(connected.workers)
        # Before the first look at the mark: whoever puts it there and then reads `starting` can rely on that.
        self._status.connected(connected.host_identifier, connected.endpoint)
        self._show_work()
        while not self._is_stopping:
            self._look_at_drain_mark()
            if self._is_draining:
                self._pause(_TICK_S)
                continue
            self._wait_for_slot()
            if not self._must_hurry:
                self._poll(connected.client)

    def _look_at_drain_mark(self) -> None:
        """Know whether commands may be taken, and say so when that has changed."""
        self._must_look_again = False
        self._is_draining = self._drain_mark.counts()
        state = "draining" if self._is_draining else "polling"
        if state != self._status.now.state:
            self._log.info("drain_began" if self._is_draining else "drain_ended", running=len(self._running))
            self._status.tell(state=state)
            self._show_work()

    def _wait_for_slot(self) -> None:
        """Return when one more command may be accepted, and nobody asks for fewer requests."""
        while len(self._running) >= MAX_WORKERS and not self._must_hurry:
            self._pause(_TICK_S)
        while (pause_s := self._results.pause_s()) > 0 and not self._must_hurry:
            self._pause(pause_s)

    def _poll(self, client: HostCommandClient) -> None:
        """Ask once for a command, start it, and return when it is time to ask again."""
        began, ends = time.monotonic(), self._running.ends
        try:
            with self._wakeups.interruptible(lambda: self._is_stopping or self._is_draining):
                command = client.poll_host_command()
        except PollAbandoned:
            self._pause(0)
            return
        except (EndpointError, IdentityError) as error:
            wait_s = self._results.failed(error, time.monotonic() - began)
            self._show_work()
            self._pause(wait_s)
            return
        if command and not command.is_for(self._status.now.host_identifier):
            wait_s = self._results.brought_command_of_another(command)
            self._show_work()
            self._pause(wait_s)
            return
        if self._results.succeeded("command" if command else "empty"):
            self._show_work()
        is_started = command is not None and self._intake.take(command)
        # Whoever has finished during the poll has made room for a command that waits for it.
        self._pause(0 if is_started else self._settings.wait_between_runs, ends=ends)

    def _pause(self, wait_s: float, *, ends: int | None = None) -> None:
        """Wait, unless there is something else to do, or a worker ends.

        Args:
            wait_s: for how long.
            ends: the ends that are known; None = all so far.
        """
        known = self._running.ends if ends is None else ends
        self._wakeups.sleep_until(
            time.monotonic() + wait_s, lambda: self._must_hurry or self._running.ends > known
        )

    # -- the end ---------------------------------------------------------------------------------

    def _wait_for_workers(self) -> None:
        """Workers need no daemon; waiting only tells the service manager that the host is idle."""
        patience_s = self._settings.kill_agent_max_wait_time_seconds
        deadline = time.monotonic() + patience_s
        self._status.stopping()
        self._show_work()
        self._log.info("agent_stopping", running=len(self._running), patience_s=patience_s)
        self._wakeups.sleep_until(deadline, lambda: self._stop_requests > 1 or not self._running)
        if self._running:
            self._log.warning("workers_left_alone", running=len(self._running))

    def _show_work(self) -> None:
        self._status.show_work(len(self._running))

"""Waiting until this host has been set up, before the agent does anything on it.

Also before it undoes what a crash has left: the disk on which that lies may not be there yet. The
launcher waits, and not the daemon, which stays as small as it is.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.daemon.lock import AgentLock
from agent.daemon.notification import ServiceNotifier
from agent.daemon.wakeups import PollAbandoned, Wakeups
from agent.deployments import StatusFile, starting_status
from agent.logs import Level, Log, LogSink
from agent.worker.configured_command import run_configured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.settings import Settings

_AGAIN_S = 2.0
_PATIENCE_S = 30.0
_TICK_S = 1.0


def wait_for_boot(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Whether the agent may go on: `start_when_file` and `start_when_command` hold; False: told to stop before.

    Meanwhile the service manager and `agentctl status` see an agent that is starting.

    Args:
        settings: of the agent; its directories are there.
        environ: names the service manager; it stays as it is, for the daemon.

    Raises:
        AgentAlreadyRuns: another agent owns these directories.
        DirectoryNotLockable: one of them can't be locked.
    """
    if settings.start_when_file is None and settings.start_when_command is None:
        return True
    lock = AgentLock(settings.root_dir, settings.pid_dir)
    lock.acquire()
    try:
        return _Wait(settings, environ).run()
    finally:
        lock.forget()


def what_is_missing(settings: Settings) -> str:
    """The part of the boot condition that does not hold yet, and why; empty when all of it does."""
    file = settings.start_when_file
    # A file below a directory that can't be entered is not there yet, either.
    if file is not None and not os.path.exists(file):
        return f"start_when_file {file} does not exist"
    command = settings.start_when_command
    if command is None:
        return ""
    try:
        problem = run_configured(command, patience_s=_PATIENCE_S, environment={}).problem
    except OSError as error:
        problem = f"its output can't be kept: {error.strerror or error}"
    return f"start_when_command `{command}`: {problem}" if problem else ""


class _Wait:
    """One wait, of a process that is nothing else meanwhile."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._log = Log(LogSink(settings.agent_log, level=Level.DEBUG if settings.verbose else Level.INFO))
        # A copy, from which the notifier takes its variables.
        self._notifier = ServiceNotifier(dict(environ))
        self._status_file = StatusFile(settings.state_directory)
        self._wakeups = Wakeups(self._tick, tick_interval_s=_TICK_S)
        self._is_stopping = False
        self._status = starting_status()

    def run(self) -> bool:
        """Whether the condition has come true; False: told to stop before."""
        self._wakeups.catch(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self._status_file.write(self._status)
        self._notifier.ready()
        self._wait()
        if self._is_stopping:
            self._notifier.stopping()
            self._tell(state="stopped", waits_for="")
            self._log.info("agent_stopped")
        self._status_file.close()
        # Without a handler from here on: a signal that comes before the daemon has its own ends the process.
        self._wakeups.release()
        return not self._is_stopping

    def _wait(self) -> None:
        began = time.monotonic()
        known = ""
        while not self._is_stopping and (missing := self._look()):
            if missing != known:
                self._log.info("start_waits", missing=missing)
                self._notifier.status(f"waiting: {missing}")
            now = time.time()
            since = self._status.waits_since or now
            self._tell(waits_for=missing, waits_since=since, next_try_at=now + _AGAIN_S)
            known = missing
            self._wakeups.sleep_until(time.monotonic() + _AGAIN_S, lambda: self._is_stopping)
        if known and not self._is_stopping:
            self._log.info("start_goes_on", waited_s=round(time.monotonic() - began, 1))

    def _look(self) -> str:
        """What is missing. When told to stop, a command that still runs is left to end alone."""
        try:
            with self._wakeups.interruptible(lambda: self._is_stopping):
                return what_is_missing(self._settings)
        except PollAbandoned:
            self._tick()
            return ""

    def _tick(self) -> None:
        numbers = self._wakeups.take_signals()
        self._is_stopping = self._is_stopping or bool({signal.SIGTERM, signal.SIGINT} & {*numbers})
        self._notifier.keep_alive()
        self._status_file.beat()

    def _tell(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self._status_file.write(self._status)

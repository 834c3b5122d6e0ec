"""The daemon and the work on this host, as other processes find and wait for them."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import click

from agent.cli.configured_host import settings_of
from agent.cli.edge import IMPOSSIBLE, refusal
from agent.cli.liveness import Vitality, examine
from agent.cli.status_text import describe_work
from agent.cli.terminal_text import readable
from agent.deployments import DaemonStatus, JobState, JobStore, StatusFile
from agent.files import is_directory
from agent.processes import boot_id, start_ticks

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agent.settings import Settings

DONE = 0
OUT_OF_TIME = 1
_LOOK_AGAIN_S = 0.1


class RunningAgent:
    """The agent with these settings, through what lies on disk. Works when there is no daemon, too.

    Every method raises OSError where this user may not look or send signals, or the disk does not work.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._status_file = StatusFile(settings.state_directory)

    def daemon(self) -> DaemonStatus | None:
        """What the daemon, if its process is there, says of itself; None when there is none."""
        status = self._status_file.read()
        if status is None or status.state == "stopped" or not status.start_ticks:
            return None
        if status.boot_id not in {"", boot_id()}:
            return None
        # A pid alone may be somebody else's by now.
        if start_ticks(status.pid) == status.start_ticks:
            return status
        _check_not_hidden(status.pid)
        return None

    def vitality(self, daemon: DaemonStatus) -> Vitality:
        """Whether it works."""
        return examine(daemon, self._status_file.heartbeat_at())

    def signal(self, number: signal.Signals) -> DaemonStatus | None:
        """Send the daemon a signal; returns whom, and None when there is none."""
        daemon = self.daemon()
        if daemon is not None:
            try:
                os.kill(daemon.pid, number)
            except ProcessLookupError:
                return None
        return daemon

    def work_left(self) -> list[JobState]:
        """The commands that are at work or not reported yet."""
        states = [job.read() for job in JobStore(self.settings.state_directory).undelivered()]
        return [state for state in states if state is not None]

    @property
    def has_state(self) -> bool:
        """Whether an agent has ever run with these settings."""
        return is_directory(self.settings.state_directory)


def _check_not_hidden(pid: int) -> None:
    """Raise PermissionError where /proc, mounted with hidepid, may only not show the process to this user."""
    with contextlib.suppress(ProcessLookupError):
        if os.geteuid() and not os.path.exists(f"/proc/{pid}"):
            os.kill(pid, 0)


def agent_of(config_file: Path) -> RunningAgent:
    """The agent with this configuration.

    Raises:
        ConfigurationError: it can't be used.
    """
    return RunningAgent(settings_of(config_file))


def wait_for(claim: Callable[[], bool], timeout_s: float | None) -> bool:
    """Whether the claim came true in time; None = however long that takes."""
    end = None if timeout_s is None else time.monotonic() + timeout_s
    while not claim():
        if end is not None and time.monotonic() >= end:
            return False
        time.sleep(_LOOK_AGAIN_S)
    return True


def exit_impossible(error: OSError) -> NoReturn:
    """Say what can't be reached and why, and end the program."""
    click.echo(f"agentctl: {readable(refusal(error))}", err=True)
    sys.exit(IMPOSSIBLE)


def say_nobody_was_here(agent: RunningAgent) -> None:
    """That there is nothing to wait for may also mean that another agent was meant."""
    click.echo(
        f"agentctl: no agent has run with this configuration: its pid_dir {agent.settings.state_directory} does not "
        "exist. Name the right configuration with --config-file if another one is meant.",
        err=True,
    )


def say_what_is_left(left: Sequence[JobState], timeout_s: float | None) -> None:
    """Why waiting was given up, and for which commands."""
    noun = "command is" if len(left) == 1 else "commands are"
    click.echo(
        f"agentctl: after {timeout_s or 0:g} s, {len(left)} {noun} still at work or not reported:", err=True
    )
    for state in left:
        click.echo(f"  {readable(describe_work(state, time.time()))}", err=True)

"""The daemon and the work on this host, as other processes find and wait for them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from agent.cli.host import settings_of
from agent.deployments import DaemonStatus, JobStore, StatusFile
from agent.errors import ConfigurationError
from agent.processes import start_ticks
from agent.settings import DEFAULT_CONFIGURATION

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from agent.settings import Settings

DONE = 0
OUT_OF_TIME = 1
BAD_INPUT = 2
IMPOSSIBLE = 4
_LOOK_AGAIN_S = 0.1

config_option = click.option(
    "-c",
    "--config-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_CONFIGURATION,
    show_default=True,
    help="Configuration of the agent that is meant.",
)
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    help="Seconds to wait at most. Default: as long as it takes.",
)


class RunningAgent:
    """The agent with these settings, through what lies on disk. Works when there is no daemon, too.

    Every method raises OSError where this user may not look or send signals, or the disk does not work.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._status_file = StatusFile(settings.state_directory)

    def daemon(self) -> DaemonStatus | None:
        """What the living daemon says of itself; None when there is none."""
        status = self._status_file.read()
        if status is None or status.state == "stopped" or not status.start_ticks:
            return None
        # A pid alone may be somebody else's by now.
        return status if start_ticks(status.pid) == status.start_ticks else None

    def signal(self, number: signal.Signals) -> DaemonStatus | None:
        """Send the daemon a signal; returns whom, and None when there is none."""
        daemon = self.daemon()
        if daemon is not None:
            try:
                os.kill(daemon.pid, number)
            except ProcessLookupError:
                return None
        return daemon

    def work_left(self) -> int:
        """How many commands are at work or not reported yet."""
        return len(JobStore(self.settings.state_directory).undelivered())


def agent_of(config_file: Path) -> RunningAgent:
    """The agent with this configuration; ends the program where that is not usable."""
    try:
        return RunningAgent(settings_of(config_file))
    except ConfigurationError as error:
        click.echo(f"agentctl: {error.message}", err=True)
        sys.exit(BAD_INPUT)


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
    hint = "; try again with sudo" if isinstance(error, PermissionError) else ""
    click.echo(f"agentctl: {error.filename or 'the agent'}: {error.strerror or error}{hint}", err=True)
    sys.exit(IMPOSSIBLE)


def say_what_is_left(count: int, timeout_s: float | None) -> None:
    """Why waiting was given up."""
    noun = "command is" if count == 1 else "commands are"
    click.echo(
        f"agentctl: after {timeout_s or 0:g} s, {count} {noun} still at work or not reported; see agentctl status",
        err=True,
    )

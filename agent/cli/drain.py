"""`agentctl drain`: take no more commands, and say when the host is idle."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

import click

from agent.cli.running import (
    DONE,
    OUT_OF_TIME,
    RunningAgent,
    agent_of,
    config_option,
    exit_impossible,
    say_what_is_left,
    timeout_option,
    wait_for,
)
from agent.deployments import DrainMark

if TYPE_CHECKING:
    from pathlib import Path

_NOT_POLLING = ("starting", "draining", "stopping")


@click.command("drain")
@config_option
@timeout_option
@click.option("--undo", is_flag=True, help="Take commands again.")
def command(config_file: Path, timeout_s: float | None, *, undo: bool) -> None:
    """Stop taking commands, and wait until nothing runs and everything has been reported.

    The agent goes on running, and what has begun is carried to its end. It stays like this, also across restarts
    of the agent, until `agentctl drain --undo` or a reboot. With --timeout 0 nothing is waited for.

    Exit codes: 0 the host is idle (with --undo: commands are taken again), 1 not idle in time, but draining,
    2 bad input, 4 it can't be done: this user may not, or pid_dir can't be written.

    \b
    Examples:
      agentctl drain --timeout 600
      agentctl drain --undo
    """  # noqa: D301 - click takes \b for: keep these lines
    agent = agent_of(config_file)
    mark = DrainMark(agent.settings.state_directory)
    try:
        if undo:
            mark.remove()
            is_running = agent.signal(signal.SIGHUP) is not None
            click.echo("The agent takes commands again." if is_running else "The agent does not run.")
            sys.exit(DONE)
        mark.put()
        agent.signal(signal.SIGHUP)
        sys.exit(_wait(agent, timeout_s))
    except OSError as error:
        exit_impossible(error)


def _wait(agent: RunningAgent, timeout_s: float | None) -> int:
    began = time.monotonic()
    if wait_for(lambda: _is_drained(agent), timeout_s):
        waited = f"after {time.monotonic() - began:.0f} s"
        click.echo(
            f"The host is idle {waited}. It takes no commands until `agentctl drain --undo` or a reboot."
        )
        return DONE
    say_what_is_left(agent.work_left(), timeout_s)
    return OUT_OF_TIME


def _is_drained(agent: RunningAgent) -> bool:
    """Looked at in this order: a daemon that polls may still take a command."""
    daemon = agent.daemon()
    return (daemon is None or daemon.state in _NOT_POLLING) and agent.work_left() == 0

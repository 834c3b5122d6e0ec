"""`agentctl drain`: take no more commands, and say when the host is idle."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

import click

from agent.cli.edge import IMPOSSIBLE
from agent.cli.options import config_option, timeout_option
from agent.cli.running import (
    DONE,
    OUT_OF_TIME,
    RunningAgent,
    agent_of,
    exit_impossible,
    say_what_is_left,
    wait_for,
)
from agent.cli.status_text import frozen
from agent.cli.terminal_text import readable
from agent.deployments import DrainMark

if TYPE_CHECKING:
    from pathlib import Path

    from agent.deployments import DaemonStatus

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
    2 bad input, 4 it can't be done: this user may not, pid_dir can't be written, or the agent's process does not work.

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
            sys.exit(_undo(agent))
        mark.put()
        daemon = agent.signal(signal.SIGHUP)
        if daemon is not None:
            _refuse_frozen(agent, daemon)
        sys.exit(_wait(agent, timeout_s, runs=daemon is not None))
    except OSError as error:
        exit_impossible(error)


def _undo(agent: RunningAgent) -> int:
    daemon = agent.signal(signal.SIGHUP)
    if daemon is None:
        click.echo("The agent does not run. When it is started, it takes commands.")
        return DONE
    vitality = agent.vitality(daemon)
    if vitality.is_frozen:
        click.echo(f"agentctl: the agent takes no commands yet: {frozen(daemon, vitality)}", err=True)
        return IMPOSSIBLE
    if daemon.waits_for:
        click.echo(
            f"The agent takes commands as soon as it can; it still waits: {readable(daemon.waits_for)}"
        )
        return DONE
    click.echo("The agent takes commands again.")
    return DONE


def _refuse_frozen(agent: RunningAgent, daemon: DaemonStatus) -> None:
    """End the program where nobody can say what the daemon will do next; once it goes on, it drains."""
    vitality = agent.vitality(daemon)
    if vitality.is_frozen and agent.daemon() is not None:
        click.echo(
            f"agentctl: the agent drains only when it works again: {frozen(daemon, vitality)}", err=True
        )
        sys.exit(IMPOSSIBLE)


def _wait(agent: RunningAgent, timeout_s: float | None, *, runs: bool) -> int:
    began = time.monotonic()
    if wait_for(lambda: _is_drained(agent), timeout_s):
        waited = f"after {time.monotonic() - began:.0f} s"
        who = "It" if runs else "The agent does not run; when it is started, it"
        click.echo(
            f"The host is idle {waited}. {who} takes no commands until `agentctl drain --undo` or a reboot."
        )
        return DONE
    say_what_is_left(agent.work_left(), timeout_s)
    return OUT_OF_TIME


def _is_drained(agent: RunningAgent) -> bool:
    """Looked at in this order: a daemon that polls may still take a command."""
    daemon = agent.daemon()
    return (daemon is None or daemon.state in _NOT_POLLING) and not agent.work_left()

"""`agentctl stop`: end the daemon, wherever it was started."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import click

from agent.cli.edge import refusal
from agent.cli.liveness import Life
from agent.cli.options import config_option, timeout_option
from agent.cli.running import DONE, OUT_OF_TIME, RunningAgent, agent_of, exit_impossible, wait_for
from agent.cli.status_text import describe_work, frozen
from agent.cli.terminal_text import readable
from agent.processes import start_ticks

if TYPE_CHECKING:
    from pathlib import Path

    from agent.deployments import DaemonStatus

# How long a daemon may take to notice the first signal: two cannot be told apart before that.
_NOTICE_S = 10.0
# An idle one has ended by then, and nothing need be said.
_BRIEFLY_S = 1.0


@click.command("stop")
@config_option
@timeout_option
@click.option("--now", is_flag=True, help="Don't wait for running commands; they finish without the agent.")
def command(config_file: Path, timeout_s: float | None, *, now: bool) -> None:
    """Stop the agent and wait until it has ended. It polls no more at once, and first lets running commands finish.

    It waits for them for kill_agent_max_wait_time_seconds at most; with --now, not at all. In any case they are
    carried to their end, and reported. Under systemd, use `systemctl stop` unless you are in a hurry.

    Exit codes: 0 it does not run (any more), 1 it still runs when the time is up, or was itself stopped by a signal and
    can't end, 2 bad input, 4 this user may not stop it, or pid_dir can't be read.

    \b
    Examples:
      agentctl stop
      agentctl stop --now
    """  # noqa: D301 - click takes \b for: keep these lines
    agent = agent_of(config_file)
    try:
        daemon = agent.signal(signal.SIGTERM)
        if daemon is None:
            click.echo("The agent does not run.")
            sys.exit(DONE)
        _refuse_frozen(agent, daemon)
        if now:
            _hurry(agent, daemon)
        elif timeout_s is None and not wait_for(lambda: _has_ended(daemon), _BRIEFLY_S):
            _say_what_is_waited_for(agent, daemon)
        if not wait_for(lambda: _has_ended(daemon), timeout_s):
            _exit_out_of_time(agent, daemon)
    except OSError as error:
        exit_impossible(error)
    click.echo(f"The agent has stopped{_what_goes_on(agent)}.")


def _what_goes_on(agent: RunningAgent) -> str:
    """How many commands go on without it, as the end of a sentence."""
    try:
        left = len(agent.work_left())
    except OSError as error:
        return f"; what still runs is not known: {readable(refusal(error))}"
    return f"; {left} running" if left else ""


def _refuse_frozen(agent: RunningAgent, daemon: DaemonStatus) -> None:
    """End the program where the daemon can't notice that it is to end; it does when it goes on."""
    vitality = agent.vitality(daemon)
    if vitality.life is Life.STOPPED and not _has_ended(daemon):
        click.echo(f"agentctl: the agent can't be stopped like this: {frozen(daemon, vitality)}", err=True)
        sys.exit(OUT_OF_TIME)


def _say_what_is_waited_for(agent: RunningAgent, daemon: DaemonStatus) -> None:
    seen, vitality = agent.daemon(), agent.vitality(daemon)
    if vitality.is_frozen:
        click.echo(
            f"agentctl: the agent does not notice that it is to stop: {frozen(daemon, vitality)}", err=True
        )
    elif seen is not None and seen.state == "stopping":
        click.echo(
            "agentctl: the agent polls no more and waits for these commands; --now does not:", err=True
        )
    elif daemon.waits_for:
        click.echo(
            f"agentctl: the agent was waiting, and has not ended yet: {readable(daemon.waits_for)}", err=True
        )
    else:
        click.echo(
            f"agentctl: the agent (pid {daemon.pid}) has not noticed yet that it is to stop.", err=True
        )
    for state in agent.work_left():
        click.echo(f"  {readable(describe_work(state, time.time()))}", err=True)


def _exit_out_of_time(agent: RunningAgent, daemon: DaemonStatus) -> NoReturn:
    vitality = agent.vitality(daemon)
    left = agent.work_left()
    if vitality.is_frozen:
        message = f"the agent does not stop: {frozen(daemon, vitality)}"
    elif left:
        noun = "command" if len(left) == 1 else "commands"
        message = (
            f"the agent (pid {daemon.pid}) still waits for running commands, {len(left)} {noun}; see agentctl status, "
            "or use --now"
        )
    else:
        message = (
            f"the agent (pid {daemon.pid}) has not stopped yet, although no command runs; see agentctl status"
        )
    click.echo(f"agentctl: {message}", err=True)
    sys.exit(OUT_OF_TIME)


def _hurry(agent: RunningAgent, daemon: DaemonStatus) -> None:
    """Send the second signal once the first has been understood."""

    def is_understood() -> bool:
        seen = agent.daemon()
        return seen is None or seen.pid != daemon.pid or seen.state == "stopping"

    if wait_for(is_understood, _NOTICE_S) and not _has_ended(daemon):
        agent.signal(signal.SIGTERM)


def _has_ended(daemon: DaemonStatus) -> bool:
    """Its locks go with the process, and not when it says `stopped`: the next one may then start."""
    return start_ticks(daemon.pid) != daemon.start_ticks

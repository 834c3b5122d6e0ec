"""`agentctl wait-idle`: return when nothing runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from agent.cli.options import config_option, timeout_option
from agent.cli.running import (
    DONE,
    OUT_OF_TIME,
    agent_of,
    exit_impossible,
    say_nobody_was_here,
    say_what_is_left,
    wait_for,
)

if TYPE_CHECKING:
    from pathlib import Path


@click.command("wait-idle")
@config_option
@timeout_option
def command(config_file: Path, timeout_s: float | None) -> None:
    """Wait until no command of the service runs on this host, and all of them have been reported.

    Works without the daemon, too. A running agent may take the next command right after; `agentctl drain` is for
    those who don't want that. Deployments by `agentctl deploy` don't count.

    Exit codes: 0 nothing runs, 1 not in time, 2 bad input, 4 pid_dir, or a record in it, can't be read.

    \b
    Examples:
      agentctl wait-idle
      agentctl wait-idle --timeout 300
    """  # noqa: D301 - click takes \b for: keep these lines
    agent = agent_of(config_file)
    try:
        if not agent.has_state:
            say_nobody_was_here(agent)
        if wait_for(lambda: not agent.work_left(), timeout_s):
            sys.exit(DONE)
        say_what_is_left(agent.work_left(), timeout_s)
        sys.exit(OUT_OF_TIME)
    except OSError as error:
        exit_impossible(error)

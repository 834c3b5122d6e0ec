"""`agentctl status`: what the agent does, and what it did last."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from agent.cli.configured_host import settings_of
from agent.cli.options import config_option, json_option
from agent.cli.overview import Overview, RunState, look, with_problem
from agent.cli.status_document import status_document
from agent.cli.status_text import status_text
from agent.cli.terminal_text import readable
from agent.errors import ConfigurationError
from agent.settings_file import SettingsInvalid

if TYPE_CHECKING:
    from pathlib import Path


@click.command("status")
@config_option
@json_option
@click.option(
    "--last", "count", type=click.IntRange(0, 100), default=5, show_default=True, help="How many deployments."
)
def command(config_file: Path, *, as_json: bool, count: int) -> None:
    """Say whether the agent runs, how its last poll went, what it does now, and what came of the last deployments.

    A deployment has succeeded when all of its events have; one whose last event has not come yet is in progress.
    Works without root where the agent's state can be read, and when the agent is dead.

    Exit codes: 0 it runs, 1 its process is there but does not work, 3 it does not run, 4 nobody knows (its state or
    configuration can't be read).

    \b
    Examples:
      agentctl status
      agentctl status --json --last 20
    """  # noqa: D301 - click takes \b for: keep these lines
    overview, problem = _overview(config_file, count)
    if problem:
        click.echo(f"agentctl: {readable(problem)}", err=True)
    if as_json:
        told = with_problem(overview, problem) if problem else overview
        click.echo(json.dumps(status_document(told, time.time()), indent=2))
    else:
        click.echo(readable(status_text(overview, time.time())))
    sys.exit(int(overview.run_state))


def _overview(config_file: Path, count: int) -> tuple[Overview, str]:
    """What is known, and what is wrong with the configuration; empty where nothing is."""
    try:
        return look(settings_of(config_file), count), ""
    except SettingsInvalid as error:
        overview, problem = look(error.usable, count), f"{error.message} [{error.error_id}]"
        refused = overview.refused_start
        has_just_refused = refused is not None and refused.error_id == error.error_id
        if overview.run_state is RunState.NOT_RUNNING and not has_just_refused:
            # The agent may have been told, before, that it is to keep its state elsewhere.
            overview = replace(overview, run_state=RunState.UNKNOWN)
        return overview, problem
    except ConfigurationError as error:
        return Overview(run_state=RunState.UNKNOWN), f"{error.message} [{error.error_id}]"

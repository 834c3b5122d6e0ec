"""`agentctl version`."""

from __future__ import annotations

import json
import platform

import click

from agent import __version__
from agent.cli.options import json_option


@click.command("version")
@json_option
def command(*, as_json: bool) -> None:
    """Print the version of the agent and of its Python."""
    if as_json:
        click.echo(json.dumps({"version": __version__, "python": platform.python_version()}))
    else:
        click.echo(f"agentctl {__version__} (Python {platform.python_version()})")

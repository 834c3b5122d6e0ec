"""The options that many subcommands have, each with one name, one meaning and one help.

Those of `agentctl deploy` and `agentctl plan` are in `local_revision`: what they need takes longer to load.
"""

from __future__ import annotations

from pathlib import Path

import click

from agent.settings import DEFAULT_CONFIGURATION

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
config_option = click.option(
    "-c",
    "--config-file",
    # Not click's own checks: the file is read anyway, and what is wrong with it is said as of any other file.
    type=click.Path(path_type=Path, readable=False),
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

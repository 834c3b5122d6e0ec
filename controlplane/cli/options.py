"""Options that several subcommands have."""

from __future__ import annotations

from pathlib import Path

import click

from controlplane.settings import DEFAULT_DATA_DIRECTORY

data_option = click.option(
    "--data",
    "data_directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_DATA_DIRECTORY,
    show_default=True,
    envvar="CODEDEPLOY_CONTROL_DATA",
    show_envvar=True,
    help="Data directory of the endpoint.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")

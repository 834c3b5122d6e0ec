"""`codedeploy-control`: one file per subcommand."""

from __future__ import annotations

import sys

import click

from controlplane.cli.ca import ca
from controlplane.cli.host import host
from controlplane.cli.key import key
from controlplane.cli.serve import serve
from controlplane.cli.user import user
from controlplane.errors import OperatorError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def codedeploy_control() -> None:
    """A control endpoint for deployment agents.

    Hosts poll it for commands; people and pipelines call its deployment API with boto3 or `aws deploy`.

    \b
    Examples:
      codedeploy-control serve --data ./control --listen 127.0.0.1:8462
      codedeploy-control user add ci --data ./control
      codedeploy-control host register web-1 --tag Role=web --data ./control --config

    \b
    Exit codes: 0 done, 1 not done (the reason is on stderr), 2 wrong usage.
    """  # noqa: D301 - click wants the backspace itself


codedeploy_control.add_command(serve)
codedeploy_control.add_command(ca)
codedeploy_control.add_command(user)
codedeploy_control.add_command(host)
codedeploy_control.add_command(key)


def main() -> None:
    """Entry point of the console script; ends the process."""
    try:
        codedeploy_control(prog_name="codedeploy-control")
    except OperatorError as error:
        click.echo(f"codedeploy-control: {error}", err=True)
        sys.exit(1)

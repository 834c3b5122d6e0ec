"""`codedeploy-control ca`."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import click

from controlplane.cli.options import data_option
from controlplane.signing.authority import Authority
from controlplane.store.database import open_database

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@data_option
def ca(data_directory: Path) -> None:
    """Print the CA certificate that deployment specifications are signed under.

    Give it to every host, so that it accepts deployments of this endpoint only. It is made at the first
    start of `serve` or the first call of this command, whichever comes first.

    \b
    Examples:
      codedeploy-control ca --data ./control > /etc/codedeploy-agent/conf/signer-ca.pem

    \b
    Exit codes: 0 printed, 1 the data directory can't be used, 2 wrong usage.
    """  # noqa: D301 - click wants the backspace itself
    open_database(data_directory).close()
    now = dt.datetime.now(dt.timezone.utc)
    click.echo(Authority(data_directory).ca(now).certificate_pem, nl=False)

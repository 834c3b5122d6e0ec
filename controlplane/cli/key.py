"""`codedeploy-control key`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from controlplane.cli.options import data_option
from controlplane.errors import OperatorError
from controlplane.store.database import open_existing_database
from controlplane.store.identities import revoke_access_key

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def key() -> None:
    """Access keys of hosts and users alike."""


@key.command("revoke")
@click.argument("access_key_id")
@data_option
def revoke(access_key_id: str, data_directory: Path) -> None:
    """Refuse every request signed with this access key from now on.

    Works while the endpoint runs. To replace a key, make the new one first (`user add`, `host create-key`).

    \b
    Examples:
      codedeploy-control key revoke AKIAEXAMPLEEXAMPLE12 --data ./control

    \b
    Exit codes: 0 revoked, 1 there is no such key, 2 wrong usage.
    """  # noqa: D301 - click wants the backspace itself
    database = open_existing_database(data_directory)
    try:
        with database.transaction() as session:
            if not revoke_access_key(session, access_key_id):
                raise OperatorError(
                    f"There is no access key {access_key_id}; `user list` shows those of users."
                )
    finally:
        database.close()

"""`codedeploy-control user`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from controlplane.cli.options import data_option, json_option
from controlplane.domain.explanation import spell_time
from controlplane.store.database import open_database, open_existing_database
from controlplane.store.identities import create_access_key, list_access_keys
from controlplane.store.kinds import IdentityKind

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def user() -> None:
    """Access keys of people and pipelines that call the public API."""


@user.command("add")
@click.argument("name")
@data_option
@json_option
def add(name: str, data_directory: Path, *, as_json: bool) -> None:
    """Create an access key for a person or pipeline and print it, once.

    Works while the endpoint runs, and again for a further key of the same name. The secret can't be
    printed a second time.

    \b
    Examples:
      codedeploy-control user add ci --data ./control
      codedeploy-control user add ci --data ./control --json | jq -r .secretAccessKey

    \b
    Exit codes: 0 made, 1 not made, 2 wrong usage.
    """  # noqa: D301 - click wants the backspace itself
    database = open_database(data_directory)
    with database.transaction() as session:
        key = create_access_key(session, name=name, kind=IdentityKind.USER, now=time.time())
    database.close()
    document = {
        "userName": name,
        "userArn": key.identity.arn,
        "accessKeyId": key.access_key_id,
        "secretAccessKey": key.secret_access_key.reveal(),
    }
    if as_json:
        click.echo(json.dumps(document))
    else:
        click.echo(f"aws_access_key_id = {document['accessKeyId']}")
        click.echo(f"aws_secret_access_key = {document['secretAccessKey']}")


@user.command("list")
@data_option
@json_option
def list_users(data_directory: Path, *, as_json: bool) -> None:
    """List the access keys of people and pipelines, without their secrets.

    One line per key: name, access key id, when it was made.

    \b
    Examples:
      codedeploy-control user list --data ./control

    \b
    Exit codes: 0 listed, 1 the data directory can't be used, 2 wrong usage.
    """  # noqa: D301 - click wants the backspace itself
    database = open_existing_database(data_directory)
    with database.transaction() as session:
        keys = list_access_keys(session, IdentityKind.USER)
    database.close()
    rows = [
        {"userName": identity.name, "accessKeyId": key_id, "createdAt": spell_time(created_at)}
        for identity, key_id, created_at in keys
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(f"{row['userName']}  {row['accessKeyId']}  {row['createdAt']}")

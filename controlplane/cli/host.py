"""`codedeploy-control host`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.options import data_option, json_option
from controlplane.domain.explanation import spell_time
from controlplane.domain.naming import explain_bad_instance_name, explain_bad_tag
from controlplane.errors import OperatorError
from controlplane.store import hosts
from controlplane.store.database import endpoint_names, open_database, open_existing_database
from controlplane.store.identities import AccessKey, create_access_key
from controlplane.store.kinds import IdentityKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy.orm import Session

    from controlplane.store.schema import InstanceRow


@click.group()
def host() -> None:
    """Hosts: their access keys and registration."""


@host.command("create-key")
@click.argument("name")
@data_option
@json_option
def create_key(name: str, data_directory: Path, *, as_json: bool) -> None:
    """Create an access key for a host and print it, once, with the ARN the host acts under.

    The host may poll as soon as RegisterOnPremisesInstance has been called with that ARN. For both steps in
    one, use `host register`.

    \b
    Examples:
      codedeploy-control host create-key web-1 --data ./control --json
      aws deploy register-on-premises-instance --instance-name web-1 --iam-user-arn ARN

    \b
    Exit codes: 0 made, 1 not made, 2 wrong usage.
    """  # noqa: D301 - click wants the backspace itself
    database = open_database(data_directory)
    with database.transaction() as session:
        key = create_access_key(session, name=name, kind=IdentityKind.HOST, now=time.time())
        region = endpoint_names(session).region
    database.close()
    click.echo(_as_json(name, key, region) if as_json else _as_config(key, region), nl=as_json)


@host.command("register")
@click.argument("name")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag of the host; may be repeated.")
@click.option("--region", help="Region to write into the host's file.  [default: the endpoint's]")
@data_option
@json_option
@click.option("--config", "as_config", is_flag=True, help="Print the host's file only (the default).")
def register(
    name: str,
    tags: Sequence[str],
    region: str | None,
    data_directory: Path,
    *,
    as_json: bool,
    as_config: bool,
) -> None:
    """Register a host: an access key, a registration with tags, and the file the host needs.

    Put the printed file at /etc/codedeploy-agent/conf/codedeploy.onpremises.yml on the host, mode 0600. The
    secret can't be printed a second time.

    \b
    Examples:
      codedeploy-control host register web-1 --tag Role=web --tag Stage=prod > codedeploy.onpremises.yml
      codedeploy-control host register web-1 --tag Role=web --json | jq -r .iamUserArn

    \b
    Exit codes: 0 registered, 1 not registered (the name is taken, for example), 2 wrong usage.
    """  # noqa: D301 - click wants the backspace itself
    if as_json and as_config:
        raise click.UsageError("--json and --config exclude each other.")
    pairs = dict(_parse_tag(tag) for tag in tags)
    database = open_database(data_directory)
    try:
        with database.transaction() as session:
            key = _register(session, name, pairs)
            region = region or endpoint_names(session).region
    finally:
        database.close()
    click.echo(_as_json(name, key, region) if as_json else _as_config(key, region), nl=as_json)


@host.command("list")
@data_option
@json_option
def list_hosts(data_directory: Path, *, as_json: bool) -> None:
    """List the hosts with the time they were last seen polling, their agent's version and their tags.

    The time is written down every 10 s while the endpoint runs. `-` is a host that never polled.

    \b
    Examples:
      codedeploy-control host list --data ./control
      codedeploy-control host list --json | jq -r '.[] | select(.lastSeen == null) | .instanceName'

    \b
    Exit codes: 0 listed, 1 the data directory can't be used, 2 wrong usage.
    """  # noqa: D301 - click wants the backspace itself
    database = open_existing_database(data_directory)
    with database.transaction() as session:
        rows = [_describe(row) for row in hosts.list_instances(session)]
    database.close()
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        tags = " ".join(f"{key}={value}" for key, value in row["tags"].items())
        state = "registered" if row["registered"] else "deregistered"
        columns = (row["instanceName"], state, row["lastSeen"] or "-", row["agentVersion"] or "-", tags)
        click.echo("  ".join(columns))


def _describe(row: InstanceRow) -> dict[str, Any]:
    return {
        "instanceName": row.name,
        "iamUserArn": row.iam_user_arn,
        "registered": row.deregistered_at is None,
        "lastSeen": None if row.last_seen_at is None else spell_time(row.last_seen_at),
        "agentVersion": row.agent_version,
        "tags": hosts.tags_of(row),
    }


def _register(session: Session, name: str, tags: dict[str, str]) -> AccessKey:
    problem = explain_bad_instance_name(name)
    if problem is not None:
        raise OperatorError(problem)
    if hosts.find_registered(session, name) is not None:
        raise OperatorError(
            f"{name} is registered already. Deregister it first (deregister-on-premises-instance), "
            "or make another key for it with: codedeploy-control host create-key"
        )
    now = time.time()
    key = create_access_key(session, name=name, kind=IdentityKind.HOST, now=now)
    other = hosts.find_by_identity(session, key.identity.arn)
    if other is not None:
        raise OperatorError(f"{key.identity.arn} is registered already, for {other.name}.")
    row = hosts.register(session, name=name, iam_user_arn=key.identity.arn, now=now)
    hosts.put_tags(row, tags)
    return key


def _parse_tag(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    problem = "it has no =" if not separator else explain_bad_tag(key, value)
    if problem is not None:
        raise click.BadParameter(f"{text!r} is no tag: {problem}.", param_hint="--tag")
    return key, value


def _as_json(name: str, key: AccessKey, region: str) -> str:
    return json.dumps(
        {
            "instanceName": name,
            "region": region,
            "iamUserArn": key.identity.arn,
            "accessKeyId": key.access_key_id,
            "secretAccessKey": key.secret_access_key.reveal(),
        }
    )


def _as_config(key: AccessKey, region: str) -> str:
    """The on-premises file. None of the values can hold a character that YAML would read otherwise."""
    return (
        "---\n"
        f"region: {region}\n"
        f"iam_user_arn: {key.identity.arn}\n"
        f"aws_access_key_id: {key.access_key_id}\n"
        f"aws_secret_access_key: {key.secret_access_key.reveal()}\n"
    )

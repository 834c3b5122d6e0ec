"""`agentctl whoami`: who this host is for the service."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from agent.cli.configured_host import identity_of, settings_of
from agent.cli.options import config_option, json_option
from agent.daemon.host_finder import control_stack, s3_url
from agent.errors import IdentityError

if TYPE_CHECKING:
    from pathlib import Path

    from agent.identity.host_identity import HostIdentity
    from agent.settings import Settings


@click.command("whoami")
@config_option
@json_option
def command(config_file: Path, *, as_json: bool) -> None:
    """Say who this host is for the service, where that was found, and where the agent polls.

    Looks in the same places as the agent; run it as the same user. Nothing is sent to the service.

    Exit codes: 0 found, 1 not to be found out now, 2 the configuration is wrong.

    \b
    Examples:
      agentctl whoami
      sudo agentctl whoami --json
    """  # noqa: D301 - click takes \b for: keep these lines
    settings = settings_of(config_file)
    identity = identity_of(settings)
    if identity is None:
        sys.exit(1)
    facts = _facts(settings, identity)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            click.echo(f"{name.replace('_', ' '):<18} {value or 'NONE'}")
    sys.exit(0 if facts["access_key_id"] else 1)


def _facts(settings: Settings, identity: HostIdentity) -> dict[str, Any]:
    stack = control_stack(settings, identity)
    return {
        "host_identifier": identity.host_identifier,
        "region": identity.region,
        "according_to": identity.source,
        "credentials_from": identity.credential_source.describe(),
        "access_key_id": _access_key_id(identity),
        "control_endpoint": stack.url,
        "signing_name": stack.signing_name,
        "s3_endpoint": s3_url(settings, identity),
    }


def _access_key_id(identity: HostIdentity) -> str | None:
    """The public half of the credentials; None when there are none, which is said on standard error."""
    try:
        return identity.credentials().access_key_id
    except IdentityError as error:
        click.echo(f"agentctl: {error.message} [{error.error_id}]", err=True)
        return None

"""`agentctl deploy`: a deployment on this host, without a control endpoint."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import click

from agent.cli.host import context_of, identity_of, settings_of
from agent.errors import ConfigurationError
from agent.logs import Level, command_log, stderr_log
from agent.protocol import BundleType, FileExistsBehavior
from agent.settings import DEFAULT_CONFIGURATION
from agent.specification import DeploymentSpecification, GitHubRevision, LocalRevision, Revision, S3Revision
from agent.worker.local import EventOrderError, EventOutcome, deploy_locally, local_deployment_id, plan_events

if TYPE_CHECKING:
    from agent.deployments import DeploymentDirectory
    from agent.worker.context import HostContext

_BAD_INPUT = 2
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_GITHUB_PAGE = re.compile(r"/([^/]+)/([^/]+?)(?:\.git)?/?")
_GITHUB_API = re.compile(r"/repos/([^/]+)/([^/]+)/(tarball|zipball)/(.+)")


@click.command("deploy")
@click.option(
    "-l",
    "--bundle-location",
    help="Path, s3://bucket/key or https://github.com/account/repository. Default: the working directory.",
)
@click.option(
    "-t",
    "--type",
    "type_name",
    type=click.Choice([kind.value for kind in BundleType]),
    help="Format of the bundle. Default: directory.",
)
@click.option(
    "-b",
    "--file-exists-behavior",
    type=click.Choice([item.value for item in FileExistsBehavior], case_sensitive=False),
    default="DISALLOW",
    show_default=True,
    help="What to do with files that no deployment has put there.",
)
@click.option(
    "-g",
    "--deployment-group",
    "group_id",
    default="default-local-deployment-group",
    show_default=True,
    help="Id of the deployment group; deployments of one group replace each other.",
)
@click.option(
    "-d",
    "--deployment-group-name",
    "group_name",
    default="LocalFleet",
    show_default=True,
    help="Name of the deployment group, for hooks.",
)
@click.option(
    "-a", "--application-name", help="Name of the application, for hooks. Default: the bundle location."
)
@click.option(
    "-e",
    "--events",
    help="Comma-separated events to run, in this order. Default: all of an in-place deployment.",
)
@click.option(
    "-A", "--appspec-filename", help="Name of the AppSpec file. Default: appspec.yml or appspec.yaml."
)
@click.option(
    "-c",
    "--agent-configuration-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_CONFIGURATION,
    show_default=True,
    help="Settings of the agent.",
)
def command(
    *,
    bundle_location: str | None,
    type_name: str | None,
    file_exists_behavior: str,
    group_id: str,
    group_name: str,
    application_name: str | None,
    events: str | None,
    appspec_filename: str | None,
    agent_configuration_file: Path,
) -> None:
    """Deploy a revision on this host, with the same code that carries out deployments of the service.

    Nothing is asked of a control endpoint. Deployments of one group clean up after each other.

    Exit codes: 0 deployed, 1 the deployment failed, 2 bad input.

    \b
    Examples:
      agentctl deploy
      agentctl deploy --bundle-location app.tgz --type tgz
      agentctl deploy -l s3://bucket/app.zip -t zip --events ApplicationStop,DownloadBundle,Install
    """  # noqa: D301 - click takes \b for: keep these lines
    try:
        location = bundle_location or os.getcwd()
        kind = BundleType(type_name or ("directory" if bundle_location is None else _guess_type(location)))
        planned = plan_events(_event_names(events) if events else None)
        if not _ID.fullmatch(group_id):
            raise click.BadParameter(
                f"{group_id} is no id: letters, digits, '.', '_' and '-'", param_hint="--deployment-group"
            )
        specification = DeploymentSpecification(
            deployment_id=local_deployment_id(),
            deployment_group_id=group_id,
            deployment_group_name=group_name,
            application_name=application_name or location,
            revision=parse_location(location, kind),
            appspec_filename=appspec_filename,
            file_exists_behavior=FileExistsBehavior[file_exists_behavior.upper()],
        )
        settings = settings_of(agent_configuration_file)
        # Who this host is matters to hooks, and to S3. A bundle on this host can do without.
        must_know = isinstance(specification.revision, S3Revision)
        is_known = must_know or os.access(settings.on_premises_config_file, os.R_OK)
        host = context_of(settings, identity_of(settings) if is_known else None)
    except (EventOrderError, ConfigurationError, click.BadParameter) as error:
        click.echo(f"agentctl: {error}", err=True)
        sys.exit(_BAD_INPUT)
    sys.exit(0 if _deploy(specification, planned, host) else 1)


def _event_names(events: str) -> list[str]:
    names = [name.strip() for name in events.split(",")]
    if "" in names:
        raise click.BadParameter(f"--events {events} has an empty name in it", param_hint="--events")
    return names


def parse_location(location: str, kind: BundleType) -> Revision:
    """The revision at this location.

    Raises:
        click.BadParameter: there is none, or its type does not fit.
    """
    if location.startswith("s3://"):
        return _s3_revision(location, kind)
    if location.startswith(("https://github.com/", "https://api.github.com/")):
        return _github_revision(location, kind)
    if "://" in location:
        raise _bad(f"{location} is neither a path nor s3:// nor https://github.com/")
    path = Path(location).absolute()
    if not path.exists():
        raise _bad(f"there is nothing at {path}")
    if path.is_dir() != (kind is BundleType.DIRECTORY):
        what = "a directory" if path.is_dir() else "a file"
        raise _bad(f"{path} is {what}, which does not fit --type {kind.value}")
    return LocalRevision(location=path, bundle_type=kind)


def _guess_type(location: str) -> str:
    """What the name says, where the user does not."""
    name = urlsplit(location).path if "://" in location else location
    for suffix, kind in ((".tar.gz", "tgz"), (".tgz", "tgz"), (".tar", "tar"), (".zip", "zip")):
        if name.lower().endswith(suffix):
            return kind
    return "tar" if "github.com/" in location else "directory"


def _s3_revision(location: str, kind: BundleType) -> S3Revision:
    parts = urlsplit(location)
    key = unquote(parts.path.lstrip("/"))
    if not parts.netloc or not key or kind is BundleType.DIRECTORY:
        raise _bad(f"{location} must be s3://bucket/key, with --type tar, tgz or zip")
    query = parse_qs(parts.query)
    return S3Revision(
        bucket=parts.netloc,
        key=key,
        bundle_type=kind,
        version=query.get("versionId", [None])[0],
        etag=query.get("etag", [None])[0],
    )


def _github_revision(location: str, kind: BundleType) -> GitHubRevision:
    parts = urlsplit(location)
    if kind not in (BundleType.TAR, BundleType.ZIP):
        raise _bad(f"GitHub makes tar and zip, not {kind.value}; say so with --type")
    api = _GITHUB_API.fullmatch(parts.path)
    if api:
        return GitHubRevision(account=api[1], repository=api[2], commit_id=api[4], bundle_type=kind)
    page = _GITHUB_PAGE.fullmatch(parts.path)
    if page:
        return GitHubRevision(account=page[1], repository=page[2], commit_id="HEAD", bundle_type=kind)
    raise _bad(f"{location} must be https://github.com/account/repository")


def _bad(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="--bundle-location")


def _deploy(specification: DeploymentSpecification, events: tuple[str, ...], host: HostContext) -> bool:
    """Run it and say how it goes; True when every event has succeeded."""
    level = Level.DEBUG if host.settings.verbose else Level.WARNING
    command_log.configure(stderr_log(level))
    directory = host.root.deployment(specification.deployment_group_id, specification.deployment_id)
    click.echo(f"Deploying {specification.application_name} as {specification.deployment_id}")
    for outcome in deploy_locally(specification, events, host):
        _show(outcome)
        if not outcome.has_succeeded:
            click.echo(f"\nThe deployment failed at {outcome.event}: {outcome.result.message}")
            click.echo(_where_to_look(directory))
            return False
    click.echo(f"\nDeployed. {_where_to_look(directory)}")
    return True


def _where_to_look(directory: DeploymentDirectory) -> str:
    printed = f"; what hooks printed is in {directory.scripts_log}" if directory.scripts_log.exists() else ""
    return f"Its AppSpec and files are in {directory.path}{printed}"


def _show(outcome: EventOutcome) -> None:
    status = outcome.result.status.value
    click.echo(f"  {outcome.event:<18} {status:<9} {outcome.duration_s:7.2f} s")

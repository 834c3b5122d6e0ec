"""`agentctl deploy`: a deployment on this host, without a control endpoint."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from agent.appspec import read_appspec
from agent.cli.completion import offer_events, offer_files
from agent.cli.configured_host import check_owner, settings_of
from agent.cli.edge import refusal
from agent.cli.local_revision import (
    appspec_option,
    checked_group_id,
    configuration_option,
    file_exists_option,
    group_option,
    host_for,
    revision_at,
    type_option,
    working_directory,
)
from agent.cli.plan_text import plan_lines
from agent.cli.recover import holder_in_words
from agent.cli.terminal_text import readable
from agent.deployments import JobStore
from agent.deployments.group import group_lock_file
from agent.errors import CommandFailure
from agent.files import lock_holder
from agent.install import BlockedInstall, InstallConflicts, preview_install
from agent.logs import Level, LogSink, command_log, stderr_log
from agent.protocol import FileExistsBehavior
from agent.specification import DeploymentSpecification
from agent.worker.local import (
    IGNORABLE,
    EventOrderError,
    EventOutcome,
    deploy_locally,
    local_deployment_id,
    plan_events,
)
from agent.worker.runs.install import install_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.deployments import DeploymentDirectory
    from agent.worker.context import HostContext

_BAD_INPUT = 2
_NOTHING_RUN = "This was found before the first event: nothing has been run."
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command("deploy")
@click.option(
    "-l",
    "--bundle-location",
    shell_complete=offer_files,
    help="Path, s3://bucket/key or https://github.com/account/repository. Default: the working directory.",
)
@type_option
@file_exists_option
@group_option
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
    shell_complete=offer_events,
    help="Comma-separated events to run, in this order. Default: all of an in-place deployment.",
)
@click.option(
    "--ignore-application-stop-failures",
    "ignores_stop_failures",
    is_flag=True,
    help="Go on when ApplicationStop, or a traffic event before it, fails.",
)
@appspec_option
@configuration_option
def command(
    *,
    bundle_location: str | None,
    type_name: str | None,
    file_exists_behavior: str,
    group_id: str,
    group_name: str,
    application_name: str | None,
    events: str | None,
    ignores_stop_failures: bool,
    appspec_filename: str | None,
    agent_configuration_file: Path,
) -> None:
    """Deploy a revision on this host, with the same code that carries out deployments of the service.

    Nothing is asked of a control endpoint. Deployments of one group clean up after each other. The revision is fetched
    and looked at before the first event: where one is sure to fail, none is run.

    Ctrl-C, SIGTERM and a terminal that goes away break it off: a script that runs is ended with all that it has
    started, and an Install is undone. Under nohup it goes on without the terminal.

    Exit codes: 0 deployed, 1 the deployment failed, 2 bad input, 128 and more: ended by that signal.

    \b
    Examples:
      agentctl deploy
      agentctl deploy --bundle-location app.tgz --type tgz
      agentctl deploy -l s3://bucket/app.zip -t zip --events ApplicationStop,DownloadBundle,Install
    """  # noqa: D301 - click takes \b for: keep these lines
    try:
        planned = plan_events(_event_names(events) if events else None)
        specification = DeploymentSpecification(
            deployment_id=local_deployment_id(),
            deployment_group_id=checked_group_id(group_id),
            deployment_group_name=group_name,
            application_name=application_name or bundle_location or working_directory(),
            revision=revision_at(bundle_location, type_name),
            appspec_filename=appspec_filename,
            file_exists_behavior=FileExistsBehavior[file_exists_behavior.upper()],
        )
        settings = settings_of(agent_configuration_file)
        check_owner(settings, agent_configuration_file)
        host = host_for(specification.revision, settings)
    except (EventOrderError, click.BadParameter) as error:
        click.echo(f"agentctl: {readable(str(error))}", err=True)
        sys.exit(_BAD_INPUT)
    except PermissionError as error:
        click.echo(f"agentctl: {readable(refusal(error))}", err=True)
        sys.exit(_BAD_INPUT)
    _end_when_told()
    sys.exit(0 if _deploy(specification, planned, host, ignores_stop_failures=ignores_stop_failures) else 1)


def _end_when_told() -> None:
    """Ctrl-C, SIGTERM, and SIGHUP when the terminal goes, break the deployment off."""
    for number in _ENDING:
        # Under nohup the terminal may go.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _frame: object) -> NoReturn:
    for other in _ENDING:
        # A second one would break off the ending of the script.
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def _event_names(events: str) -> list[str]:
    names = [name.strip() for name in events.split(",")]
    if "" in names:
        raise click.BadParameter(f"--events {events} has an empty name in it", param_hint="--events")
    return names


def _deploy(
    specification: DeploymentSpecification,
    events: tuple[str, ...],
    host: HostContext,
    *,
    ignores_stop_failures: bool,
) -> bool:
    """Run it and say how it goes; True when every event has succeeded, or failed and was to be ignored."""
    level = Level.DEBUG if host.settings.verbose else Level.WARNING
    sys.stderr.flush()
    command_log.configure(_DeployLog(None, level=level))
    directory = host.root.deployment(specification.deployment_group_id, specification.deployment_id)
    click.echo(f"Deploying {specification.application_name} as {specification.deployment_id}")
    _say_whom_it_waits_for(specification, host)
    outcomes = deploy_locally(
        specification, events, host, on_doubt=_say_doubt, ignores_stop_failures=ignores_stop_failures
    )
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            if outcome.has_run:
                _show(outcome)
            if outcome.is_ignored:
                click.echo(f"    ignored: {readable(outcome.result.message)}")
            elif not outcome.has_succeeded:
                _say_failed(outcome, specification, host)
                click.echo(_where_to_look(directory) if outcome.has_run else _NOTHING_RUN)
                return False
    click.echo(f"\nDeployed. {_where_to_look(directory)}")
    return True


def _say_whom_it_waits_for(specification: DeploymentSpecification, host: HostContext) -> None:
    """Whoever works on the group may take an hour for it; an Install of another process is not joined."""
    group_id = specification.deployment_group_id
    # Only said if that is possible: what is wrong with the directory is for the deployment itself to say.
    with contextlib.suppress(OSError):
        holder = lock_holder(group_lock_file(host.root.group(group_id)))
        if holder is not None:
            who = holder_in_words(holder, JobStore(host.settings.state_directory))
            _say_doubt(
                f"{who} works on deployment group {group_id}; this deployment begins when that has ended"
            )


def _say_doubt(doubt: str) -> None:
    click.echo(f"agentctl: {readable(doubt)}", err=True)


def _say_failed(outcome: EventOutcome, specification: DeploymentSpecification, host: HostContext) -> None:
    click.echo(f"\nThe deployment failed at {outcome.event}:", nl=False)
    for line in _reason(outcome, specification, host):
        click.echo(line)
    if outcome.has_run and outcome.event in IGNORABLE:
        click.echo(
            "To deploy all the same: --ignore-application-stop-failures, or --events without "
            f"{outcome.event}."
        )


class _DeployLog(LogSink):
    """Standard error, without the conflicts of an Install: they are part of the answer, one a line."""

    def write(self, line: str, level: Level) -> None:
        # Time, level, event, facts.
        if line.split(maxsplit=3)[2:3] != ["install_conflicts"]:
            super().write(line, level)


def _reason(
    outcome: EventOutcome, specification: DeploymentSpecification, host: HostContext
) -> Iterator[str]:
    """Why this event failed, line by line; the first one goes on the line that says so, if there is but one."""
    is_blocked = outcome.has_run and isinstance(outcome.failure, InstallConflicts)
    blocked = _blocked(specification, host) if is_blocked else outcome.blocked
    if blocked is None:
        yield f" {readable(outcome.result.message)}"
    else:
        yield ""
        yield from plan_lines(blocked, ())


def _blocked(specification: DeploymentSpecification, host: HostContext) -> BlockedInstall | None:
    """All that is in the way of this Install, and not only what fits into a report; None when that has just gone."""
    # Whatever there is to warn of has been said by the Install itself.
    command_log.configure(stderr_log(Level.ERROR))
    archive = host.root.deployment(specification.deployment_group_id, specification.deployment_id).archive
    try:
        appspec = read_appspec(archive, specification.appspec_filename)
        answer = preview_install(install_request(appspec, archive, specification, host))
    except (CommandFailure, OSError):
        return None
    return answer if isinstance(answer, BlockedInstall) else None


def _where_to_look(directory: DeploymentDirectory) -> str:
    what = "Its AppSpec and files are" if directory.archive.is_dir() else "What is left of it is"
    printed = f"; what hooks printed is in {directory.scripts_log}" if directory.scripts_log.exists() else ""
    return f"{what} in {directory.path}{printed}"


def _show(outcome: EventOutcome) -> None:
    status = outcome.result.status.value
    click.echo(f"  {outcome.event:<18} {status:<9} {outcome.duration_s:7.2f} s")

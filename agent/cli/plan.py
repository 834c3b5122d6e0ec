"""`agentctl plan`: what Install of a revision would do on this host."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from agent.appspec import read_appspec, require_effect
from agent.bundle.replacement import remove_tree
from agent.cli.completion import offer_files
from agent.cli.configured_host import settings_of
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
from agent.cli.options import json_option
from agent.cli.plan_document import failure_document, plan_document
from agent.cli.plan_text import plan_lines
from agent.cli.recover import worker_on_group
from agent.cli.running import exit_impossible
from agent.cli.terminal_text import readable, shell_word
from agent.deployments import JobStore
from agent.deployments.group import check_group_id
from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure, IdentityError
from agent.install import Preview, plans_for_other_user, preview_install
from agent.logs import Level, command_log, stderr_log
from agent.protocol import DOWNLOAD_BUNDLE, FileExistsBehavior
from agent.specification import DeploymentSpecification
from agent.worker.local import local_deployment_id
from agent.worker.local_checks import naming_the_bundle
from agent.worker.runs import choose_run
from agent.worker.runs.install import install_request, refuse_unconfined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.appspec import AppSpec
    from agent.deployments import DeploymentDirectory
    from agent.install import BlockedInstall
    from agent.worker.context import HostContext

_POSSIBLE, _IMPOSSIBLE, _BAD_INPUT = 0, 1, 2
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """An answer, with what should be known beside it."""

    answer: Preview | BlockedInstall
    notes: tuple[str, ...]


@click.command("plan")
@click.argument("bundle", required=False, shell_complete=offer_files)
@type_option
@file_exists_option
@group_option
@appspec_option
@configuration_option
@json_option
def command(
    *,
    bundle: str | None,
    type_name: str | None,
    file_exists_behavior: str,
    group_id: str,
    appspec_filename: str | None,
    agent_configuration_file: Path,
    as_json: bool,
) -> None:
    """Say what Install of this revision would do on this host, path by path, and change nothing.

    BUNDLE is a path, s3://bucket/key or https://github.com/account/repository; without it, the working directory. It
    is unpacked into a directory of its own below TMPDIR, which is removed again. Hooks are not run: what they
    would change is not in the plan. All that stands in the way of the Install is listed at once.

    Works without root, where the files may be read; owners inside the bundle are then not compared.

    Exit codes: 0 Install is possible, 1 it is not (conflicts, a wrong AppSpec or bundle, an Install that is not
    finished), 2 bad input, 4 this user may not look at something.

    \b
    Examples:
      agentctl plan
      agentctl plan app.tgz --deployment-group 6c1e2f4a-0000-0000-0000-000000000000
      agentctl plan s3://bucket/app.zip --json
    """  # noqa: D301 - click takes \b for: keep these lines
    try:
        specification = DeploymentSpecification(
            deployment_id=local_deployment_id(),
            deployment_group_id=checked_group_id(group_id),
            deployment_group_name=group_id,
            application_name=bundle or working_directory(),
            revision=revision_at(bundle, type_name),
            appspec_filename=appspec_filename,
            file_exists_behavior=FileExistsBehavior[file_exists_behavior.upper()],
        )
        host = host_for(specification.revision, settings_of(agent_configuration_file))
    except click.BadParameter as error:
        click.echo(f"agentctl: {readable(str(error))}", err=True)
        sys.exit(_BAD_INPUT)
    # What is to be said of conflicts is in the plan itself.
    command_log.configure(stderr_log(Level.DEBUG if host.settings.verbose else Level.ERROR))
    try:
        planned = _planned(specification, host)
    except (CommandFailure, IdentityError) as failure:
        _exit_failed(failure, specification, as_json=as_json)
    except OSError as error:
        exit_impossible(error)
    _exit_told(planned, specification, as_json=as_json)


def _planned(specification: DeploymentSpecification, host: HostContext) -> Planned:
    """Unpack, read and plan.

    Raises:
        CommandFailure: the revision can't be had or used, or an earlier Install is not finished.
        IdentityError: the bundle can't be had without credentials.
        OSError: this user may not look, or there is no place for the bundle.
    """
    group_id = specification.deployment_group_id
    check_group_id(group_id, tracking_name=host.settings.ongoing_deployment_tracking)
    _refuse_pending(group_id, host)
    with _directory_for_a_while() as scratch:
        elsewhere = replace(host, settings=replace(host.settings, root_dir=scratch))
        directory = elsewhere.root.deployment(group_id, specification.deployment_id)
        with _naming_the_bundle(directory, specification.application_name):
            choose_run(DOWNLOAD_BUNDLE, specification, elsewhere).carry_out()
            appspec = read_appspec(
                directory.archive,
                specification.appspec_filename,
                possible_events=specification.possible_events,
            )
            require_effect(appspec)
            refuse_unconfined(appspec, host.settings)
            answer = preview_install(install_request(appspec, directory.archive, specification, host))
    # One that has begun meanwhile may have changed what was looked at.
    _refuse_pending(group_id, host)
    return Planned(answer=answer, notes=tuple(_notes(answer, appspec, host)))


def _refuse_pending(group_id: str, host: HostContext) -> None:
    files = GroupFiles(directory=host.root.instructions, group_id=group_id)
    if not files.is_interrupted:
        return
    worker = worker_on_group(host.root.group(group_id), group_id, JobStore(host.settings.state_directory))
    if worker is not None:
        state = f"is at work ({worker}). Plan again when it has ended"
    elif files.committed_journal.exists():
        state = "was interrupted after it had taken effect, and will be completed first. Run agentctl recover, and plan again"
    else:
        state = "was interrupted, and will be undone first. Run agentctl recover, and plan again"
    raise CommandFailure(
        "plan-install-pending", f"There is no plan yet: an Install of deployment group {group_id} {state}."
    )


def _notes(answer: Preview | BlockedInstall, appspec: AppSpec, host: HostContext) -> Iterator[str]:
    yield from (f"AppSpec: {warning}" for warning in appspec.warnings)
    for mapping in appspec.files:
        if not mapping.destination.startswith("/"):
            yield f"AppSpec line {mapping.line}: the destination {mapping.destination} is taken as below the directory in which the agent runs"
    if plans_for_other_user(host.root.instructions):
        yield "planned as an ordinary user: owners that the bundle records are not compared"
    if isinstance(answer, Preview):
        for system in answer.file_systems:
            if system.is_too_small:
                yield f"there is hardly enough room on the file system of {shell_word(system.path)}"


def _exit_told(planned: Planned, specification: DeploymentSpecification, *, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps(plan_document(planned.answer, planned.notes, specification), indent=1))
    else:
        for line in plan_lines(planned.answer, planned.notes):
            click.echo(line)
    sys.exit(_POSSIBLE if isinstance(planned.answer, Preview) else _IMPOSSIBLE)


def _exit_failed(
    failure: CommandFailure | IdentityError, specification: DeploymentSpecification, *, as_json: bool
) -> NoReturn:
    """Say why there is no plan, in the words of `agentctl deploy`."""
    if as_json:
        click.echo(json.dumps(failure_document(failure, specification), indent=1))
    click.echo(f"agentctl: {readable(failure.message)} [{failure.error_id}]", err=True)
    sys.exit(_IMPOSSIBLE)


@contextlib.contextmanager
def _naming_the_bundle(directory: DeploymentDirectory, bundle: str) -> Iterator[None]:
    """Failures name what the user knows, and not the place where it was unpacked for a while."""
    try:
        yield
    except CommandFailure as failure:
        message = naming_the_bundle(failure.message, directory, bundle)
        raise CommandFailure(failure.error_id, message) from failure


@contextlib.contextmanager
def _directory_for_a_while() -> Iterator[Path]:
    """A directory that nobody else can enter, and that is gone afterwards, also when we are told to end."""
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    scratch = Path(tempfile.mkdtemp(prefix="agentctl-plan-"))
    try:
        yield scratch
    finally:
        # A second Ctrl-C must not leave half of it.
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        remove_tree(scratch)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)

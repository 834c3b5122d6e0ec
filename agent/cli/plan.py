"""`agentctl plan`: what Install of a revision would do on this host."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from agent.appspec import read_appspec
from agent.bundle.replacement import remove_tree
from agent.cli.host import settings_of
from agent.cli.local_revision import (
    appspec_option,
    checked_group_id,
    configuration_option,
    file_exists_option,
    group_option,
    host_for,
    revision_at,
    type_option,
)
from agent.cli.recover import worker_on_group
from agent.cli.running import exit_impossible
from agent.cli.terminal_text import readable, shell_word
from agent.deployments import JobStore
from agent.deployments.group import check_group_id
from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure, ConfigurationError, IdentityError
from agent.install import InstallOptions, InstallRequest
from agent.install.preview import (
    BlockedInstall,
    BlockedPath,
    Change,
    ChangeKind,
    FileSystem,
    ObjectKind,
    Preview,
    Rule,
    plans_for_other_user,
    preview_install,
)
from agent.logs import Level, command_log, stderr_log
from agent.protocol import DOWNLOAD_BUNDLE, FileExistsBehavior
from agent.specification import DeploymentSpecification
from agent.worker.local import local_deployment_id
from agent.worker.runs import choose_run
from agent.worker.runs.install import _refuse_unconfined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.appspec import AppSpec, Permission
    from agent.deployments import DeploymentDirectory
    from agent.worker.context import HostContext

_POSSIBLE, _IMPOSSIBLE, _BAD_INPUT = 0, 1, 2
_FORMAT = 1
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """An answer, with what should be known beside it."""

    answer: Preview | BlockedInstall
    notes: tuple[str, ...]


@click.command("plan")
@click.argument("bundle", required=False)
@type_option
@file_exists_option
@group_option
@appspec_option
@configuration_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
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
            application_name=bundle or os.getcwd(),
            revision=revision_at(bundle, type_name),
            appspec_filename=appspec_filename,
            file_exists_behavior=FileExistsBehavior[file_exists_behavior.upper()],
        )
        host = host_for(specification.revision, settings_of(agent_configuration_file))
    except (ConfigurationError, click.BadParameter) as error:
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
    if as_json:
        click.echo(json.dumps(_as_json(planned, specification), indent=1))
    else:
        for line in _as_text(planned):
            click.echo(line)
    sys.exit(_POSSIBLE if isinstance(planned.answer, Preview) else _IMPOSSIBLE)


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
            if host.settings.reject_unconfined_selinux_in_bundle:
                _refuse_unconfined(appspec)
            answer = preview_install(_request(appspec, directory.archive, specification, host))
    # One that has begun meanwhile may have changed what was looked at.
    _refuse_pending(group_id, host)
    return Planned(answer=answer, notes=tuple(_notes(answer, appspec, host)))


def _request(
    appspec: AppSpec, archive: Path, specification: DeploymentSpecification, host: HostContext
) -> InstallRequest:
    return InstallRequest(
        appspec=appspec,
        archive=archive,
        instructions_directory=host.root.instructions,
        group_id=specification.deployment_group_id,
        deployment_id=specification.deployment_id,
        file_exists_behavior=specification.known_file_exists_behavior,
        options=InstallOptions(
            follow_directory_symlinks=host.settings.follow_directory_symlinks,
            reject_symlink_permission_targets=host.settings.reject_symlink_permission_targets,
        ),
    )


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


@contextlib.contextmanager
def _naming_the_bundle(directory: DeploymentDirectory, bundle: str) -> Iterator[None]:
    """Failures name what the user knows, and not the place where it was unpacked for a while."""
    try:
        yield
    except CommandFailure as failure:
        message = failure.message.replace(f"{directory.archive}/", "")
        for path in (directory.archive, directory.bundle):
            message = message.replace(str(path), bundle)
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


# -- for people ----------------------------------------------------------------------------------------


def _as_text(planned: Planned) -> Iterator[str]:
    answer = planned.answer
    if isinstance(answer, Preview):
        yield from (_change_line(change) for change in answer.changes)
        yield from _summary_lines(answer)
    else:
        yield from _blocked_lines(answer)
    yield from (f"Note: {readable(note)}." for note in planned.notes)


def _change_line(change: Change) -> str:
    line = f"{change.kind.value:<8} {change.object.value:<9} {shell_word(change.path)}"
    facts = _permission_words(change.permission) if change.permission else []
    if change.kind in {ChangeKind.ADD, ChangeKind.REPLACE} and change.object is ObjectKind.FILE:
        facts.insert(0, f"{change.size_bytes} bytes")
    if change.note:
        facts.append(f"{change.note}, stays" if change.kind is ChangeKind.STAY else change.note)
    return f"{line}  ({'; '.join(facts)})" if facts else line


def _permission_words(permission: Permission) -> list[str]:
    words = []
    if permission.mode is not None:
        words.append(f"mode {permission.mode}")
    if permission.owner is not None:
        words.append(f"owner {permission.owner}")
    if permission.group is not None:
        words.append(f"group {permission.group}")
    if permission.acls:
        words.append(f"acl {','.join(map(str, permission.acls))}")
    if permission.context is not None:
        context = permission.context
        parts = (context.user, context.type, context.range)
        words.append(f"context {':'.join(part for part in parts if part is not None)}")
    return [readable(word) for word in words]


def _summary_lines(preview: Preview) -> Iterator[str]:
    counts = Counter(change.kind for change in preview.changes)
    listed = ", ".join(f"{kind.value} {counts[kind]}" for kind in ChangeKind)
    needed = sum(system.needed_bytes for system in preview.file_systems)
    yield f"Plan: {listed}; {needed} bytes to be written. Nothing was changed."
    for system in preview.file_systems:
        inodes = f" and {system.free_inodes} inodes" if system.free_inodes is not None else ""
        yield (
            f"Room: {system.needed_bytes} bytes and {system.needed_inodes} inodes needed, {system.free_bytes} bytes"
            f"{inodes} free on the file system of {shell_word(system.path)}"
        )


def _blocked_lines(blocked: BlockedInstall) -> Iterator[str]:
    if not blocked.paths:
        yield f"{readable(blocked.message)} [install-conflicts]"
        return
    now = time.time()
    yield from (_conflict_line(path, blocked.rule, now) for path in blocked.paths)
    paths = "1 path is" if len(blocked.paths) == 1 else f"{len(blocked.paths)} paths are"
    yield (
        f"Install is not possible: {paths} in the way. The rule for files that this deployment group did not install"
        f" is {blocked.rule.behavior.value}, set by {blocked.rule.set_by}. Remove or move them, or choose"
        " another file_exists_behavior. Nothing was changed. [install-conflicts]"
    )


def _conflict_line(blocked: BlockedPath, rule: Rule, now: float) -> str:
    changed = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(blocked.modified_at))
    facts = [
        blocked.reason,
        f"owner {blocked.owner}",
        f"last changed {changed} UTC, {_age(now - blocked.modified_at)} ago",
    ]
    if blocked.installed_by is not None:
        facts.append(f"installed by deployment group {readable(blocked.installed_by)}")
    facts.append(f"rule {rule.behavior.value}, set by {rule.set_by}")
    return f"conflict {shell_word(blocked.path)}  ({'; '.join(facts)})"


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


# -- for scripts: the shape is in docs/operations.md -------------------------------------------------------


def _as_json(planned: Planned, specification: DeploymentSpecification) -> dict[str, Any]:
    answer = planned.answer
    document = _empty_document(specification)
    document["notes"] = [readable(note) for note in planned.notes]
    document["rule"] = {
        "file_exists_behavior": answer.rule.behavior.value,
        "set_by": "appspec" if answer.rule.is_of_appspec else "deployment",
    }
    if isinstance(answer, Preview):
        counts = Counter(change.kind for change in answer.changes)
        document["possible"] = True
        document["summary"] = {
            **{kind.value: counts[kind] for kind in ChangeKind},
            "bytes_to_write": sum(system.needed_bytes for system in answer.file_systems),
        }
        document["changes"] = [_change_as_json(change) for change in answer.changes]
        document["file_systems"] = [_file_system_as_json(system) for system in answer.file_systems]
    else:
        document["error"] = {"id": "install-conflicts", "message": readable(answer.message)}
        document["conflicts"] = [_conflict_as_json(blocked) for blocked in answer.paths]
    return document


def _empty_document(specification: DeploymentSpecification) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "possible": False,
        "bundle": readable(specification.application_name),
        "deployment_group_id": specification.deployment_group_id,
        "error": None,
        "rule": None,
        "summary": None,
        "changes": [],
        "conflicts": [],
        "file_systems": [],
        "notes": [],
    }


def _name_as_json(member: str, name: bytes) -> dict[str, str]:
    """JSON has no bytes: names that are no UTF-8 are readable in one member, and exact in another."""
    try:
        return {member: name.decode()}
    except UnicodeDecodeError:
        return {
            member: name.decode(errors="replace"),
            f"{member}_base64": base64.b64encode(name).decode(),
        }


def _change_as_json(change: Change) -> dict[str, Any]:
    source = {"source": None} if change.source is None else _name_as_json("source", change.source)
    return {
        "action": change.kind.value,
        "type": change.object.value,
        **_name_as_json("path", change.path),
        **source,
        "bytes_to_write": change.size_bytes,
        "permissions": None if change.permission is None else _permission_as_json(change.permission),
        "note": change.note or None,
    }


def _permission_as_json(permission: Permission) -> dict[str, Any]:
    context = permission.context
    return {
        "mode": permission.mode,
        "owner": permission.owner,
        "group": permission.group,
        "acls": [str(entry) for entry in permission.acls],
        "context": None
        if context is None
        else {"user": context.user, "type": context.type, "range": context.range},
        "appspec_line": permission.line,
    }


def _conflict_as_json(blocked: BlockedPath) -> dict[str, Any]:
    return {
        **_name_as_json("path", blocked.path),
        "reason": blocked.reason,
        "owner": blocked.owner,
        "modified_at": round(blocked.modified_at, 3),
        "installed_by_group": None if blocked.installed_by is None else readable(blocked.installed_by),
    }


def _file_system_as_json(system: FileSystem) -> dict[str, Any]:
    return {
        **_name_as_json("path", system.path),
        "needed_bytes": system.needed_bytes,
        "needed_inodes": system.needed_inodes,
        "free_bytes": system.free_bytes,
        "free_inodes": system.free_inodes,
    }


def _exit_failed(
    failure: CommandFailure | IdentityError, specification: DeploymentSpecification, *, as_json: bool
) -> NoReturn:
    """Say why there is no plan, in the words of `agentctl deploy`."""
    if as_json:
        error = {"id": failure.error_id, "message": readable(failure.message)}
        click.echo(json.dumps({**_empty_document(specification), "error": error}, indent=1))
    click.echo(f"agentctl: {readable(failure.message)} [{failure.error_id}]", err=True)
    sys.exit(_IMPOSSIBLE)

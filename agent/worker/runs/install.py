"""Install: the files of the new revision instead of those of the last one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.appspec import read_appspec, require_effect
from agent.deployments.job_state import COMMIT, RUN, UNDO
from agent.errors import AppSpecMissing, CommandFailure
from agent.files import is_directory
from agent.install import InstallOptions, InstallRequest, Moment, install
from agent.logs import get_logger
from agent.protocol import INSTALL
from agent.worker.directories import keeping_in
from agent.worker.installed import point_at_installed
from agent.worker.results import succeeded_result
from agent.worker.runs.archives import archive_gone, without_appspec
from agent.worker.runs.group_revisions import GroupRevisions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.appspec import AppSpec
    from agent.deployments import CommandResult, DeploymentDirectory
    from agent.settings import Settings
    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext

log = get_logger()

# A disk that is read-only or out of descriptors may recover in this time; the command is reported after that.
_OVERLAP_PATIENCE_S = 30.0  # another group has made something that it may still take away again
_UNDO_PATIENCE_S = 15.0
_MOST_WARNINGS = 1900  # characters; see MAX_LOG_CHARACTERS of agent.lifecycle.diagnostics


class InstallRun:
    """Install of one deployment."""

    is_noop = False

    def __init__(self, specification: DeploymentSpecification, host: HostContext) -> None:
        self._specification = specification
        self._host = host

    def carry_out(self) -> CommandResult:
        """Install, and from then on this deployment is the group's last successful one.

        That it is as soon as the Install has taken effect, even if what is left to do then fails.
        """
        group_id, root = self._specification.deployment_group_id, self._host.root
        current = GroupRevisions(self._specification, self._host).current
        with keeping_in(current.path):
            if not is_directory(current.archive):
                raise archive_gone(INSTALL, current, self._specification, self._host)
        try:
            appspec = self._read_appspec(current)
        except AppSpecMissing as missing:
            raise without_appspec(INSTALL, missing, current, self._specification, self._host) from missing
        notes = warning_lines(appspec)
        with keeping_in(root.instructions):
            root.instructions.mkdir(parents=True, exist_ok=True)
        request = install_request(appspec, current.archive, self._specification, self._host)
        observer = _StepObserver(
            on_step=self._host.on_step,
            on_effect=lambda: point_at_installed(current.path.name, group_id, root),
        )
        try:
            summary = install(request, observer=observer)
        except CommandFailure as failure:
            failure.log = failure.log or notes
            raise
        log.info(
            "installed",
            created=summary.created,
            replaced=summary.replaced,
            unchanged=summary.unchanged,
            retained=summary.retained,
            removed=summary.removed,
            left_behind=summary.left_behind or None,
            copied_bytes=summary.copied_bytes,
        )
        return succeeded_result(log=notes)

    def _read_appspec(self, current: DeploymentDirectory) -> AppSpec:
        appspec = read_appspec(
            current.archive,
            self._specification.appspec_filename,
            possible_events=self._specification.possible_events,
        )
        for warning in appspec.warnings:
            log.warning("appspec_warning", path=appspec.path, problem=str(warning))
        require_effect(appspec)
        refuse_unconfined(appspec, self._host.settings)
        return appspec


def warning_lines(appspec: AppSpec) -> str:
    """What was ignored in the AppSpec, line by line, for the log of a report; empty when there is nothing to say."""
    lines = [f"Warning: {os.path.basename(appspec.path)}, {warning}\n" for warning in appspec.warnings]
    kept = 0
    room = _MOST_WARNINGS
    while kept < len(lines) and len(lines[kept]) <= room:
        room -= len(lines[kept])
        kept += 1
    more = len(lines) - kept
    # A report has room for the end of a log, and the first warnings are the ones to read.
    return "".join(lines[:kept]) + (f"{more} more warnings are in the agent's log.\n" if more else "")


def install_request(
    appspec: AppSpec, archive: Path, specification: DeploymentSpecification, host: HostContext
) -> InstallRequest:
    """What Install of the revision that is unpacked in `archive` is asked to do, as this host is configured."""
    settings = host.settings
    return InstallRequest(
        appspec=appspec,
        archive=archive,
        instructions_directory=host.root.instructions,
        group_id=specification.deployment_group_id,
        deployment_id=specification.deployment_id,
        file_exists_behavior=specification.known_file_exists_behavior,
        agent_directories=(settings.root_dir, settings.log_dir, settings.state_directory),
        options=InstallOptions(
            follow_directory_symlinks=settings.follow_directory_symlinks,
            reject_symlink_permission_targets=settings.reject_symlink_permission_targets,
            follow_links_of_others=settings.follow_links_of_others,
            processes=len(os.sched_getaffinity(0)),
            overlap_patience_s=_OVERLAP_PATIENCE_S,
            undo_patience_s=_UNDO_PATIENCE_S,
        ),
    )


def refuse_unconfined(appspec: AppSpec, settings: Settings) -> None:
    """Refuse labels that take SELinux's confinement away, where this host forbids them.

    Raises:
        CommandFailure: `selinux-unconfined-refused`; a permissions entry asks for one.
    """
    if not settings.reject_unconfined_selinux_in_bundle:
        return
    for permission in appspec.permissions:
        context = permission.context
        labels = {} if context is None else {"type": context.type, "user": context.user or ""}
        unconfined = [f"{kind} {label}" for kind, label in labels.items() if "unconfined" in label]
        if unconfined:
            raise CommandFailure(
                "selinux-unconfined-refused",
                f"The AppSpec file {appspec.path} (line {permission.line}) gives {permission.object} the unconfined "
                f"SELinux {' and '.join(unconfined)}, which reject_unconfined_selinux_in_bundle forbids on this host. "
                "Choose what fits the files, or change the setting.",
            )


class _StepObserver:
    """Says when Install is about to take effect, has done so, and when it is taken back.

    Whoever comes after a crash goes by that. What `on_effect` raises undoes nothing any more: the
    journal of the Install stays, and the next command of the group completes it.
    """

    def __init__(self, *, on_step: Callable[[str], None], on_effect: Callable[[], None]) -> None:
        self._on_step = on_step
        self._on_effect = on_effect
        self._step = RUN

    def __call__(self, moment: Moment, _path: bytes) -> None:
        if moment is Moment.COMMIT:
            self._note(COMMIT)
        elif moment is Moment.PUBLISH:
            self._on_effect()
        elif self._step == COMMIT and moment.is_undoing:
            self._note(UNDO)

    def _note(self, step: str) -> None:
        self._step = step
        self._on_step(step)

"""Lifecycle events: the hook scripts of the right revision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from agent.errors import AppSpecInvalid, AppSpecMissing
from agent.logs import get_logger
from agent.worker.directories import keeping_in
from agent.worker.results import succeeded_result
from agent.worker.runs.archives import (
    NoScripts,
    directory_of_scripts,
    no_earlier_scripts,
    without_appspec,
    without_earlier_appspec,
)
from agent.worker.runs.event_index import appspec_of, remembered_events
from agent.worker.runs.group_revisions import GroupRevisions, earlier_appspec_filename

if TYPE_CHECKING:
    from agent.appspec import AppSpec, HookScript
    from agent.deployments import CommandResult, DeploymentDirectory
    from agent.lifecycle import HookContext
    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Revision:
    """A revision whose scripts may run."""

    directory: DeploymentDirectory
    appspec: AppSpec


class EventRun:
    """One lifecycle event of one deployment."""

    def __init__(self, event: str, specification: DeploymentSpecification, host: HostContext) -> None:
        self._event = event
        self._specification = specification
        self._host = host
        self._note = ""

    @property
    def is_noop(self) -> bool:
        """There is no revision, or it has no script for this event."""
        return not self._scripts

    @property
    def is_mapped(self) -> bool:
        """Whether this is an event that the deployment knows, although the protocol does not."""
        events = self._specification.possible_events
        return bool(self._scripts) or (events is not None and self._event in events)

    def carry_out(self) -> CommandResult:
        """Run the scripts, one after the other; the first that fails fails the event."""
        # There from the first event on, as with the existing agents: retention goes by these directories.
        directory = self._revisions.current.path
        with keeping_in(directory):
            directory.mkdir(parents=True, exist_ok=True)
        if self._revision is None or not self._scripts:
            return succeeded_result(self._note)
        # Only an event with scripts pays for what runs them.
        from agent.lifecycle import run_event  # noqa: PLC0415

        event_log = run_event(self._scripts, self._hook_context(self._revision), self._host.is_cancelled)
        return succeeded_result(log=event_log.tail)

    @cached_property
    def _revision(self) -> _Revision | None:
        """The revision whose scripts run; None when it is known to have none for this event."""
        with keeping_in(self._host.root.path):
            directory = directory_of_scripts(self._event, self._specification, self._revisions, self._host)
        if isinstance(directory, NoScripts):
            if directory.note:
                self._nothing_left(directory.note)
            return None
        events = remembered_events(directory)
        if events is not None and self._event not in events:
            return None
        filename = self._appspec_filename(directory)
        try:
            return _Revision(directory=directory, appspec=self._appspec_of(directory, filename))
        except AppSpecMissing as missing:
            if directory == self._revisions.current:
                raise without_appspec(
                    self._event, missing, directory, self._specification, self._host
                ) from missing
            # An archive that was cleared out has no scripts to run; the new revision can still be deployed.
            self._nothing_left(
                no_earlier_scripts(self._event, without_earlier_appspec(directory, filename)).note
            )
            return None

    def _appspec_filename(self, directory: DeploymentDirectory) -> str | None:
        filename = self._specification.appspec_filename
        if directory == self._revisions.current:
            return filename
        with keeping_in(directory.path):
            return earlier_appspec_filename(directory, filename)

    def _appspec_of(self, directory: DeploymentDirectory, filename: str | None) -> AppSpec:
        """Of an earlier revision, no more than this event needs, if there is no other way.

        It may be another agent's, which took what this one refuses; and the new revision must be able to follow.
        """
        try:
            return appspec_of(directory, filename)
        except AppSpecInvalid as failure:
            if directory == self._revisions.current:
                raise
            appspec = appspec_of(directory, filename, only_event=self._event)
            log.warning("earlier_appspec_invalid", error=failure.message, error_id=failure.error_id)
            return appspec

    def _nothing_left(self, note: str) -> None:
        """Scripts that somebody may count on are gone; the new revision can still be deployed."""
        self._note = note
        log.warning("earlier_scripts_gone", consequence=note)

    @property
    def _scripts(self) -> tuple[HookScript, ...]:
        if self._revision is None:
            return ()
        return self._revision.appspec.hooks.get(self._event, ())

    @cached_property
    def _revisions(self) -> GroupRevisions:
        return GroupRevisions(self._specification, self._host)

    def _hook_context(self, revision: _Revision) -> HookContext:
        from agent.lifecycle import (  # noqa: PLC0415 - as above
            EnvironmentPolicy,
            HookContext,
            hook_environment,
        )

        settings = self._host.settings
        policy = EnvironmentPolicy(
            strips_loader=settings.strip_loader_env_in_hooks,
            only_basics=settings.restrict_hook_env_to_allowlist,
        )
        return HookContext(
            event=self._event,
            deployment_id=self._specification.deployment_id,
            archive=revision.directory.archive,
            scripts_of=revision.directory.path.name,
            environment=hook_environment(
                self._host.environment,
                self._specification,
                self._event,
                policy=policy,
                identity=self._host.hook_identity,
                additions={**settings.environment, **revision.appspec.environment},
            ),
            scripts_log=self._revisions.current.scripts_log,
            deployments_log=settings.deployments_log,
            fail_on_open_output=settings.fail_on_open_output,
            recorders=self._host.recorders,
            on_started=self._host.on_script_started,
            on_ended=self._host.on_script_ended,
        )

"""What is looked at before the first event of a local deployment: whatever is sure to fail must not stop the application first.

The revision is fetched into a directory of its own beside its place and looked at there; DownloadBundle
then only has to move it. What the scripts of earlier events may still put right is said, and not refused.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.appspec import read_appspec, require_effect
from agent.deployments.pointers import write_pointer
from agent.errors import CommandFailure, HostNotReady, IdentityError
from agent.install import InstallConflicts, blocked_install, check_install
from agent.lifecycle import find_account, find_script
from agent.protocol import DOWNLOAD_BUNDLE, IN_PLACE_ORDER, INSTALL
from agent.worker.directories import keeping_in
from agent.worker.results import succeeded_result
from agent.worker.runs import choose_run
from agent.worker.runs.download import DOWNLOADED, make_room
from agent.worker.runs.group_revisions import GroupRevisions
from agent.worker.runs.install import install_request, refuse_unconfined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from agent.appspec import AppSpec
    from agent.deployments import CommandResult, DeploymentDirectory
    from agent.install import BlockedInstall
    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext

_PREFIX = ".checked-"


class SureToFail(Exception):
    """An event of this deployment can't succeed; nothing has been run.

    Attributes:
        blocked: everything in the way of Install, where that is the reason.
    """

    def __init__(self, event: str, failure: CommandFailure, blocked: BlockedInstall | None = None) -> None:
        super().__init__(failure.message)
        self.event = event
        self.failure = failure
        self.blocked = blocked


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedRevision:
    """A revision that has been fetched and looked at, and waits for its DownloadBundle.

    Attributes:
        directory: where it lies.
        doubts: what will fail unless scripts of earlier events put it right, as sentences.
    """

    directory: DeploymentDirectory
    doubts: tuple[str, ...] = ()

    def carry_out(self, specification: DeploymentSpecification, host: HostContext) -> CommandResult:
        """DownloadBundle: afterwards the revision is in its place, and the group's most recent one.

        Raises:
            CommandFailure: it can't be moved there.
        """
        current = GroupRevisions(specification, host).current
        with keeping_in(current.path):
            current.path.mkdir(parents=True, exist_ok=True)
            # The archive last: whose scripts run depends on whether it is there.
            names = sorted(os.listdir(self.directory.path), key=lambda name: name == current.archive.name)
            for name in names:
                os.rename(self.directory.path / name, current.path / name)
            write_pointer(host.root.most_recent(specification.deployment_group_id), current)
        return succeeded_result(f"BundleSource={DOWNLOADED}")


@contextlib.contextmanager
def fetched_and_checked(
    specification: DeploymentSpecification, events: Sequence[str], host: HostContext
) -> Iterator[FetchedRevision]:
    """Within the block the revision is there, and none of these events is known to fail.

    Nobody else works on the group meanwhile, which is the caller's duty.

    Raises:
        SureToFail: one of them is.
    """
    group = host.root.group(specification.deployment_group_id)
    scratch = group / f"{_PREFIX}{specification.deployment_id}"
    _clear(group)
    try:
        earlier = _check_earlier(events, specification, host)
        elsewhere = replace(host, settings=replace(host.settings, root_dir=scratch))
        directory = GroupRevisions(specification, elsewhere).current
        try:
            _fetch(specification, host, elsewhere)
            checks = _Checks(specification, directory, host, has_earlier_scripts=earlier)
            doubts = checks.doubts(events)
        except SureToFail as sure:
            failure = sure.failure
            named = naming_the_bundle(failure.message, directory, specification.application_name)
            raise SureToFail(
                sure.event, CommandFailure(failure.error_id, named, code=failure.code), sure.blocked
            ) from sure
        doubts = tuple(
            naming_the_bundle(doubt, directory, specification.application_name) for doubt in doubts
        )
        yield FetchedRevision(directory=directory, doubts=doubts)
    finally:
        _clear(group)


def _clear(group: Path) -> None:
    """Remove what this deployment, or one that was killed, has fetched to look at."""
    with contextlib.suppress(OSError):
        for name in os.listdir(group):
            if name.startswith(_PREFIX):
                shutil.rmtree(group / name, ignore_errors=True)


def naming_the_bundle(message: str, directory: DeploymentDirectory, bundle: str) -> str:
    """The message with `bundle`, which the user knows, instead of the directory in which it was unpacked to be looked at."""
    message = message.replace(f"{directory.archive}/", "")
    for path in (directory.archive, directory.bundle, directory.path):
        message = message.replace(str(path), bundle)
    return message


def _check_earlier(events: Sequence[str], specification: DeploymentSpecification, host: HostContext) -> bool:
    """Whether scripts of an earlier revision run before the download; what they need is there.

    Raises:
        SureToFail: the AppSpec of that revision can't be used.
    """
    has_scripts = False
    for event in events[: events.index(DOWNLOAD_BUNDLE)]:
        with _blaming(event):
            has_scripts |= not choose_run(event, specification, host).is_noop
    return has_scripts


def _fetch(specification: DeploymentSpecification, host: HostContext, elsewhere: HostContext) -> None:
    with _blaming(DOWNLOAD_BUNDLE):
        with keeping_in(host.root.group(specification.deployment_group_id)):
            # Where there is just enough room for it once the oldest revisions have gone.
            make_room(specification, host)
        choose_run(DOWNLOAD_BUNDLE, specification, elsewhere).carry_out()


@contextlib.contextmanager
def _blaming(event: str) -> Iterator[None]:
    try:
        yield
    except CommandFailure as failure:
        raise SureToFail(event, failure) from failure
    except IdentityError as error:
        raise SureToFail(event, CommandFailure(error.error_id, error.message)) from error


class _Checks:
    """Looks at one revision; `has_earlier_scripts`: some of another revision run before its own."""

    def __init__(
        self,
        specification: DeploymentSpecification,
        directory: DeploymentDirectory,
        host: HostContext,
        *,
        has_earlier_scripts: bool,
    ) -> None:
        self._specification = specification
        self._archive = directory.archive
        self._host = host
        self._others_run = has_earlier_scripts
        self._own_run = False
        self._doubts: list[str] = []

    def doubts(self, events: Sequence[str]) -> tuple[str, ...]:
        """What is wrong and may be put right by the scripts of earlier events.

        Raises:
            SureToFail: something is wrong that nothing can put right.
        """
        with _blaming(INSTALL):
            appspec = read_appspec(self._archive, self._specification.appspec_filename)
            refuse_unconfined(appspec, self._host.settings)
        self._check_names(events, appspec)
        for event in events[events.index(DOWNLOAD_BUNDLE) + 1 :]:
            if event == INSTALL:
                self._check_install(appspec)
            else:
                self._check_scripts(event, appspec)
        return tuple(self._doubts)

    def _check_names(self, events: Sequence[str], appspec: AppSpec) -> None:
        for event in events:
            if event in IN_PLACE_ORDER or event in appspec.hooks:
                continue
            near = difflib.get_close_matches(event, [*IN_PLACE_ORDER, *appspec.hooks], n=1)
            hint = f"Did you mean {near[0]}?" if near else "Check the name."
            failure = CommandFailure(
                "command-unknown",
                f"There is no event {event}: it is none of the usual ones, and the AppSpec has no scripts for an event "
                f"of that name. {hint}",
            )
            raise SureToFail(event, failure)

    def _check_scripts(self, event: str, appspec: AppSpec) -> None:
        for script in appspec.hooks.get(event, ()):
            # A script may make another one of its revision, and any script a user.
            with self._blaming(event, may_change=self._own_run):
                find_script(script, self._archive)
            with self._blaming(event, may_change=self._own_run or self._others_run):
                find_account(script)
            self._own_run = True

    def _check_install(self, appspec: AppSpec) -> None:
        """Whatever is in the way now may be gone when earlier scripts have run, but not what the AppSpec itself says."""
        with _blaming(INSTALL):
            require_effect(appspec)
        request = install_request(appspec, self._archive, self._specification, self._host)
        may_change = self._own_run or self._others_run
        try:
            check_install(request)
        except InstallConflicts as failure:
            if may_change and not any(conflict.is_of_appspec for conflict in failure.conflicts):
                self._doubt(INSTALL, failure.message)
                return
            raise SureToFail(INSTALL, failure, blocked_install(failure)) from failure
        except CommandFailure as failure:
            # Users and groups are made by scripts of any revision, sources only by those of this one.
            may_help = may_change if isinstance(failure, HostNotReady) else self._own_run
            with self._blaming(INSTALL, may_change=may_help):
                raise

    @contextlib.contextmanager
    def _blaming(self, event: str, *, may_change: bool) -> Iterator[None]:
        try:
            yield
        except CommandFailure as failure:
            if not may_change:
                raise SureToFail(event, failure) from failure
            self._doubt(event, failure.message)

    def _doubt(self, event: str, message: str) -> None:
        self._doubts.append(f"{event} will fail unless a script that runs before it changes this: {message}")

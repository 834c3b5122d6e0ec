"""Where the scripts of an event lie: the deployment archives of a group, and what it means that one is not there."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.deployments import History
from agent.deployments.group_files import GroupFiles
from agent.deployments.pointers import named_by
from agent.errors import CommandFailure
from agent.files import is_directory, is_there
from agent.lifecycle import ScriptSource, choose_source
from agent.protocol import DOWNLOAD_BUNDLE, EARLY_EVENTS, INSTALL, LIFECYCLE_EVENTS, CommandStatus
from agent.worker.runs.event_index import has_remembered_events
from agent.worker.runs.group_revisions import GroupRevisions

if TYPE_CHECKING:
    from pathlib import Path

    from agent.deployments import DeploymentDirectory, HistoryEntry
    from agent.errors import AppSpecMissing
    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext


@dataclass(frozen=True, slots=True, kw_only=True)
class NoScripts:
    """There is no deployment whose scripts could run at this event.

    `note` says what that may mean; empty where it is as it should be, such as before the first deployment.
    """

    note: str = ""


def directory_of_scripts(
    event: str, specification: DeploymentSpecification, revisions: GroupRevisions, host: HostContext
) -> DeploymentDirectory | NoScripts:
    """The deployment directory whose scripts run at this event.

    An earlier deployment that is not there has nothing to run at the events before DownloadBundle. At all others
    somebody counts on the scripts, so an archive that has gone fails the event.

    Raises:
        CommandFailure: `deployment-archive-gone`; the archive has been removed, or was never fetched.
        OSError: it can't be told whether there is one.
    """
    source = choose_source(
        event,
        is_blue_green_rollback=specification.is_blue_green_rollback,
        has_current=is_directory(revisions.current.archive),
    )
    if source is ScriptSource.CURRENT:
        return _current(event, specification, revisions, host)
    is_last = source is ScriptSource.LAST_SUCCESSFUL
    earlier = revisions.last_successful if is_last else revisions.most_recent
    if earlier is not None and is_directory(earlier.archive):
        return earlier
    pointer = revisions.last_successful_file if is_last else revisions.most_recent_file
    named = named_by(pointer)
    if named is not None:
        return no_earlier_scripts(event, _what_is_lost(earlier, named, pointer, source))
    files = GroupFiles(directory=host.root.instructions, group_id=specification.deployment_group_id)
    record = next(filter(is_there, (files.instructions, files.cleanup)), None)
    if record is None:
        return NoScripts()
    lost = f"{pointer} is not there, although {record} tells of an Install of this group: it should name"
    return no_earlier_scripts(event, f"{lost} the group's {source.value} deployment")


def no_earlier_scripts(event: str, lost: str) -> NoScripts:
    """What it means for an event that the scripts of an earlier deployment, which it would run, can't be looked up.

    Args:
        event: name of the event.
        lost: what is not there, as part of a sentence that ends with the name of that deployment.

    Raises:
        CommandFailure: `deployment-archive-gone`; the event must not look as if they had run.
    """
    if event in EARLY_EVENTS:
        return NoScripts(note=f"no script has run, since {lost}, whose scripts {event} would run.")
    raise CommandFailure(
        "deployment-archive-gone",
        f"No script has run, since {lost}, whose scripts {event} runs in this rollback. Deploy the revision that is to "
        "take the traffic again.",
    )


def _what_is_lost(
    earlier: DeploymentDirectory | None, named: str, pointer: Path, source: ScriptSource
) -> str:
    role = f"the group's {source.value} deployment"
    if earlier is not None:
        return f"{earlier.archive} {_what_is_left(earlier.archive)}: the archive of {role}"
    if named.startswith("/") and "\0" not in named and not os.path.lexists(named):
        return f"{named} is gone: the directory of {role}"
    return f'{pointer} says "{named}", where no deployment of this group is: it should name {role}'


def _current(
    event: str, specification: DeploymentSpecification, revisions: GroupRevisions, host: HostContext
) -> DeploymentDirectory | NoScripts:
    if is_directory(revisions.current.archive):
        return revisions.current
    is_event = event in LIFECYCLE_EVENTS or event in (specification.possible_events or ())
    if is_event or _fetched(specification, host):
        raise archive_gone(event, revisions.current, specification, host)
    return NoScripts()


def without_appspec(
    event: str,
    missing: AppSpecMissing,
    current: DeploymentDirectory,
    specification: DeploymentSpecification,
    host: HostContext,
) -> CommandFailure:
    """The failure of an event whose archive has no AppSpec: as it came, or somebody has removed it since."""
    # Rare, and the daemon holds this module.
    from agent.appspec import appspec_names  # noqa: PLC0415
    from agent.archive_index import ArchiveIndex  # noqa: PLC0415

    index = ArchiveIndex(current.archive)
    names = appspec_names(specification.appspec_filename)
    was_unpacked = any(index.names(os.fsencode(current.archive / name.lstrip("/"))) for name in names)
    if was_unpacked or has_remembered_events(current):
        return archive_gone(event, current, specification, host)
    return missing


def without_earlier_appspec(earlier: DeploymentDirectory, filename: str | None) -> str:
    """The archive of an earlier deployment has no AppSpec, as `no_earlier_scripts` wants to be told."""
    from agent.appspec import appspec_names  # noqa: PLC0415 - as above

    names = " or ".join(appspec_names(filename))
    return f"there is no AppSpec file {names} in {earlier.archive}, the archive of an earlier deployment"


def archive_gone(
    event: str, current: DeploymentDirectory, specification: DeploymentSpecification, host: HostContext
) -> CommandFailure:
    """Why this event of this deployment can't know its scripts, since when, and what to do."""
    fetched = _fetched(specification, host)
    if not fetched and not _shows_that_it_was_fetched(current, specification, host):
        why = (
            f"The revision of deployment {specification.deployment_id} was never fetched on this host: no "
            f"DownloadBundle of it has succeeded here, and there is no {current.archive}."
        )
        advice = "Create the deployment again, so that the host gets all of its events, DownloadBundle first."
    else:
        left = _what_is_left(current.archive)
        if not _exists(current.path):
            left = "is gone, with the whole directory of the deployment"
        why = (
            f"The deployment archive of deployment {specification.deployment_id}, {current.archive}, "
            f"{left}. {_since_when(fetched, current)}"
        )
        advice = (
            "A script of the deployment, or a cleaner of temporary files, has removed or replaced it: have them leave "
            f"{current.path.parent} alone, which the agent tidies up itself (max_revisions), and deploy again."
        )
    what_follows = f"So nobody knows which scripts {event} has, and none has run."
    if event == INSTALL:
        what_follows = "So nothing has been installed."
    return CommandFailure("deployment-archive-gone", f"{why.rstrip()} {what_follows} {advice}")


def _shows_that_it_was_fetched(
    current: DeploymentDirectory, specification: DeploymentSpecification, host: HostContext
) -> bool:
    """Whether that can be seen without the history, of which old lines go."""
    revisions = GroupRevisions(specification, host)
    pointers = (revisions.last_successful_file, revisions.most_recent_file)
    return _exists(current.bundle_source) or str(current.path) in map(named_by, pointers)


def _fetched(specification: DeploymentSpecification, host: HostContext) -> list[HistoryEntry]:
    """What the history has of this deployment on this host, newest first; empty where it never got as far as an archive."""
    entries = [
        entry
        for entry in History(host.settings.state_directory).newest_first()
        if entry.deployment is not None
        and entry.deployment.deployment_id == specification.deployment_id
        and entry.deployment.deployment_group_id == specification.deployment_group_id
        and entry.command_name not in EARLY_EVENTS
        and entry.result.status is CommandStatus.SUCCEEDED
    ]
    return entries if any(entry.command_name == DOWNLOAD_BUNDLE for entry in entries) else []


def _since_when(fetched: list[HistoryEntry], current: DeploymentDirectory) -> str:
    known = ""
    if fetched:
        last = fetched[0]
        known = f"It was still there when {last.command_name} began, which ended at {_local_time(last.finished_at)}."
        if last.command_name == DOWNLOAD_BUNDLE:
            known = f"DownloadBundle had made it at {_local_time(last.finished_at)}."
    return " ".join(filter(None, (known, _last_change(current))))


def _what_is_left(archive: Path) -> str:
    if os.path.isdir(archive):
        return "has no AppSpec file any more"
    if os.path.islink(archive):
        return f"is a link to {os.readlink(archive)}, where there is no directory"
    return "is no directory any more" if _exists(archive) else "is gone"


def _last_change(directory: DeploymentDirectory) -> str:
    for changed in (directory.archive, directory.path):
        with contextlib.suppress(OSError):
            if changed.is_dir():
                return f"Names in {changed} last changed at {_local_time(changed.stat().st_mtime)}."
    return ""


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _local_time(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(moment))

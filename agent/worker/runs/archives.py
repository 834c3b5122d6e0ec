"""Where the scripts of an event lie: the deployment archives of a group, and what it means that one is not there."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.deployments import History
from agent.errors import CommandFailure
from agent.files import is_directory
from agent.lifecycle.choice import ScriptSource, choose_source
from agent.protocol import DOWNLOAD_BUNDLE, IN_PLACE_ORDER, LIFECYCLE_EVENTS, CommandStatus
from agent.worker.runs.event_index import has_remembered_events
from agent.worker.runs.revisions import appspec_filename

if TYPE_CHECKING:
    from pathlib import Path

    from agent.deployments import DeploymentDirectory, HistoryEntry
    from agent.errors import AppSpecMissing
    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext
    from agent.worker.runs.revisions import GroupRevisions

_EARLY_EVENTS = IN_PLACE_ORDER[: IN_PLACE_ORDER.index(DOWNLOAD_BUNDLE)]


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
    if earlier is None:
        return NoScripts()
    if is_directory(earlier.archive):
        return earlier
    if event not in _EARLY_EVENTS:
        raise _earlier_archive_gone(event, earlier, source)
    return NoScripts(
        note=f"no script has run, since {earlier.archive} is gone: the archive of the group's {source.value} "
        f"deployment, whose scripts {event} would run."
    )


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
    names = appspec_names(appspec_filename(current, specification.appspec_filename))
    was_unpacked = any(index.names(os.fsencode(current.archive / name.lstrip("/"))) for name in names)
    if was_unpacked or has_remembered_events(current):
        return archive_gone(event, current, specification, host)
    return missing


def archive_gone(
    event: str, current: DeploymentDirectory, specification: DeploymentSpecification, host: HostContext
) -> CommandFailure:
    """Why this event of this deployment can't know its scripts, since when, and what to do."""
    fetched = _fetched(specification, host)
    if not fetched and not _exists(current.bundle_source):
        why = (
            f"The revision of deployment {specification.deployment_id} was never fetched on this host: no "
            f"DownloadBundle of it has succeeded here, and there is no {current.archive}."
        )
        advice = "Create the deployment again, so that the host gets all of its events, DownloadBundle first."
    else:
        why = (
            f"The deployment archive of deployment {specification.deployment_id}, {current.archive}, "
            f"{_what_is_left(current)}. {_since_when(fetched, current)}"
        )
        advice = (
            "A script of the deployment, or a cleaner of temporary files, has removed it: have them leave "
            f"{current.path.parent} alone, which the agent tidies up itself (max_revisions), and deploy again."
        )
    return CommandFailure(
        "deployment-archive-gone",
        f"{why} So nobody knows which scripts {event} has, and none has run. {advice}",
    )


def _earlier_archive_gone(event: str, earlier: DeploymentDirectory, source: ScriptSource) -> CommandFailure:
    return CommandFailure(
        "deployment-archive-gone",
        f"In this rollback {event} runs the scripts of the group's {source.value} deployment, {earlier.path.name}, and "
        f"its deployment archive, {earlier.archive}, is gone. {_last_change(earlier)} So nobody knows which scripts "
        f"{event} has, and none has run. Deploy the revision that is to take the traffic again.",
    )


def _fetched(specification: DeploymentSpecification, host: HostContext) -> list[HistoryEntry]:
    """What the history has of this deployment on this host, newest first; empty where it never got as far as an archive."""
    entries = [
        entry
        for entry in History(host.settings.state_directory).newest_first()
        if entry.deployment is not None
        and entry.deployment.deployment_id == specification.deployment_id
        and entry.deployment.deployment_group_id == specification.deployment_group_id
        and entry.command_name not in _EARLY_EVENTS
        and entry.result.status is CommandStatus.SUCCEEDED
    ]
    return entries if any(entry.command_name == DOWNLOAD_BUNDLE for entry in entries) else []


def _since_when(fetched: list[HistoryEntry], current: DeploymentDirectory) -> str:
    known = ""
    if fetched:
        last = fetched[0]
        known = (
            f"It was still there when {last.command_name} began, which ended at {_told(last.finished_at)}."
        )
        if last.command_name == DOWNLOAD_BUNDLE:
            known = f"DownloadBundle had made it at {_told(last.finished_at)}."
    return " ".join(filter(None, (known, _last_change(current))))


def _what_is_left(current: DeploymentDirectory) -> str:
    if not _exists(current.path):
        return "is gone, with the whole directory of the deployment"
    return "has no AppSpec file any more" if _exists(current.archive) else "is gone"


def _last_change(directory: DeploymentDirectory) -> str:
    changed = directory.archive if _exists(directory.archive) else directory.path
    try:
        return f"Names in {changed} last changed at {_told(changed.stat().st_mtime)}."
    except OSError:
        return ""


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _told(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(moment))

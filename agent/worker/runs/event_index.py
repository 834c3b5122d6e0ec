"""Which events a revision has scripts for, remembered beside its archive.

Most events of most deployments have none, and knowing that without YAML makes such a command three
times as quick. What is remembered counts only while AppSpec file and archive are as they were.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from agent.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from agent.deployments import DeploymentDirectory

_NAME = ".appspec-events"


def remembered_events(directory: DeploymentDirectory) -> Collection[str] | None:
    """The events with scripts; None when that is not known, or not known any more."""
    try:
        remembered = json.loads((directory.path / _NAME).read_bytes())
        appspec = directory.archive / remembered["appspec"]
        if remembered["state"] == _state(directory.archive, appspec):
            return frozenset(remembered["events"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def has_remembered_events(directory: DeploymentDirectory) -> bool:
    """Whether the AppSpec of this deployment has been read here before, whatever has become of it."""
    return os.path.lexists(directory.path / _NAME)


def remember_events(directory: DeploymentDirectory, appspec: Path, events: Collection[str]) -> None:
    """Keep which events this AppSpec file, which has just been read, has scripts for; if that is possible."""
    remembered = {
        "appspec": str(appspec.relative_to(directory.archive)),
        "state": _state(directory.archive, appspec),
        "events": sorted(events),
    }
    with contextlib.suppress(OSError):
        replace_file(directory.path / _NAME, json.dumps(remembered).encode(), durable=False)


def _state(archive: Path, appspec: Path) -> list[int]:
    """Differs when the file was changed or replaced, and when one that would win over it was added."""
    file, top = os.stat(appspec), os.stat(archive)
    return [file.st_size, file.st_mtime_ns, file.st_ctime_ns, file.st_ino, top.st_mtime_ns]

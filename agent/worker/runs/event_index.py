"""What the AppSpec of a revision says, without reading it again for each event.

Which events have scripts is remembered beside the archive: most events of most deployments have none, and
knowing that without YAML makes such a command three times as quick. A worker that carries one event after the
other keeps the whole AppSpec. Both count only while AppSpec file and archive are as they were.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from agent.files import replace_file
from agent.listings import counts_seconds

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from agent.appspec import AppSpec
    from agent.deployments import DeploymentDirectory

_NAME = ".appspec-events"
# Longer than the steps in which any kernel counts the times of files: what is changed later looks changed.
_SETTLED_S = 0.1
_COARSE_S = 1.0  # the steps of some file systems


def appspec_of(
    directory: DeploymentDirectory, filename: str | None, *, only_event: str | None = None
) -> AppSpec:
    """The AppSpec of this deployment; which events it has scripts for is remembered, if that is possible.

    See `agent.appspec.read_appspec`, also for what it raises.
    """
    # Only an event that may have scripts pays for the parser.
    from agent.appspec import find_appspec  # noqa: PLC0415

    path = find_appspec(directory.archive, filename)
    state = _state(directory.archive, path)
    read = _read if _is_settled(state, time.time()) else _read.__wrapped__
    appspec = read(directory.archive, filename, state, only_event)
    if remembered_events(directory) is None:
        _remember(directory, path, state, appspec)
    return appspec


def remembered_events(directory: DeploymentDirectory) -> Collection[str] | None:
    """The events with scripts; None when that is not known, or not known any more."""
    try:
        remembered = json.loads((directory.path / _NAME).read_bytes())
        state = _state(directory.archive, directory.archive / remembered["appspec"])
        if tuple(remembered["state"]) == state and _is_settled(state, remembered["at"]):
            return frozenset(remembered["events"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def has_remembered_events(directory: DeploymentDirectory) -> bool:
    """Whether the AppSpec of this deployment has been read here before, whatever has become of it."""
    return os.path.lexists(directory.path / _NAME)


@lru_cache(maxsize=2)  # of the revision that stops, and of the one that starts
def _read(archive: Path, filename: str | None, _state: tuple[int, ...], only_event: str | None) -> AppSpec:
    from agent.appspec import read_appspec  # noqa: PLC0415 - as above

    return read_appspec(archive, filename, only_event=only_event)


def _remember(directory: DeploymentDirectory, path: Path, state: tuple[int, ...], appspec: AppSpec) -> None:
    # To remember is a kindness to later events; whatever may be odd about a path, this one can go on.
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        # Links on the way to the archive are followed in the path of the file.
        name = path.relative_to(directory.archive.resolve())
        remembered = {
            "appspec": str(name),
            "state": state,
            "at": time.time(),
            "events": sorted(appspec.hooks),
        }
        replace_file(directory.path / _NAME, json.dumps(remembered).encode(), durable=False)


def _state(archive: Path, appspec: Path) -> tuple[int, ...]:
    """Differs when the file was changed or replaced, and when one that would win over it was added."""
    file, top = os.stat(appspec), os.stat(archive)
    return file.st_ctime_ns, top.st_ctime_ns, file.st_mtime_ns, file.st_size, file.st_ino


def _is_settled(state: tuple[int, ...], at: float) -> bool:
    """Whether whatever is changed after this moment (seconds since the epoch) is bound to give another state."""
    step_s = _COARSE_S if any(map(counts_seconds, state[:2])) else 0.0
    return max(state[:2]) / 1e9 + step_s + _SETTLED_S < at

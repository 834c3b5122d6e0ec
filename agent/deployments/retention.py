"""Which deployment directories of a group are kept."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRevision:
    """A deployment directory as retention sees it."""

    path: Path
    modified_at: float


def choose_expired(
    revisions: Iterable[KeptRevision], *, max_revisions: int, protected: Collection[Path]
) -> list[Path]:
    """The directories that must go so that a new one makes `max_revisions` in all; oldest first.

    Protected ones count, but stay: the deployment at hand, and the last successful one, whose
    scripts stop the application.
    """
    others = sorted(
        (revision for revision in revisions if revision.path not in protected),
        key=lambda revision: revision.modified_at,
    )
    room = max(0, max_revisions - len(protected))
    return [revision.path for revision in others[: max(0, len(others) - room)]]


def remove_expired(group: Path, *, max_revisions: int, protected: Collection[Path]) -> list[Path]:
    """Afterwards the group has room for the deployment at hand; returns what was removed.

    Directories that can't be removed are left: they are tried again before the next download.
    """
    revisions = _revisions(group)
    present = {revision.path for revision in revisions}
    kept = {path for path in protected if path in present}
    # The deployment at hand counts although its directory may not exist yet.
    room = max_revisions - sum(path not in present for path in protected)
    expired = choose_expired(revisions, max_revisions=max(room, 0), protected=kept)
    for path in expired:
        shutil.rmtree(path, ignore_errors=True)
    return [path for path in expired if not os.path.lexists(path)]


def _revisions(group: Path) -> list[KeptRevision]:
    try:
        with os.scandir(group) as entries:
            directories = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    found = []
    for entry in directories:
        # One that goes meanwhile must not keep the others.
        with contextlib.suppress(FileNotFoundError):
            if _is_deployment(entry):
                modified_at = entry.stat(follow_symlinks=False).st_mtime
                found.append(KeptRevision(path=group / entry.name, modified_at=modified_at))
    return found


def _is_deployment(entry: os.DirEntry[str]) -> bool:
    """Whether this is a deployment's directory, and not something that somebody else keeps here."""
    return entry.name.startswith("d-") or os.path.isdir(os.path.join(entry.path, "deployment-archive"))

"""A directory that comes into being as a whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

from agent.bundle.failures import not_written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Fresh:
    """A directory being filled; `path` is what will take the place, and may be set to one within."""

    def __init__(self, path: Path) -> None:
        self.path = path


@contextlib.contextmanager
def replaced_directory(place: Path) -> Iterator[Fresh]:
    """Fill a new directory beside `place`, which takes its place at the end and is removed on failure.

    A half-filled one that a killed process left is removed, too.

    Raises:
        CommandFailure: `bundle-disk-full` or `archive-write-failed`, for any OSError within.
    """
    beside = place.with_name(f".{place.name}.new")
    fresh = Fresh(beside)
    try:
        try:
            remove_tree(beside)
            os.mkdir(beside, 0o700)
            # Not even with a setgid bit: it would hand its group to whatever has ours.
            os.chmod(beside, 0o700)
            yield fresh
            _take_place(fresh.path, place)
        finally:
            remove_tree(beside)
    except OSError as error:
        raise not_written(place, error) from error


def holds_appspec(directory: Path, appspec_names: Sequence[str]) -> bool:
    """Whether one of these paths, relative to the directory, is there."""
    return any(os.path.lexists(directory / name.lstrip("/")) for name in appspec_names)


def remove_tree(path: Path) -> None:
    """Afterwards nothing is at `path`, even if its directories don't let their owner in."""
    if not os.path.lexists(path):
        return
    if not path.is_dir() or path.is_symlink():
        path.unlink()
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        for directory, _, _ in os.walk(path):
            os.chmod(directory, stat.S_IRWXU)
            for entry in os.scandir(directory):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, stat.S_IRWXU)
        shutil.rmtree(path)


def _take_place(fresh: Path, place: Path) -> None:
    """The archive itself is the agent's, with the mode it always had, whatever the bundle says."""
    os.chown(fresh, os.geteuid(), os.getegid())
    os.chmod(fresh, 0o755)  # noqa: S103 - hooks run as other users, and read their scripts here
    remove_tree(place)
    os.rename(fresh, place)

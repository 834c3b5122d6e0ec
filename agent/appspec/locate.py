"""Where the AppSpec of a deployment archive lies."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from agent.appspec.document import MAX_BYTES
from agent.appspec.parse import parse_appspec
from agent.appspec.paths import leaves_archive
from agent.appspec.reading import quoted
from agent.errors import AppSpecInvalid, AppSpecMissing, CommandFailure, Problem
from agent.files import is_there

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from agent.appspec.model import AppSpec

DEFAULT_NAME = "appspec.yml"
_OTHER_DEFAULT_NAME = "appspec.yaml"
_MOST_NAMES = 10
# How far is looked for an AppSpec that is not where it should be: in levels, and in files and directories.
_MOST_LEVELS = 5
_MOST_LOOKED_AT = 10_000


def find_appspec(archive: Path, filename: str | None) -> Path:
    """Path of the AppSpec file, a regular file inside the archive.

    Args:
        archive: the unpacked revision.
        filename: AppSpecFilename of the deployment specification; a path below the archive. For
            appspec.yml and appspec.yaml, each also stands for the other one.

    Raises:
        CommandFailure: `appspec-missing`, `appspec-outside-archive`, or `appspec-unreadable`.
    """
    names = appspec_names(filename)
    for name in names:
        path = archive / name.lstrip("/")
        if leaves_archive(name):
            raise _outside(path, archive)
        try:
            is_absent = not is_there(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        if not is_absent:
            return _checked(path, archive)
    expected = archive / (filename or DEFAULT_NAME).lstrip("/")
    raise AppSpecMissing(_missing(archive, expected, names))


def read_appspec(
    archive: Path,
    filename: str | None,
    *,
    possible_events: Collection[str] | None = None,
    only_event: str | None = None,
) -> AppSpec:
    """The AppSpec of this archive. See find_appspec and parse_appspec, also for what they raise."""
    path = find_appspec(archive, filename)
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(text) > MAX_BYTES:
        raise AppSpecInvalid(str(path), [Problem(message=f"it is larger than {MAX_BYTES // 1024} KiB")])
    return parse_appspec(text, path=str(path), possible_events=possible_events, only_event=only_event)


def appspec_names(filename: str | None) -> tuple[str, ...]:
    """Paths below the archive that the AppSpec may have; the first that is there counts.

    Args:
        filename: as for find_appspec.
    """
    if filename is None:
        filename = DEFAULT_NAME
    if filename == DEFAULT_NAME:
        return (DEFAULT_NAME, _OTHER_DEFAULT_NAME)
    if filename == _OTHER_DEFAULT_NAME:
        return (_OTHER_DEFAULT_NAME, DEFAULT_NAME)
    return (filename,)


def _checked(path: Path, archive: Path) -> Path:
    """The path, if it is a regular file that also after following links lies in the archive."""
    try:
        real = path.resolve(strict=True)
        root = archive.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    if root not in real.parents:
        raise _outside(path, archive)
    if not stat.S_ISREG(mode):
        message = f"The AppSpec {path} is not a regular file. Put the AppSpec file there and deploy again."
        raise CommandFailure("appspec-unreadable", message)
    return real


def _outside(path: Path, archive: Path) -> CommandFailure:
    message = (
        f"The AppSpec file {path} lies outside the deployment archive {archive}, so it is not read."
        " Name a file inside the revision, without '..' and without a link that leads out of it."
    )
    return CommandFailure("appspec-outside-archive", message)


def _unreadable(path: Path, error: OSError | RuntimeError) -> CommandFailure:
    reason = (error.strerror if isinstance(error, OSError) else None) or "it is a loop of links"
    message = (
        f"The AppSpec file {path} can't be read: {reason}. Check the file in the revision and deploy again."
    )
    return CommandFailure("appspec-unreadable", message)


def _missing(archive: Path, expected: Path, names: tuple[str, ...]) -> str:
    tried = (
        "" if len(names) == 1 else f" (nor one named {names[-1] if names[-1] != expected.name else names[0]})"
    )
    looked = f"There is no AppSpec file at {expected}{tried}."
    try:
        top = sorted(os.listdir(archive))
    except FileNotFoundError:
        return f"{looked} The deployment archive itself is missing. Deploy again."
    except OSError as error:
        return f"{looked} The deployment archive itself can't be listed: {error.strerror or error}. Look at what is there."
    similar = _similar(archive)
    if similar:
        found = f" But there is {', '.join(quoted(name) for name in similar)}."
    elif top:
        more = f", and {len(top) - _MOST_NAMES} more" if len(top) > _MOST_NAMES else ""
        found = f" The archive holds {', '.join(quoted(name) for name in top[:_MOST_NAMES])}{more}."
    else:
        found = " The archive is empty."
    return looked + found + _advice(similar, names, is_empty=not top)


def _advice(similar: list[str], names: tuple[str, ...], *, is_empty: bool) -> str:
    if is_empty:
        return " Look at the step that packs the revision: it has packed nothing."
    wanted = {os.path.basename(name) for name in names}
    misspelt = next((name for name in similar if name.lower() in {each.lower() for each in names}), None)
    if misspelt is not None:
        return f" Upper and lower case count: call it {quoted(names[0])}."
    usual = next((name for name in similar if name in {DEFAULT_NAME, _OTHER_DEFAULT_NAME}), None)
    if usual is not None:
        # Another name was asked for: where one of these is asked for, it has been found.
        return (
            f" The deployment asks for {quoted(names[0])}: add that file to the revision, or create the deployment again"
            f" without an AppSpec file name, and {quoted(usual)} counts."
        )
    below = [name for name in similar if os.path.basename(name) in wanted and "/" in name]
    if not below:
        return " Put the AppSpec file at the root of the revision, or name its path in the deployment's AppSpec file name."
    directory = os.path.dirname(below[0])
    return (
        " Only one directory around the whole revision is taken away when a bundle is unpacked, and only where no other has"
        f" an AppSpec file, too. Pack the contents of {quoted(directory)} instead of the directories around them, or give"
        f" {quoted(below[0])} as the deployment's AppSpec file name, if the paths in it count from the root of the revision."
    )


def _similar(archive: Path) -> list[str]:
    """Names that look like an AppSpec, the nearest to the root first; no more than there are to show."""
    found: list[str] = []
    level = [""]
    looked_at = 0
    for _depth in range(_MOST_LEVELS):
        below: list[str] = []
        for directory in level:
            for entry in _entries(archive / directory):
                looked_at += 1
                if looked_at > _MOST_LOOKED_AT:
                    return found[:_MOST_NAMES]
                name = os.path.join(directory, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    below.append(name)
                elif _is_like_appspec(entry.name):
                    found.append(name)
        level = below
    return found[:_MOST_NAMES]


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _is_like_appspec(name: str) -> bool:
    return "appspec" in name.lower() and name.lower().endswith((".yml", ".yaml", ".json"))

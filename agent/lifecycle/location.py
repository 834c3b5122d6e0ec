"""`location:` of a hook script → the file in the deployment archive, fit to be run."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.lifecycle.script_failures import ScriptMissing
from agent.protocol import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.appspec import HookScript
    from agent.lifecycle.accounts import Account

# Opening the first of these would wait for ever. Directories are told of when they are started.
_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_MAX_SEARCHED = 5000  # files of an archive that are looked through for similar names


def find_script(script: HookScript, archive: Path, *, is_earlier: bool = False) -> Path:
    """The script's file; it exists, and lies in the archive even after following symlinks.

    Args:
        script: its location is relative to the archive, also with a slash before it.
        archive: the deployment archive, an absolute path.
        is_earlier: it is not that of the revision that is being deployed, which nobody can change any more.

    Raises:
        CommandFailure: there is no such file, it lies elsewhere, or it is nothing that could be run.
    """
    relative = os.path.normpath(script.location.lstrip("/"))
    if relative.split("/")[0] == "..":
        raise _outside(script, f"it leads out of the deployment archive {archive}")
    path = archive / relative
    if not os.path.lexists(path):
        if _was_unpacked(path, archive):
            raise _removed(script, path, is_earlier=is_earlier)
        raise _missing(script, path, _similar_names(script.location, archive), is_earlier=is_earlier)
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(archive)):
        raise _outside(
            script, f"it is, or lies behind, a symlink to {target}, outside the deployment archive {archive}"
        )
    if not target.exists():
        raise _missing(
            script, path, f"it is a symlink to {target}, which does not exist", is_earlier=is_earlier
        )
    if kind := _SPECIAL.get(stat.S_IFMT(target.stat().st_mode)):
        raise CommandFailure(
            "hook-script-not-a-file",
            f"Script at specified location: {script.location} can't be started: {path} is {kind}. "
            f"Put a file in its place, or correct the location in line {script.line} of the AppSpec file.",
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    return path


def make_executable(path: Path, script: HookScript, account: Account | None) -> None:
    """Afterwards the file may be executed by whoever is to run it, and by everybody if it could not be before.

    Raises:
        CommandFailure: the mode can't be changed.
    """
    facts = os.stat(path)
    if stat.S_ISDIR(facts.st_mode) or _may(facts, account, stat.S_IXOTH):
        return
    try:
        os.chmod(path, stat.S_IMODE(facts.st_mode) | 0o111)  # noqa: S103 - scripts are there to be executed
    except OSError as error:
        raise CommandFailure(
            "hook-script-not-executable",
            f"Script at specified location: {script.location} is not executable, and making {path} so failed: "
            f"{error.strerror}. Give it the executable bit in the revision, or repair the file system.",
            code=ErrorCode.SCRIPT_NOT_EXECUTABLE,
            script_name=script.location,
        ) from error


def may_read(path: Path, account: Account | None) -> bool:
    """Whether the mode of the file lets whoever runs it read it, too, as an interpreter has to."""
    try:
        return _may(os.stat(path), account, stat.S_IROTH)
    except OSError:  # scripts may remove themselves
        return True


def may_execute(path: Path, account: Account | None) -> bool:
    """Whether the mode of the file lets this user execute it; True where there is no file."""
    try:
        return _may(os.stat(path), account, stat.S_IXOTH)
    except OSError:
        return True


def _may(facts: os.stat_result, account: Account | None, bit: int) -> bool:
    """Whether the mode grants this; `bit` as it is written for others."""
    uid = account.uid if account else os.geteuid()
    groups = account.groups if account else (os.getegid(), *os.getgroups())
    if uid == 0:
        return bit != stat.S_IXOTH or bool(facts.st_mode & 0o111)
    if uid == facts.st_uid:
        return bool(facts.st_mode & bit << 6)
    if facts.st_gid in groups:
        return bool(facts.st_mode & bit << 3)
    return bool(facts.st_mode & bit)


def _missing(script: HookScript, path: Path, why: str, *, is_earlier: bool) -> CommandFailure:
    place = f"line {script.line} of the AppSpec file"
    advice = (
        f"It is named in {place} of that earlier revision."
        if is_earlier
        else f"Correct the location in {place}, or add the script to the revision."
    )
    return ScriptMissing(
        f"Script does not exist at specified location: {path}: {why}. {_absolute(script)}{advice}",
        script_name=script.location,
    )


def _was_unpacked(path: Path, archive: Path) -> bool:
    """Whether the revision had such a file when it was unpacked here."""
    from agent.archive_index import ArchiveIndex  # noqa: PLC0415 - as in _similar_names

    return ArchiveIndex(archive).names(os.fsencode(path))


def _removed(script: HookScript, path: Path, *, is_earlier: bool) -> CommandFailure:
    then = "" if is_earlier else ", and deploy again"
    return ScriptMissing(
        f"Script does not exist at specified location: {path}, although the revision has it: it was there when "
        "DownloadBundle had unpacked it, and has been removed or renamed since, by a script of the deployment or a cleaner "
        f"of temporary files. Have them leave {path.parent} alone{then}.",
        script_name=script.location,
    )


def _absolute(script: HookScript) -> str:
    """What a leading slash means, where there is one."""
    if not script.location.startswith("/"):
        return ""
    exists = (
        " That of the host is there, but only scripts of the revision are run."
        if os.path.exists(script.location)
        else ""
    )
    return (
        f"The location {script.location} begins with a slash, which stands for the root of the revision, "
        f"not for that of the host.{exists} "
    )


def _outside(script: HookScript, why: str) -> CommandFailure:
    return CommandFailure(
        "hook-location-outside-archive",
        f"Script at specified location: {script.location} is refused: {why}. "
        f"Only scripts of the revision itself are run; correct line {script.line} of the AppSpec file.",
        code=ErrorCode.SCRIPT_MISSING,
        script_name=script.location,
    )


def _similar_names(location: str, archive: Path) -> str:
    """What the archive holds instead, in words."""
    # Imported here: only a failure needs it, and every hook would pay for it.
    import difflib  # noqa: PLC0415

    wanted = os.path.normpath(location.lstrip("/"))
    first_word = wanted.split(" ")[0]
    if first_word != wanted and (archive / first_word).is_file():
        return f"the revision has {first_word}, and arguments are written as a list under args:"
    names = [name for name, _ in zip(_files(archive), range(_MAX_SEARCHED), strict=False)]
    same_name = [
        name for name in names if name.rpartition("/")[2].lower() == wanted.rpartition("/")[2].lower()
    ]
    similar = dict.fromkeys([*same_name[:3], *difflib.get_close_matches(wanted, names, n=3)])
    if similar:
        return f"the revision has {', '.join(list(similar)[:3])}"
    return "the revision has nothing with a similar name"


def _files(archive: Path) -> Iterator[str]:
    for directory, _, files in os.walk(archive):
        for name in sorted(files):
            yield os.path.relpath(os.path.join(directory, name), archive)

"""Why a script could not be started, in words that say what to change."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.protocol import ErrorCode

if TYPE_CHECKING:
    from pathlib import Path

    from agent.appspec import HookScript
    from agent.lifecycle.accounts import Account

_MAX_FIRST_LINE = 512
_SEARCHED_BYTES = 2**16  # of a script, for Windows line ends
# Those that take a carriage return as part of a command; other interpreters don't mind.
_SHELLS = ("sh", "bash", "dash", "ash", "ksh", "mksh", "zsh")
_ELF = b"\x7fELF"


def explain_launch_failure(
    error: OSError, path: Path, script: HookScript, account: Account | None
) -> CommandFailure:
    """The failure to report for this error of starting the script."""
    subject = describe_script(script)
    if path.is_dir():
        return CommandFailure(
            "hook-script-is-directory",
            f"{subject} can't be started: {path} is a directory. Name the script in it.",
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    match error.errno:
        case errno.ENOENT:
            return _missing_interpreter(path, script)
        case errno.EACCES:
            return _not_permitted(path, script, account)
        case errno.ENOEXEC:
            return CommandFailure(
                "hook-script-wrong-format",
                f"{subject} can't be started: {path} is a program for another kind of machine than "
                f"this one ({os.uname().machine}), or damaged. Build the revision for this machine.",
                code=ErrorCode.SCRIPT_FAILED,
                script_name=script.location,
            )
        case errno.ETXTBSY:
            return CommandFailure(
                "hook-script-busy",
                f"{subject} can't be started: another process has {path} open for writing. "
                "Find it with `fuser`; nothing should write to a deployment archive.",
                code=ErrorCode.SCRIPT_FAILED,
                script_name=script.location,
            )
    return CommandFailure(
        "hook-not-startable",
        f"{subject} can't be started: {error.strerror} (error {error.errno}). "
        "Look at the memory and the process limits of the host, and at the size of the environment and arguments.",
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def explain_hidden_failure(path: Path, script: HookScript) -> CommandFailure | None:
    """What would keep this script from being started; None = nothing that can be seen from here.

    For scripts that sudo or a login shell starts, which would hide the reason behind an exit code.
    """
    if path.is_dir():
        return explain_launch_failure(OSError(errno.EACCES, "Is a directory"), path, script, None)
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        return _not_permitted(path, script, None)
    line = first_line(path)
    if line.startswith(b"#!") and not os.path.exists(_named_by_kernel(line)):
        return _missing_interpreter(path, script)
    return None


def describe_script(script: HookScript) -> str:
    """How every message names a script: as its AppSpec does, with the user that it runs as."""
    user = f" run as user {script.runas}" if script.runas else ""
    return f"Script at specified location: {script.location}{user}"


def is_binary(path: Path) -> bool:
    """Whether the file is a program rather than text for an interpreter."""
    return b"\0" in first_line(path)


def first_windows_line(path: Path) -> int:
    """Number of the first line that ends as on Windows, from 1; 0 = there is none, or it does no harm."""
    first, *others = _beginning(path, _SEARCHED_BYTES).split(b"\n")
    if first.endswith(b"\r"):
        return 1
    if b"\0" in first or not _is_run_by_shell(first):
        return 0
    return next((number for number, line in enumerate(others, 2) if line.endswith(b"\r")), 0)


def first_line(path: Path) -> bytes:
    """The first line without its line feed, or the first 512 bytes; empty when the file can't be read."""
    return _beginning(path, _MAX_FIRST_LINE).partition(b"\n")[0]


def _beginning(path: Path, size: int) -> bytes:
    """The first bytes of the file; empty when it can't be read."""
    try:
        # A script may put a named pipe in its own place, and reading that would never end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read(size) or b""
    except OSError:
        return b""


def _is_run_by_shell(line: bytes) -> bool:
    """Whether a script with this first line is run by a shell, such as one that names no interpreter."""
    words = line.removeprefix(b"#!").split() if line.startswith(b"#!") else []
    names = [os.path.basename(word).decode("ascii", "replace") for word in words if not word.startswith(b"-")]
    if names[:1] == ["env"]:
        names = names[1:]
    return not names or names[0] in _SHELLS


def _missing_interpreter(path: Path, script: HookScript) -> CommandFailure:
    subject, line = describe_script(script), first_line(path)
    interpreter = _interpreter(line)
    if line.endswith(b"\r"):
        return CommandFailure(
            "hook-windows-line-ends",
            f"{subject} can't be started: {path} has Windows line ends, so Linux looks for an interpreter "
            f"called {interpreter!r} with a carriage return at the end of its name. "
            "Save the script with Unix line ends (dos2unix; in git: `*.sh text eol=lf` in .gitattributes).",
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    if line.startswith(_ELF):
        return CommandFailure(
            "hook-interpreter-missing",
            f"{subject} can't be started: the loader that {path} was linked for is not on this host "
            f"({os.uname().machine}). Build the program for this host's C library, or statically.",
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    return CommandFailure(
        "hook-interpreter-missing",
        f"{subject} can't be started: the interpreter {interpreter} that the first line of {path} names "
        "is not on this host. Install it, or correct that line.",
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def _named_by_kernel(line: bytes) -> bytes:
    """The interpreter as the kernel sees it: a carriage return is part of its name."""
    return line.removeprefix(b"#!").strip(b" \t").replace(b"\t", b" ").partition(b" ")[0]


def _interpreter(line: bytes) -> str:
    words = line.removeprefix(b"#!").strip().split()
    return words[0].decode("utf-8", "replace") if words else ""


def _not_permitted(path: Path, script: HookScript, account: Account | None) -> CommandFailure:
    subject = describe_script(script)
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        return CommandFailure(
            "hook-noexec-mount",
            f"{subject} can't be started: {path} lies on a file system that is mounted with noexec. "
            "Mount it without, or set root_dir to a directory on another file system.",
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    closed = _first_closed_directory(path, account)
    if closed:
        return CommandFailure(
            "hook-not-permitted",
            f"{subject} can't be started: that user may not enter {closed}, in which {path} lies. "
            "Let others enter it (chmod o+x), or run the script without runas.",
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    interpreter = _interpreter(first_line(path)) or str(path)
    return CommandFailure(
        "hook-not-permitted",
        f"{subject} can't be started: {path}, or the interpreter {interpreter}, may not be executed by "
        f"{account.name if account else 'the agent'}. Look at their owners, modes and security labels.",
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def _first_closed_directory(path: Path, account: Account | None) -> Path | None:
    """The outermost directory on the way to the script that the account may not enter."""
    if account is None or account.uid == 0:
        return None
    for directory in reversed(path.parents):
        facts = os.stat(directory)
        if account.uid == facts.st_uid:
            allowed = facts.st_mode & 0o100
        elif facts.st_gid in account.groups:
            allowed = facts.st_mode & 0o010
        else:
            allowed = facts.st_mode & 0o001
        if not allowed:
            return directory
    return None

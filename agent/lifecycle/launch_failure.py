"""Why a script could not be started, in words that say what to change."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.lifecycle.location import may_execute
from agent.lifecycle.script_failures import ScriptMissing
from agent.lifecycle.script_file import read_script_file
from agent.protocol import ErrorCode

if TYPE_CHECKING:
    from agent.appspec import HookScript
    from agent.lifecycle.accounts import Account
    from agent.lifecycle.script_file import ScriptFile


def describe_script(script: HookScript) -> str:
    """How every message names a script: as its AppSpec does, with the user that it runs as."""
    user = f" run as user {script.runas}" if script.runas else ""
    return f"Script at specified location: {script.location}{user}"


def not_started(script: HookScript, reason: str) -> str:
    """How messages of scripts that were never started begin."""
    return f"{describe_script(script)} can't be started (line {script.line} of the AppSpec file): {reason}"


def explain_launch_failure(
    error: OSError, path: Path, script: HookScript, account: Account | None
) -> CommandFailure:
    """The failure to report for this error of starting the script."""
    if path.is_dir():
        return CommandFailure(
            "hook-script-is-directory",
            not_started(script, f"{path} is a directory. Name the script in it."),
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    match error.errno:
        case errno.ENOENT:
            return _missing_part(path, script)
        case errno.EACCES:
            return _not_permitted(path, script, account)
        case errno.ENOEXEC:
            return CommandFailure(
                "hook-script-wrong-format",
                not_started(script, _wrong_format(path)),
                code=ErrorCode.SCRIPT_FAILED,
                script_name=script.location,
            )
        case errno.ETXTBSY:
            return CommandFailure(
                "hook-script-busy",
                not_started(
                    script,
                    f"another process has {path} open for writing. "
                    "Find it with `fuser`; nothing should write to a deployment archive.",
                ),
                code=ErrorCode.SCRIPT_FAILED,
                script_name=script.location,
            )
    return CommandFailure(
        "hook-not-startable",
        not_started(script, f"{error.strerror} (error {error.errno}). {_advice(error.errno, account)}"),
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def explain_hidden_failure(file: ScriptFile, script: HookScript, *, hidden: bool) -> CommandFailure | None:
    """What would keep this script from being run; None = nothing that can be seen from here.

    Args:
        file: of the script.
        script: its entry in the AppSpec.
        hidden: sudo or a login shell starts it, and would hide the reason behind an exit code.
    """
    if encoding := file.wide_encoding:
        return CommandFailure(
            "hook-script-encoding",
            not_started(
                script,
                f"{file.path} is text in {encoding} (it begins with the bytes {file.beginning[:4].hex(' ').upper()}), "
                "which no interpreter of scripts reads. "
                f"Save it as UTF-8 without a byte order mark (`iconv -f {encoding} -t UTF-8`).",
            ),
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    if not hidden:
        return None
    path = file.path
    if path.is_dir():
        return explain_launch_failure(OSError(errno.EACCES, "Is a directory"), path, script, None)
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        return _not_permitted(path, script, None)
    if file.first_line.startswith(b"#!") and not os.path.exists(_named_by_kernel(file.first_line)):
        return _missing_part(path, script)
    return None


def _advice(error: int | None, account: Account | None) -> str:
    if error == errno.EAGAIN:
        whose = f"of user {account.name}" if account else "of the agent"
        return (
            f"The limit of processes {whose} is reached, or that of the agent's service: look at nproc in "
            "/etc/security/limits.conf and limits.d, at `ulimit -u`, and at TasksMax of the service."
        )
    if error == errno.E2BIG:
        return "Arguments and variables together are too long for one process: put long values into files."
    if error in (errno.EMFILE, errno.ENFILE):
        return "Too many files are open: look at nofile in /etc/security/limits.conf and at LimitNOFILE of the service."
    return "Look at the memory and the process limits of the host, and at the size of the environment and arguments."


def _wrong_format(path: Path) -> str:
    machine = os.uname().machine
    file = read_script_file(path)
    if file.is_program:
        return (
            f"{path} is a program for another kind of machine than this one ({machine}), or damaged. "
            "Build the revision for this machine."
        )
    return (
        f"{path} is neither text, as its first line holds a NUL byte, nor a program for this kind of machine "
        f"({machine}). Put the script, or a program that was built for this machine, in its place."
    )


def _missing_part(path: Path, script: HookScript) -> CommandFailure:
    """Something that it takes to run the script is not there; mostly the interpreter."""
    file = read_script_file(path)
    line = file.first_line
    interpreter = _named_by_kernel(line).decode("utf-8", "replace")
    if line.endswith(b"\r"):
        return CommandFailure(
            "hook-windows-line-ends",
            not_started(
                script,
                f"{path} has Windows line ends, so Linux looks for an interpreter "
                f"called {interpreter.rstrip()!r} with a carriage return at the end of its name. "
                "Save the script with Unix line ends (dos2unix; in git: `*.sh text eol=lf` in .gitattributes).",
            ),
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    if not path.exists():
        return ScriptMissing(
            not_started(
                script, f"{path} was there, and has been removed meanwhile. Find out what does that."
            ),
            script_name=script.location,
        )
    machine = os.uname().machine
    if file.is_program or (interpreter and os.path.exists(interpreter)):
        program = path if file.is_program else f"the interpreter {interpreter}"
        reason = (
            f"the loader that {program} was linked for is not on this host ({machine}). "
            "Build the program for this host's C library, or statically."
        )
    elif not interpreter.startswith("/"):
        reason = (
            f"the first line of {path} names the interpreter {interpreter} without its whole path, and nothing looks "
            f"for it in PATH. Write its whole path, or #!/usr/bin/env {interpreter}."
        )
    else:
        reason = (
            f"the interpreter {interpreter} that the first line of {path} names is not on this host. "
            "Install it, or correct that line."
        )
    return CommandFailure(
        "hook-interpreter-missing",
        not_started(script, reason),
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def _named_by_kernel(line: bytes) -> bytes:
    """The interpreter as the kernel sees it: a carriage return is part of its name."""
    if not line.startswith(b"#!"):
        return b""
    return line[2:].strip(b" \t").replace(b"\t", b" ").partition(b" ")[0]


def _not_permitted(path: Path, script: HookScript, account: Account | None) -> CommandFailure:
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        return CommandFailure(
            "hook-noexec-mount",
            not_started(
                script,
                f"{path} lies on a file system that is mounted with noexec. "
                "Mount it without, or set root_dir to a directory on another file system.",
            ),
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    return CommandFailure(
        "hook-not-permitted",
        not_started(script, _what_is_closed(path, account)),
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def explain_unopened(path: Path, script: HookScript, account: Account | None) -> CommandFailure | None:
    """Why a script was never opened by what was to run it, as far as modes tell; None = they don't."""
    if account is None or not (closed := _closed_by_mode(path, account)):
        return None
    return CommandFailure(
        "hook-not-permitted",
        not_started(script, closed),
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def _what_is_closed(path: Path, account: Account | None) -> str:
    """What this user may not enter or execute, on the way to the script or its interpreter."""
    if closed := _closed_by_mode(path, account):
        return closed
    user = account.name if account else "the agent"
    named = _named_by_kernel(read_script_file(path).first_line).decode("utf-8", "replace")
    interpreter = f", or its interpreter {named}," if named else ""
    return (
        f"{path}{interpreter} may not be executed by {user}, although the modes allow it. "
        "Look at ACLs, at security labels (SELinux, AppArmor), and at mounts with noexec."
    )


def _closed_by_mode(path: Path, account: Account | None) -> str:
    """The first thing on the way that a mode closes; empty when there is none."""
    user = account.name if account else "the agent"
    if closed := _first_closed_directory(path, account):
        return (
            f"{user} may not enter {closed}, in which {path} lies. "
            "Let others enter it (chmod o+x), or run the script without runas."
        )
    if not may_execute(path, account):
        return f"{user} may not execute {path}. Look at its owner and mode."
    named = _named_by_kernel(read_script_file(path).first_line)
    interpreter = Path(os.fsdecode(named))
    if not named.startswith(b"/") or not interpreter.exists():
        return ""
    if interpreter.is_dir():
        return f"its interpreter {interpreter} is a directory. Correct the first line of {path}."
    return _closed_interpreter(interpreter, user, account)


def _closed_interpreter(interpreter: Path, user: str, account: Account | None) -> str:
    if closed := _first_closed_directory(Path(os.path.realpath(interpreter)), account):
        return (
            f"{user} may not enter {closed}, in which its interpreter {interpreter} lies. "
            "Let others enter it (chmod o+x), or install the interpreter where everybody may get to it."
        )
    if may_execute(interpreter, account):
        return ""
    return f"{user} may not execute its interpreter {interpreter}. Look at its owner and mode (chmod a+x)."


def _first_closed_directory(path: Path, account: Account | None) -> Path | None:
    """The outermost directory on the way to this file that the account may not enter."""
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

"""What an exit code says of a script, as far as that is a fact, or a rule of whatever ran it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.processes import signal_name

if TYPE_CHECKING:
    from agent.lifecycle.script_file import ScriptFile

_NOT_EXECUTABLE = 126
_NOT_FOUND = 127
_SIGNAL_BASE = 128
_MOST_DIRECTORIES, _MOST_OF_PATH = 20, 800
_LAST_SIGNAL = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The script's main process has ended by itself, or by a signal that was not ours.

    Attributes:
        code: exit code; negative = minus the number of the signal.
        program: what ran it, as it goes on after "was run".
        path_variable: PATH as it was given to the script; None = sudo or a profile sets another one.
        file: the script, as it was before it was started.
        is_readable: the interpreter could read the script.
        was_opened: anybody has opened the script since then, as whoever runs it must; None = not known.
        oom_kills: processes that the kernel has killed meanwhile for lack of memory; None = not known.
    """

    code: int
    program: str
    path_variable: str | None
    file: ScriptFile
    is_readable: bool
    was_opened: bool | None = None
    oom_kills: int | None = None


def explain_exit(outcome: Exited) -> str:
    """Sentences about the cause; empty where nothing is known."""
    written = (
        "The file was written to while it ran, and shells read a script bit by bit: what ran may be a mixture. "
        if outcome.file.was_written_to
        else ""
    )
    return f"{_about_file(outcome) or _about_code(outcome)}{written}"


def about_memory(oom_kills: int | None) -> str:
    """Whether a SIGKILL was the kernel's, for lack of memory; the count is of the whole host."""
    if oom_kills is None:
        return (
            "The kernel does that when memory runs out: look for 'Out of memory' in the kernel log (dmesg). "
        )
    if oom_kills > 0:
        return (
            "Meanwhile the kernel has killed for lack of memory "
            f"({oom_kills} more in oom_kill of /proc/vmstat): the kernel log (dmesg, journalctl -k) says whom. "
        )
    return (
        "That was not the kernel for lack of memory: it has killed nothing meanwhile (oom_kill in /proc/vmstat). "
        "Somebody sent it: a person, the script itself, or a program such as systemd-oomd or earlyoom. "
    )


def _about_file(outcome: Exited) -> str:
    file = outcome.file
    marked = ""
    if file.has_byte_order_mark:
        hidden = "its `#!` does not count" if b"#!" in file.first_line else "its first command is not found"
        marked = (
            f"The script begins with a byte order mark (EF BB BF), so {hidden}. "
            "Save it as UTF-8 without that mark. "
        )
    if file.windows_line:
        return (
            f"{marked}The script has Windows line ends (the first in line {file.windows_line}), and a shell takes the "
            "carriage return as part of the command. Save it with Unix line ends (dos2unix). "
        )
    if not outcome.is_readable:
        return (
            "Its user may execute the script, but not read it, and an interpreter has to read what it runs. "
            "Let others read it (chmod a+r). "
        )
    return marked


def _about_code(outcome: Exited) -> str:
    """Only shells keep to these codes; in other interpreters and programs they mean what their author wants."""
    if outcome.code == _NOT_FOUND and (missing := _not_found_by_env(outcome.file, outcome.path_variable)):
        return (
            f"Its first line has env look for {missing}, which is in no directory of PATH ({_shown(outcome.path_variable)}). "
            "Install it, or set PATH under environment:. "
        )
    if not outcome.file.is_run_by_shell:
        return ""
    if outcome.code == _NOT_EXECUTABLE:
        return (
            "Exit code 126 of a shell mostly means that a command was found but may not be executed: "
            "look at its mode. "
        )
    if outcome.code == _NOT_FOUND:
        path = (
            "sudo or the login profile sets PATH here, or it is too long to be shown"
            if outcome.path_variable is None
            else f"PATH was {_shown(outcome.path_variable)}"
        )
        return (
            f"Exit code 127 of a shell mostly means that a command was not found; {path}. "
            "Name the command with its whole path, or set PATH under environment:. "
        )
    if _SIGNAL_BASE < outcome.code <= _SIGNAL_BASE + _LAST_SIGNAL:
        number = outcome.code - _SIGNAL_BASE
        memory = about_memory(outcome.oom_kills) if number == signal.SIGKILL else ""
        return (
            f"That is 128 + {number}: a shell ends so when {signal_name(number)} has ended a command in it. "
            f"{memory}"
        )
    return ""


def _shown(path_variable: str | None) -> str:
    """As much of PATH as a message has room for."""
    directories = (path_variable or "").split(":")
    shown = ":".join(directories[:_MOST_DIRECTORIES])[:_MOST_OF_PATH]
    is_all = shown == path_variable
    return shown if is_all else f"{shown}… (of {len(directories)} directories)"


def _not_found_by_env(file: ScriptFile, path_variable: str | None) -> str:
    """The program that `#!/usr/bin/env` looks for in vain; empty where it finds one, or that is not known."""
    words = [word for word in file.interpreter_words if not word.startswith("-")]
    if path_variable is None or len(words) < 2 or os.path.basename(words[0]) != "env":
        return ""
    name = words[1]
    if "/" in name or "=" in name:
        return ""
    places = (os.path.join(directory or ".", name) for directory in path_variable.split(":"))
    return "" if any(os.path.isfile(place) for place in places) else name

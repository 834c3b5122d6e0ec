"""How a script ended → what to report. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.lifecycle.launch_failure import describe_script
from agent.protocol import ErrorCode

if TYPE_CHECKING:
    from agent.appspec import HookScript

_NOT_EXECUTABLE = 126
_NOT_FOUND = 127
_SIGNAL_BASE = 128
_LAST_SIGNAL = 64
_MAX_DESCRIBED = 5


class Silence(Enum):
    """Why it can't be said how long ago a script last printed something."""

    ENTIRE = "it never did"
    UNKNOWN = "who knew that has gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The script's main process has ended by itself, or by a signal that was not ours."""

    code: int
    """Exit code; negative = minus the number of the signal."""
    path_variable: str
    windows_line: int
    """Number of the first line that ends as on Windows; 0 = none."""
    is_readable: bool
    """Whether the interpreter could read the script."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """We ended the script: at its timeout, or because the deployment was stopped.

    Attributes:
        running: what ran when we did and has ended, each as `pid 88 apt-get install nginx`.
        survivors: what is left nevertheless.
        silent_s: how long the script had printed nothing then.
    """

    running: tuple[str, ...]
    survivors: tuple[str, ...]
    silent_s: float | Silence


def exit_failure(script: HookScript, outcome: Exited) -> CommandFailure:
    """What to report for a script that ended with anything but 0."""
    subject = describe_script(script)
    if outcome.code < 0:
        return CommandFailure(
            "hook-killed",
            f"{subject} was ended by signal {_signal_name(-outcome.code)}. {_who_signals(-outcome.code)}",
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    return CommandFailure(
        "hook-failed",
        f"{subject} failed with exit code {outcome.code}{_meaning(outcome)}",
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def timeout_failure(script: HookScript, outcome: Ended) -> CommandFailure:
    """What to report for a script that ran out of time."""
    return CommandFailure(
        "hook-timed-out",
        f"{describe_script(script)} failed to complete in {script.timeout_s:g} seconds. {_last_words(outcome)}"
        f"Find out what it waited for, or raise its timeout (line {script.line} of the AppSpec file).",
        code=ErrorCode.SCRIPT_TIMED_OUT,
        script_name=script.location,
    )


def cancel_failure(script: HookScript, outcome: Ended) -> CommandFailure:
    """What to report for a script that was ended because nobody wants the deployment any more."""
    return CommandFailure(
        "hook-cancelled",
        f"{describe_script(script)} was ended because the deployment was stopped. {_last_words(outcome)}"
        "Deploy again when you want to go on.",
        script_name=script.location,
    )


def open_output_failure(script: HookScript, holders: tuple[str, ...]) -> CommandFailure:
    """What to report, where `fail_on_open_output` is set, for a script that left its output open."""
    return CommandFailure(
        "hook-output-left-open",
        f"{describe_script(script)} ended, but its output is still open in: {describe_all(holders)}. "
        "Redirect the output of what it starts in the background, as in `start </dev/null >/dev/null 2>&1 &`, "
        "or set fail_on_open_output: false.",
        code=ErrorCode.OUTPUT_LEFT_OPEN,
        script_name=script.location,
    )


def describe_all(processes: tuple[str, ...]) -> str:
    """The first five, and how many more there are."""
    listed = "; ".join(processes[:_MAX_DESCRIBED]) or "a process that can't be seen"
    more = len(processes) - _MAX_DESCRIBED
    return f"{listed}; and {more} more" if more > 0 else listed


def _meaning(outcome: Exited) -> str:
    if outcome.windows_line:
        return (
            f". The script has Windows line ends (the first in line {outcome.windows_line}), and a shell takes the "
            "carriage return as part of the command. Save it with Unix line ends (dos2unix)."
        )
    if not outcome.is_readable:
        return (
            ". Its user may execute the script, but not read it, and an interpreter has to read what it runs. "
            "Let others read it (chmod a+r)."
        )
    if outcome.code == _NOT_EXECUTABLE:
        return (
            ". Exit code 126 mostly means that a command was found but may not be executed: look at its mode."
        )
    if outcome.code == _NOT_FOUND:
        return (
            f". Exit code 127 mostly means that a command was not found; PATH was {outcome.path_variable}. "
            "Name the command with its whole path, or set PATH under environment:."
        )
    if _SIGNAL_BASE < outcome.code <= _SIGNAL_BASE + _LAST_SIGNAL:
        number = outcome.code - _SIGNAL_BASE
        return f". That is 128 + {number}: something in it was ended by signal {_signal_name(number)}."
    return "."


def _signal_name(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


def _who_signals(number: int) -> str:
    if number == signal.SIGKILL:
        return (
            "The kernel does that when memory runs out: look for 'Out of memory' in the kernel log (dmesg)."
        )
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT, signal.SIGFPE):
        return "The program itself crashed."
    return "Somebody else sent it; the agent did not."


def _last_words(outcome: Ended) -> str:
    ended = f"Running then, and ended: {describe_all(outcome.running)}. " if outcome.running else ""
    left = (
        f"These could not be ended, look at them: {describe_all(outcome.survivors)}. "
        if outcome.survivors
        else ""
    )
    return f"{ended}{_last_output(outcome.silent_s)}{left}"


def _last_output(silent_s: float | Silence) -> str:
    match silent_s:
        case Silence.ENTIRE:
            return "It had printed nothing. "
        case Silence.UNKNOWN:
            return "When its last output came is not known. "
        case float():
            return f"Its last output came {silent_s:.0f} s before. "

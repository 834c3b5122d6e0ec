"""How a script ended → what to report. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.lifecycle.exit_meaning import Exited, about_memory, explain_exit
from agent.lifecycle.launch_failure import describe_script, not_started
from agent.processes import signal_name
from agent.protocol import ErrorCode

if TYPE_CHECKING:
    from agent.appspec import HookScript

_MAX_DESCRIBED = 5


class Silence(Enum):
    """Why it can't be said how long ago a script last printed something."""

    ENTIRE = "it never did"
    UNKNOWN = "who knew that has gone"


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
    place = f"{place_of(script, outcome.program)} "
    if outcome.code < 0:
        number = -outcome.code
        return CommandFailure(
            "hook-killed",
            f"{subject} was ended by {signal_name(number)}. {place}"
            f"{_who_signals(number, outcome.oom_kills)}".rstrip(),
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    return CommandFailure(
        "hook-failed",
        f"{subject} failed with exit code {outcome.code}. {place}{explain_exit(outcome)}".rstrip(),
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def never_ran_failure(script: HookScript, outcome: Exited) -> CommandFailure:
    """What to report where sudo or a login shell has ended without opening the script, whatever the exit code."""
    if script.sudo:
        return CommandFailure(
            "hook-sudo-refused",
            not_started(
                script,
                f"sudo ended with exit code {outcome.code} without opening the script. Mostly it refuses: look at what it "
                f"printed, and at `sudo -l` of the agent's user. A rule for hooks needs NOPASSWD and SETENV.",
            ),
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    return CommandFailure(
        "hook-login-ended",
        not_started(
            script,
            f"the login shell ended with exit code {outcome.code} without opening the script. Something in the profile "
            "(/etc/profile, /etc/profile.d, ~/.profile, ~/.bash_profile) ends the shell, or puts another program in its "
            "place (exit, exec): repair that, or remove login: true.",
        ),
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def timeout_failure(script: HookScript, outcome: Ended) -> CommandFailure:
    """What to report for a script that ran out of time."""
    return CommandFailure(
        "hook-timed-out",
        f"{describe_script(script)} failed to complete in {script.timeout_s:g} seconds. {_last_words(outcome)}"
        "Find out what it waited for, or raise its timeout.",
        code=ErrorCode.SCRIPT_TIMED_OUT,
        script_name=script.location,
    )


def place_of(script: HookScript, program: str) -> str:
    """Where a script stands, and what ran it."""
    return f"It stands in line {script.line} of the AppSpec file and was run {program}."


def cancel_failure(script: HookScript, outcome: Ended) -> CommandFailure:
    """What to report for a script that was ended because nobody wants the deployment any more."""
    return CommandFailure(
        "hook-cancelled",
        f"{describe_script(script)} was ended because the deployment was stopped. {_last_words(outcome)}"
        "Deploy again when you want to go on.",
        script_name=script.location,
    )


def explain_lost_result(script: HookScript) -> CommandFailure:
    """What to report for a script that has ended, where nobody can tell how."""
    return CommandFailure(
        "hook-result-unknown",
        f"{describe_script(script)} ended, but how is not known: something in the agent's process, or whoever started "
        "it, took its exit status. See in its output what it has done, and deploy again. Should that happen again, "
        "it is a fault of the agent: report it.",
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def open_output_failure(script: HookScript, holders: tuple[str, ...]) -> CommandFailure:
    """What to report, where `fail_on_open_output` is set, for a script that left its output open."""
    return CommandFailure(
        "hook-output-left-open",
        f"{describe_script(script)} (line {script.line} of the AppSpec file) ended, but its output is still open in: "
        f"{describe_all(holders)}. "
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


def _who_signals(number: int, oom_kills: int | None) -> str:
    if number == signal.SIGKILL:
        return about_memory(oom_kills)
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT, signal.SIGFPE):
        return "The program itself crashed."
    return "Somebody else sent it, or the script itself; the agent did not."


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

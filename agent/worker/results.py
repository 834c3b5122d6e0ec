"""How commands end, as results that can be kept and reported."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.deployments import CommandResult
from agent.deployments.job_state import BEGUN_STEPS
from agent.errors import CommandFailure
from agent.lifecycle import NOOP_MESSAGE, failure_payload, success_payload
from agent.logs import get_logger
from agent.processes import boot_id, signal_name
from agent.protocol import CommandStatus, ErrorCode

if TYPE_CHECKING:
    from pathlib import Path

    from agent.deployments import Job, JobState

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class LastOutput:
    """What the scripts of a lost event had printed; empty where there was nothing.

    Attributes:
        script_name: location of the script that was running.
        tail: of the output, as it goes into a report.
        file: the whole output.
    """

    script_name: str = ""
    tail: str = ""
    file: Path | None = None


_NO_OUTPUT = LastOutput()


def succeeded_result(message: str = "", *, log: str = "") -> CommandResult:
    """The command did what it was to do; `log` is the tail of the hook output."""
    payload = success_payload(message, log=log)
    return _result(CommandStatus.SUCCEEDED, payload)


def noop_result() -> CommandResult:
    """Nothing was to be done, and the service knew before we did."""
    return succeeded_result(NOOP_MESSAGE)


def failed_result(failure: CommandFailure) -> CommandResult:
    """The command failed for this reason; the message ends with the id that `agentctl explain` takes."""
    named = CommandFailure(
        failure.error_id,
        f"{failure.message} [{failure.error_id}]",
        code=failure.code,
        script_name=failure.script_name,
        log=failure.log,
    )
    return replace(_result(CommandStatus.FAILED, failure_payload(named)), error_id=failure.error_id)


def internal_failure(error: Exception) -> CommandResult:
    """Something that nobody thought of; the log has the whole story."""
    return failed_result(
        CommandFailure(
            "internal-error",
            f"The agent met an error of its own: {type(error).__name__}: {error}. "
            "Its log has the details; please report them.",
        )
    )


def out_of_memory() -> CommandResult:
    """The process that carried out the command was refused memory."""
    return failed_result(
        CommandFailure(
            "agent-out-of-memory",
            "The agent was refused memory in the middle of the command: the host has none left, or its service has a "
            "limit (MemoryMax, ulimit -v) that is too low for this revision. An Install that had begun is "
            "undone, at the latest by the next command of the group. Free some memory, or raise the limit, and deploy again.",
        )
    )


def not_wanted_result(status: CommandStatus) -> CommandResult:
    """The endpoint answered the acknowledgement with an end: nothing is run, and nothing reported."""
    message = f"Not run: the endpoint says that the command has {status.value.lower()} already."
    payload = json.dumps({"message": message})
    return CommandResult(
        status=status,
        error_code=int(ErrorCode.SUCCEEDED),
        message=message,
        payload=payload,
        wanted=False,
    )


def lost_result(state: JobState, undone: str, output: LastOutput = _NO_OUTPUT) -> CommandResult:
    """The worker died, with its host or alone, and what it did has been undone as far as `undone` says."""
    message = f"Failed: {_how_it_was_lost(state)} {undone} Deploy again."
    if output.file is not None:
        message += f" The whole output is in {output.file}."
    return failed_result(
        CommandFailure(
            "worker-lost",
            message,
            code=ErrorCode.FAILED_AFTER_RESTART,
            script_name=output.script_name,
            log=output.tail,
        )
    )


def _how_it_was_lost(state: JobState) -> str:
    """A sentence about the end of the worker: what is known, and no more."""
    what = f"the worker that carried out {state.command.name}"
    when = "while it ran" if state.step in BEGUN_STEPS else f"at the step {state.step}"
    code = state.worker_exit
    if code is not None and code > 0:
        return (
            f"{what} met an error of the agent's own {when}, and ended with code {code}. What it had to say is in what "
            "the agent printed, which systemd keeps in its journal; please report it."
        )
    if code == -signal.SIGKILL:
        return f"{what} was killed {when}: by the kernel for lack of memory (see dmesg), or by hand."
    if code is not None:
        return f"{what} was ended by {signal_name(-code)} {when}."
    if _was_before_boot(state):
        return f"the host was restarted {when} ({state.command.name})."
    return f"{what} was killed {when}, and no agent saw it: by hand, by the kernel for lack of memory, or with the agent."


def _was_before_boot(state: JobState) -> bool:
    try:
        return state.worker is not None and state.worker.boot_id != boot_id()
    except OSError:  # no descriptor left to find out
        return False


def keep_result(job: Job, result: CommandResult) -> CommandResult:
    """The result, which whoever comes after us will find if that is possible."""
    try:
        job.note_result(result)
    except OSError as error:
        # The report still goes out; only a crash before that would cost it.
        log.warning("result_not_kept", error=str(error))
    return result


def _result(status: CommandStatus, payload: str) -> CommandResult:
    facts = json.loads(payload)
    return CommandResult(
        status=status,
        error_code=facts["error_code"],
        message=facts["message"],
        script_name=facts["script_name"],
        payload=payload,
    )

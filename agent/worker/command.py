"""One host command, from its specification to its delivered report."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from agent.deployments import RecordedProcess
from agent.deployments.history import history_entry
from agent.deployments.job_state import RUN
from agent.endpoint import FOR_QUESTIONS, FOR_REPORTS, ask_until_answered
from agent.errors import AgentError, CommandFailure, CommandForAnotherHost, EndpointError, IdentityError
from agent.logs import command_log, get_logger
from agent.processes import show_as
from agent.protocol import CommandStatus
from agent.worker.checks import check_host
from agent.worker.directories import finish_interrupted, working_on_group
from agent.worker.facts import facts_of
from agent.worker.hook_updates import HookUpdates
from agent.worker.ongoing import ongoing_deployment
from agent.worker.process import this_process
from agent.worker.record import keeping_record, no_record
from agent.worker.results import (
    failed_result,
    internal_failure,
    keep_result,
    lost_result,
    noop_result,
    not_wanted_result,
    out_of_memory,
)
from agent.worker.runs import choose_run
from agent.worker.specifications import check_addressee, fetch_specification
from agent.worker.turns import wait_for_turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.deployments import CommandResult, Job, JobState
    from agent.lifecycle import HookProcess
    from agent.protocol import HostCommand
    from agent.worker.context import WorkerContext
    from agent.worker.runs import Run

    T = TypeVar("T")

log = get_logger()


def carry_to_end(job: Job, context: WorkerContext) -> bool:
    """Afterwards the command of this record has been reported, and the record is history.

    False when this process should carry no other command: of one that failed, anything may be left in it.

    Starts where the record says that the work stopped: a result that is there is delivered; work
    that a dead worker had begun is undone and reported as lost; anything else is done now.
    """
    state = job.read()
    if state is None:
        job.remove_if_possible()
        return True
    command_log.begin(host_command_identifier=state.command.identifier, command=state.command.name)
    show_as(f"worker {state.command.name}")
    began = time.monotonic()
    result = state.result or _result_of(job, state, context)
    done = time.monotonic()
    if result.wanted:
        _deliver(state.command, result, context)
    reported = time.monotonic()
    _remember(job, result, context)
    # Last: the first line that is written costs more than all of the above may, and the group's next
    # command waits for the record to go.
    say = log.error if result.status is CommandStatus.FAILED and result.wanted else log.info
    say(
        "command_finished",
        status=result.status.value,
        error_code=int(result.error_code),
        error_id=result.error_id or None,
        run_s=round(done - began, 3),
        report_s=round(reported - done, 3),
        message=result.message,
    )
    return result.status is CommandStatus.SUCCEEDED


def report_refusal(command: HostCommand, reason: OSError, context: WorkerContext) -> None:
    """Report this command as Failed although there is no record of it."""
    _deliver(command, failed_result(no_record(reason, context.jobs.directory)), context)


def report_abandoned(job: Job, context: WorkerContext) -> None:
    """Report the command of this record as lost. Nothing else is tried: it has killed too many workers."""
    state = job.read()
    if state is None:
        job.remove_if_possible()
        return
    command_log.bind(host_command_identifier=state.command.identifier, command=state.command.name)
    result = state.result
    if result is None:
        tried = "The workers that were to clean up after it were killed, too, so what it has done is as it left it."
        result = keep_result(job, lost_result(state, tried))
    if result.wanted:
        _deliver(state.command, result, context)
    log.info("abandoned_command_reported", status=result.status.value, error_code=int(result.error_code))
    _remember(job, result, context)


def _result_of(job: Job, state: JobState, context: WorkerContext) -> CommandResult:
    """Do what is left to do, and keep the result."""
    if state.is_lost:
        # Only what was lost pays for what undoes it.
        from agent.worker.recovery import result_after_loss  # noqa: PLC0415

        return result_after_loss(job, state, context.host)
    return keep_result(job, _perform(job, state.command, context))


def _perform(job: Job, command: HostCommand, context: WorkerContext) -> CommandResult:
    """Run the command; whatever goes wrong becomes a result."""
    try:
        return _Performance(job, command, context).result()
    except CommandFailure as failure:
        return failed_result(failure)
    except CommandForAnotherHost as error:
        # A report of ours would be taken for that of the host which it is meant for.
        return replace(failed_result(CommandFailure(error.error_id, error.message)), wanted=False)
    except (EndpointError, IdentityError) as error:
        return failed_result(CommandFailure(error.error_id, error.message))
    except MemoryError:
        return out_of_memory()
    except Exception as error:
        with contextlib.suppress(MemoryError):
            log.exception("command_crashed")
        return internal_failure(error)


class _Performance:
    """The conversation about one command, step by step."""

    def __init__(self, job: Job, command: HostCommand, context: WorkerContext) -> None:
        self._job = job
        self._command = command
        self._context = context
        self._host = replace(
            context.host,
            on_script_started=self._note_script_started,
            on_script_ended=self._note_script_ended,
            on_step=self._note_step_of_run,
            is_cancelled=HookUpdates(command.identifier, context).is_cancelled,
        )
        self._boot_id = ""

    def result(self) -> CommandResult:
        with keeping_record(self._job):
            worker = this_process()
            self._boot_id = worker.boot_id
            self._job.note_worker(worker)
        self._note_step("specification")
        check_addressee(self._command, self._context.host_identifier)
        specification = fetch_specification(self._command, self._context, self._ask)
        facts = facts_of(specification)
        command_log.bind(deployment_id=facts.deployment_id)
        show_as(f"worker {self._command.name} {facts.deployment_id}")
        with keeping_record(self._job):
            self._job.note_deployment(facts)
            wait_for_turn(self._job, facts.deployment_group_id, self._context.jobs)
        finish_interrupted(specification, self._host)
        run = choose_run(self._command.name, specification, self._host)
        if not run.is_noop:
            self._note_step("checks")
            check_host(self._command.name, specification, self._context.settings)
        self._note_step("acknowledge")
        status = self._acknowledge(run)
        if status is CommandStatus.FAILED and run.is_noop:
            return noop_result()
        if status in (CommandStatus.SUCCEEDED, CommandStatus.FAILED):
            return not_wanted_result(status)
        self._note_step(RUN)
        ongoing = ongoing_deployment(self._command.identifier, specification, self._host, self._context.jobs)
        with working_on_group(specification, self._host), ongoing:
            return run.carry_out()

    def _note_step(self, step: str) -> None:
        with keeping_record(self._job):
            self._job.note_step(step)

    def _note_script_started(self, script: HookProcess) -> None:
        """Whoever comes after a dead worker has to end what it had running.

        Where it is called in the process that is about to become the script, that holds the lock of the record until
        then, as it was forked from us: nobody reads the record before this line is in it.
        """
        process = RecordedProcess(pid=script.pid, start_ticks=script.start_ticks, boot_id=self._boot_id)
        # A full disk must not keep a script from its work; and whatever this process logged, nobody would see.
        with contextlib.suppress(OSError):
            self._job.note_script(process)

    def _note_step_of_run(self, step: str) -> None:
        try:
            self._job.note_step(step)
        except OSError as error:
            log.warning("step_not_noted", step=step, error=str(error))

    def _note_script_ended(self) -> None:
        try:
            self._job.note_script(None)
        except OSError as error:
            log.warning("script_not_noted", error=str(error))

    def _acknowledge(self, run: Run) -> CommandStatus | None:
        """Say that the command is about to run; the answer says whether anybody still wants it."""
        status = self._ask(
            lambda: self._context.client.acknowledge(self._command.identifier, is_noop=run.is_noop)
        )
        log.debug("command_acknowledged", is_noop=run.is_noop, answer=status.value if status else None)
        return status

    def _ask(self, call: Callable[[], T]) -> T:
        return ask_until_answered(
            call,
            patience=FOR_QUESTIONS,
            throttle=self._context.throttle,
            on_trouble=_log_trouble,
        )


def _deliver(command: HostCommand, result: CommandResult, context: WorkerContext) -> None:
    """Send the report until it is taken, or until the endpoint says that nobody wants it."""
    try:
        ask_until_answered(
            lambda: context.client.complete(command.identifier, result.status, result.payload),
            patience=FOR_REPORTS,
            throttle=context.throttle,
            on_trouble=_log_trouble,
        )
    except AgentError as error:
        log.error("report_refused", error=error.message, error_id=error.error_id)


def _remember(job: Job, result: CommandResult, context: WorkerContext) -> None:
    """Afterwards the command is in the history and has no record any more.

    Where there is no writing the history, the record stays as it is: the daemon tries again, and when the
    command is delivered again meanwhile, its result is reported once more, and only that.
    """
    try:
        state = job.read()
        if state is None:
            return
        context.history.add(history_entry(state, result))
    except OSError as error:
        log.warning("history_not_written", error=str(error))
        if _has_result(job, result):
            return
    job.remove_if_possible()


def _has_result(job: Job, result: CommandResult) -> bool:
    """Whether the record has the result by now; without it, the command would look as if it had been lost."""
    try:
        state = job.read()
        if state is not None and state.result is None:
            job.note_result(result)
    except OSError:
        return False
    return state is not None


def _log_trouble(error: AgentError) -> None:
    log.warning("endpoint_trouble", error=error.message, error_id=error.error_id)

"""After a worker that died: end what it had running, undo what it had half done, and keep what to say of it.

None of it needs a control endpoint, nor to know who this host is.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agent.deployments import JobStore
from agent.deployments.group_files import interrupted_groups
from agent.deployments.job_state import COMMIT
from agent.errors import CommandFailure, InstallNotCompleted
from agent.logs import command_log, get_logger
from agent.processes import boot_id
from agent.protocol import INSTALL
from agent.worker.directories import holding_group
from agent.worker.installed import point_at_installed, recover_group
from agent.worker.last_output import last_output
from agent.worker.ongoing import remove_abandoned_mark
from agent.worker.process import this_process
from agent.worker.results import failed_result, keep_result, lost_result, succeeded_result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.deployments import CommandResult, DeploymentFacts, Job, JobState, RecordedProcess
    from agent.worker.context import HostContext

log = get_logger()


def restore(job: Job, host: HostContext) -> None:
    """Afterwards the host is in order after the lost command of this record, and the record has its result."""
    state = job.read()
    if state is not None and state.is_lost:
        command_log.bind(host_command_identifier=state.command.identifier, command=state.command.name)
        result_after_loss(job, state, host)


def result_after_loss(job: Job, state: JobState, host: HostContext) -> CommandResult:
    """The result of a command whose worker is gone, after putting the host in order; the record has it, too."""
    try:
        job.note_worker(this_process())
    except OSError as error:
        # What is to be ended and undone matters more than who does it.
        log.warning("worker_not_noted", error=str(error))
    return keep_result(job, _clean_up(state, host))


def _clean_up(state: JobState, host: HostContext) -> CommandResult:
    if state.deployment is not None:
        remove_abandoned_mark(state.command.identifier, state.deployment.deployment_id, host)
    if state.deployment is None or state.command.name != INSTALL:
        return _end_event(state, host)
    group_id = state.deployment.deployment_group_id
    try:
        with holding_group(group_id, host):
            undone = recover_group(group_id, host.root)
    except CommandFailure as failure:
        log.error("recovery_failed", error=failure.message, error_id=failure.error_id)
        # At another step it is an earlier Install of the group that could not be completed.
        if isinstance(failure, InstallNotCompleted) and state.step == COMMIT:
            return failed_result(failure)
        return lost_result(state, f"Its Install could not be undone: {failure.message}")
    if state.step == COMMIT and not undone and _has_taken_effect(state.deployment, host):
        return _complete_install(state.deployment, host)
    if undone:
        return lost_result(state, "Its Install has been undone: the previous revision is whole again.")
    return lost_result(state, "Its Install had not changed anything, or had been completed.")


def recover_interrupted(host: HostContext) -> None:
    """Undo or complete every Install that was interrupted, whoever had begun it; failures are logged.

    Those that a record speaks of are left to whoever works on that record, and reports what came of it.
    """
    spoken_for = set(_groups_with_install(JobStore(host.settings.state_directory)))
    for group_id in [
        group for group in interrupted_groups(host.root.instructions) if group not in spoken_for
    ]:
        try:
            with holding_group(group_id, host):
                recover_group(group_id, host.root)
        except CommandFailure as failure:
            log.error("recovery_failed", group_id=group_id, error=failure.message, error_id=failure.error_id)


def _groups_with_install(jobs: JobStore) -> Iterator[str]:
    for job in jobs.jobs():
        with contextlib.suppress(OSError):
            state = job.read()
            if state is not None and state.deployment is not None and state.command.name == INSTALL:
                yield state.deployment.deployment_group_id


def _has_taken_effect(deployment: DeploymentFacts, host: HostContext) -> bool:
    """Whether what is installed now is of this deployment; somebody else may have undone its Install meanwhile."""
    # Rare, and no other command than Install needs this package.
    from agent.install import installed_deployment  # noqa: PLC0415

    try:
        installed = installed_deployment(host.root.instructions, deployment.deployment_group_id)
    except OSError as error:
        log.warning("install_records_unreadable", error=str(error))
        return False
    return installed == deployment.deployment_id


def _complete_install(deployment: DeploymentFacts, host: HostContext) -> CommandResult:
    """The new revision is there; all that was left to do was to complete its Install, and to say so."""
    group_id = deployment.deployment_group_id
    try:
        point_at_installed(deployment.deployment_id, group_id, host.root)
    except CommandFailure as failure:
        return failed_result(failure)
    log.info("install_completed_after_worker_died", group_id=group_id)
    return succeeded_result()


def _end_event(state: JobState, host: HostContext) -> CommandResult:
    ended = _end_script(state.script, state) if state.script else ""
    deployment = state.deployment
    if deployment is None:
        return lost_result(state, ended)
    directory = host.root.deployment(deployment.deployment_group_id, deployment.deployment_id)
    output = last_output(directory.scripts_log, state.command.name, is_script_known=state.script is not None)
    return lost_result(state, f"{ended}What its scripts have done so far is as they left it.", output)


def _end_script(script: RecordedProcess, state: JobState) -> str:
    """End what is left of a hook script; a sentence about it, empty when nothing was left."""
    if script.boot_id != boot_id():
        return ""
    # psutil is only loaded where there may be something to end.
    from agent.lifecycle import HookProcess, end_abandoned_hook  # noqa: PLC0415

    ending = end_abandoned_hook(
        HookProcess(pid=script.pid, start_ticks=script.start_ticks),
        deployment_id=state.deployment.deployment_id if state.deployment else "",
        event=state.command.name,
    )
    if not ending.running:
        return ""
    log.warning("abandoned_script_ended", running=ending.running, survivors=ending.survivors or None)
    ended = [process for process in ending.running if process not in ending.survivors]
    sentences = f"Its script was still running and has been ended: {', '.join(ended)}. " if ended else ""
    if ending.survivors:
        sentences += f"This could not be ended: {', '.join(ending.survivors)}. "
    return sentences

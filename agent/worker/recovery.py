"""After a worker that died: end what it had running, undo what it had half done, and say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.deployments.group_files import interrupted_groups
from agent.deployments.jobs import COMMIT
from agent.deployments.pointers import write_pointer
from agent.errors import CommandFailure
from agent.logs import get_logger
from agent.processes import boot_id
from agent.protocol import INSTALL
from agent.worker.directories import holding_group, keeping_in, recover_group
from agent.worker.ongoing import remove_abandoned_mark
from agent.worker.results import failed_result, lost_result, succeeded_result

if TYPE_CHECKING:
    from agent.deployments import CommandResult, DeploymentFacts, JobState, RecordedProcess
    from agent.worker.context import HostContext, WorkerContext

log = get_logger()


def failed_after_restart(state: JobState, context: WorkerContext) -> CommandResult:
    """The result of a command whose worker is gone, after putting the host in order."""
    if state.deployment is not None:
        remove_abandoned_mark(state.command.identifier, state.deployment.deployment_id, context.host)
    if state.deployment is None or state.command.name != INSTALL:
        ended = _end_script(state.script) if state.script else ""
        return lost_result(state, f"{ended}What its scripts have done so far is as they left it.")
    group_id = state.deployment.deployment_group_id
    try:
        with holding_group(group_id, context.host):
            undone = recover_group(group_id, context.host)
    except CommandFailure as failure:
        log.error("undo_failed", error=failure.message, error_id=failure.error_id)
        return lost_result(state, f"Its Install could not be undone: {failure.message}")
    if state.step == COMMIT and not undone:
        return _complete_install(state.deployment, context)
    if undone:
        return lost_result(state, "Its Install has been undone: the previous revision is whole again.")
    return lost_result(state, "Its Install had not changed anything, or had been completed.")


def recover_interrupted(host: HostContext) -> None:
    """Undo or complete every Install that was interrupted, whoever had begun it; failures are logged."""
    for group_id in interrupted_groups(host.root.instructions):
        try:
            with holding_group(group_id, host):
                recover_group(group_id, host)
        except CommandFailure as failure:
            log.error("undo_failed", group_id=group_id, error=failure.message, error_id=failure.error_id)


def _complete_install(deployment: DeploymentFacts, context: WorkerContext) -> CommandResult:
    """The new revision is there; all that the worker still had to do was to name it as the last successful one."""
    root, group_id = context.host.root, deployment.deployment_group_id
    try:
        with keeping_in(root.instructions):
            current = root.deployment(group_id, deployment.deployment_id)
            write_pointer(root.last_successful(group_id), current)
    except CommandFailure as failure:
        return failed_result(failure)
    log.info("install_completed_after_worker_died", group_id=group_id)
    return succeeded_result()


def _end_script(script: RecordedProcess) -> str:
    """End what is left of a hook script; a sentence about it, empty when nothing was left."""
    if script.boot_id != boot_id():
        return ""
    # psutil is only loaded where there may be something to end.
    from agent.lifecycle.context import HookProcess  # noqa: PLC0415
    from agent.lifecycle.ending import end_abandoned_hook  # noqa: PLC0415

    ending = end_abandoned_hook(HookProcess(pid=script.pid, start_ticks=script.start_ticks))
    if not ending.running:
        return ""
    log.warning("abandoned_script_ended", running=ending.running, survivors=ending.survivors or None)
    if ending.survivors:
        return f"Its script could not be ended: {', '.join(ending.survivors)}. "
    return f"Its script was still running and has been ended: {', '.join(ending.running)}. "

"""Running the hook scripts of one lifecycle event."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.lifecycle.accounts import find_account
from agent.lifecycle.adoption import adopting_orphans, hearing_of_children
from agent.lifecycle.environment import is_refused
from agent.lifecycle.output import EVENT_NOTE
from agent.lifecycle.recorder_shelf import RecorderShelf
from agent.lifecycle.script_failures import ScriptMissing
from agent.lifecycle.script_log import ScriptLog
from agent.lifecycle.script_run import ScriptRun
from agent.logs import get_logger
from agent.protocol import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.appspec import HookScript
    from agent.lifecycle.context import HookContext
    from agent.lifecycle.recorder_client import Recorder

log = get_logger()

# What the deployment's option for failures of ApplicationStop covers.
_IGNORABLE_EVENTS = ("ApplicationStop", "BeforeBlockTraffic", "AfterBlockTraffic")
LOCAL_SUFFIX = "-local"  # of the id of a deployment that `agentctl deploy` has made


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """What an event that succeeded has to say.

    Attributes:
        tail: the last 2,048 characters at most of what was logged, without times.
    """

    tail: str


def never() -> bool:
    """A deployment that nobody stops."""
    return False


def run_event(
    scripts: Sequence[HookScript], context: HookContext, cancelled: Callable[[], bool] = never
) -> EventLog:
    """Afterwards all scripts have run, one after the other, and each has succeeded.

    Must be called in the main thread of a process that waits for no other children meanwhile: it
    adopts and reaps orphans. Signals that this process ignores are ignored by the scripts, too, so
    it should handle those that it does not want.

    Args:
        scripts: in the order of the AppSpec file.
        context: what they have in common.
        cancelled: asked four times a second; once it says True, the running script is ended.

    Raises:
        CommandFailure: a script failed, and those after it did not run. With the location of that
            script, and the tail of what was logged.
    """
    _warn_of_refused_variables(scripts, context)
    recorder = _start_recorder(context)
    recorder.note(f"{EVENT_NOTE}{context.event}")
    run: ScriptRun | None = None
    try:
        accounts = [find_account(script) for script in scripts]
        with hearing_of_children(), adopting_orphans() as adopter:
            script_pids: list[int] = []
            for script, account in zip(scripts, accounts, strict=True):
                run = ScriptRun(script, account, context, recorder, adopter=adopter, script_pids=script_pids)
                script_pids.append(run.run(cancelled))
        tail = recorder.tail()
    except BaseException as error:
        if isinstance(error, CommandFailure):
            _complete(error, context, recorder, has_begun=run is not None and run.has_begun)
        recorder.close()
        raise
    if context.recorders is None:
        recorder.close()
    else:
        context.recorders.put_back(recorder)
    return EventLog(tail=tail)


def _start_recorder(context: HookContext) -> Recorder:
    try:
        script_log = ScriptLog(
            context.scripts_log,
            context.deployments_log,
            context.deployment_id,
            max_bytes=context.max_log_bytes,
        )
        shelf = context.recorders or RecorderShelf()
        return shelf.take(script_log, answer_s=context.patience.recorder_s)
    except OSError as error:
        raise CommandFailure(
            "hook-not-startable",
            f"The scripts of {context.event} can't be started: {error.strerror} (error {error.errno}). "
            "Look at the memory, the process limits and the open files of the host.",
            code=ErrorCode.SCRIPT_FAILED,
        ) from error


def _complete(failure: CommandFailure, context: HookContext, recorder: Recorder, *, has_begun: bool) -> None:
    """Add what only the event knows: whose script it was, where its output is, and what it said last."""
    failure.log = recorder.failure_tail()
    if context.is_of_earlier:
        _blame_earlier_deployment(failure, context)
    if missing := recorder.missing_output():
        failure.add(f"Its output is in {context.scripts_log}, but {missing}.")
    else:
        failure.add(f"The whole output is in {context.scripts_log}.")
    # At the very end, where people look first. What an earlier script has printed is none of it.
    if has_begun and (words := recorder.last_words()):
        failure.add(f"Last of its {words}{'' if words.endswith('.') else '.'}")


def _blame_earlier_deployment(failure: CommandFailure, context: HookContext) -> None:
    script = os.path.join(context.archive, failure.script_name.lstrip("/")) if failure.script_name else ""
    where = f" ({script})" if script else ""
    failure.add(
        f"At {context.event} the scripts of the earlier deployment {context.scripts_of} run{where}, "
        f"and not those of {context.deployment_id}, which is to come: changing the new revision does not help."
    )
    failure.add(f"{_remedy(failure, script)}{_way_out(context)}.")


def _remedy(failure: CommandFailure, script: str) -> str:
    if isinstance(failure, ScriptMissing) and script:
        return f"Put a script back at {script}"
    return "Repair the script in that deployment's archive"


def _way_out(context: HookContext) -> str:
    """How to get past a script of an earlier revision; nothing ignores failures of other events than these."""
    if context.event not in _IGNORABLE_EVENTS:
        return ""
    if context.deployment_id.endswith(LOCAL_SUFFIX):
        return (
            f", or leave {context.event} out (agentctl deploy --events), or pass over its failure "
            "(--ignore-application-stop-failures)"
        )
    return ", or deploy with failures of ApplicationStop ignored"


def _warn_of_refused_variables(scripts: Sequence[HookScript], context: HookContext) -> None:
    names = {name for script in scripts for name in script.environment} | set(context.environment.additions)
    refused = sorted(name for name in names if is_refused(name))
    if refused:
        log.warning("hook_variables_refused", names=refused)

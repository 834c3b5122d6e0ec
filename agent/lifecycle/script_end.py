"""How a script comes to its end: its orphans, its output, and, where it has to be ended, all that it has started."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.lifecycle.accounts import find_sudo
from agent.lifecycle.adoption import find_earlier_processes, reap_orphans
from agent.lifecycle.descendants import OtherProcesses
from agent.lifecycle.outcome import Ended
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.appspec import HookScript
    from agent.lifecycle.context import HookContext
    from agent.lifecycle.recorder_client import Recorder
    from agent.lifecycle.script_process import ScriptProcess
    from agent.lifecycle.streams import ScriptStreams

log = get_logger()

_MOMENT_S = 0.001


class ScriptEnd:
    """What is done when a script is over, or has to be. It must be made before the script starts.

    Args:
        script: as the AppSpec has it.
        context: of its event.
        recorder: records its output.
        adopter: pid of the process that adopts the orphans of the script; None = nobody does.
        script_pids: of the scripts that have run before.
    """

    def __init__(
        self,
        script: HookScript,
        context: HookContext,
        recorder: Recorder,
        *,
        adopter: int | None,
        script_pids: Collection[int],
    ) -> None:
        self._script = script
        self._context = context
        self._recorder = recorder
        self._adopter = adopter
        self._earlier = find_earlier_processes(script_pids)

    def reap(self, process: ScriptProcess) -> None:
        """Reap what the script has left to this process, but for what belongs to the run of the script."""
        if self._adopter is not None:
            reap_orphans(spared=process.own)

    def finish_output(self, streams: ScriptStreams) -> tuple[str, ...]:
        """Have what is left recorded; who still holds the output then, each as `pid 88 node app.js`."""
        patience = self._context.patience
        is_strict = self._context.fail_on_open_output
        state = self._recorder.settle(within_s=patience.open_output_s if is_strict else patience.output_s)
        if not state.is_open:
            return ()
        from agent.lifecycle.hook_processes import describe_process, find_holders  # noqa: PLC0415 - as below

        reader = self._recorder.pid
        spared = (os.getpid(), reader)
        holders = tuple(describe_process(pid) for pid in find_holders(streams.pipes, spared=spared))
        log.warning("hook_output_left_open", script=self._script.location, holders=holders, reader=reader)
        return holders

    def end(self, process: ScriptProcess) -> Ended:
        """End the script with everything that it started."""
        # Imported here: psutil costs 12 ms, and few scripts need to be ended.
        from agent.lifecycle.ending import end_processes  # noqa: PLC0415
        from agent.lifecycle.hook_processes import HookProcesses  # noqa: PLC0415

        # The answer comes later: a recorder that is stuck must not delay the end of the script.
        self._recorder.mark_silence()

        def wait(seconds: float) -> None:
            time.sleep(seconds)
            process.reap()
            self.reap(process)

        def others() -> OtherProcesses:
            return self._others(process)

        processes = HookProcesses(process.script_pid, adopter=self._adopter, others=others)
        patience = self._context.patience
        ending = end_processes(processes, wait, patience=patience, sudo=self._sudo())
        process.finish()
        wait(_MOMENT_S)
        state = self._recorder.settle(within_s=patience.output_s)
        log.warning(
            "hook_ended_by_agent",
            script=self._script.location,
            pid=process.script_pid,
            running=ending.running,
            survivors=ending.survivors,
        )
        return Ended(running=ending.ended, survivors=ending.survivors, silent_s=state.silent_s)

    def _others(self, process: ScriptProcess) -> OtherProcesses:
        """What is none of the script's; the recorder may have been replaced since the script was started."""
        earlier = self._earlier.others()
        keeper = () if process.keeper is None else (process.keeper,)
        return OtherProcesses(pids={*earlier.pids, self._recorder.pid, *keeper}, sessions=earlier.sessions)

    def _sudo(self) -> str | None:
        """Through what we may end a script that was started through it."""
        if not self._script.sudo:
            return None
        # Its environment, but for what belongs to its user.
        variables = self._context.environment.for_script(self._script.environment, user={})
        try:
            return find_sudo(self._script, variables)
        except CommandFailure:  # gone since the script was started
            return None

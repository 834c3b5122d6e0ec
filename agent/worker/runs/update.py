"""UpdateDeploymentAgent: the service wants this agent to become another one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from agent.errors import CommandFailure
from agent.worker.results import succeeded_result

if TYPE_CHECKING:
    from agent.deployments import CommandResult
    from agent.worker.context import HostContext

_PATIENCE_S = 900
_SHOWN_BYTES = 2000


class UpdateRun:
    """Runs the administrator's command, or says that there is none."""

    is_noop = False

    def __init__(self, host: HostContext) -> None:
        self._command = host.settings.agent_update_command

    def carry_out(self) -> CommandResult:
        """Run `agent_update_command`, without a shell."""
        if self._command is None:
            raise CommandFailure(
                "update-not-allowed",
                "The service asked this agent to update itself, and it never does that by itself. Update it with "
                "the host's package manager, or set agent_update_command to the command that does so.",
            )
        with tempfile.TemporaryFile() as output:
            code = self._run(self._command, output)
            output.seek(max(0, output.tell() - _SHOWN_BYTES))
            tail = output.read().decode("utf-8", "replace")
        if code != 0:
            raise self._failure(f"it exited with {code}", tail)
        return succeeded_result(log=tail)

    def _run(self, command: str, output: BinaryIO) -> int:
        """The exit code. Output goes to a file, so that a child which keeps it open delays nobody."""
        try:
            process = subprocess.Popen(
                shlex.split(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise self._failure(str(error), "") from error
        try:
            return process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise self._failure(f"it was still running after {_PATIENCE_S} s and was ended", "") from None
        finally:
            output.seek(0, os.SEEK_END)

    def _failure(self, why: str, output: str) -> CommandFailure:
        return CommandFailure(
            "update-failed",
            f"agent_update_command `{self._command}` failed: {why}. Run it by hand to see what it needs.",
            log=output,
        )

"""UpdateDeploymentAgent: the service wants this agent to become another one."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.worker.results import succeeded_result

if TYPE_CHECKING:
    from agent.deployments import CommandResult
    from agent.worker.context import HostContext

_PATIENCE_S = 900
_SHOWN_CHARACTERS = 2000


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
        try:
            done = subprocess.run(
                shlex.split(self._command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_PATIENCE_S,
                check=False,
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise self._failure(str(error), "") from error
        output = done.stdout.decode("utf-8", "replace")[-_SHOWN_CHARACTERS:]
        if done.returncode != 0:
            raise self._failure(f"it exited with {done.returncode}", output)
        return succeeded_result(log=output)

    def _failure(self, why: str, output: str) -> CommandFailure:
        return CommandFailure(
            "update-failed",
            f"agent_update_command `{self._command}` failed: {why}. Run it by hand to see what it needs.",
            log=output,
        )

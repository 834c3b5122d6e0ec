"""UpdateDeploymentAgent: the service asks the agent to update itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.worker.configured_command import run_configured
from agent.worker.results import succeeded_result

if TYPE_CHECKING:
    from agent.deployments import CommandResult
    from agent.worker.context import HostContext

_PATIENCE_S = 900


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
        outcome = run_configured(self._command, patience_s=_PATIENCE_S, environment={})
        if outcome.problem:
            raise CommandFailure(
                "update-failed",
                f"agent_update_command `{self._command}` failed: {outcome.problem}. "
                "Run it by hand to see what it needs.",
                log=outcome.output,
            )
        return succeeded_result(log=outcome.output)

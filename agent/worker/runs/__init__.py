"""What each host command does. One file per kind, loaded only when a command of that kind has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent.deployments.group import check_group_id
from agent.errors import CommandFailure
from agent.protocol import (
    DOWNLOAD_BUNDLE,
    IN_PLACE_ORDER,
    INSTALL,
    LIFECYCLE_EVENTS,
    UPDATE_DEPLOYMENT_AGENT,
)
from agent.worker.runs.event import EventRun

if TYPE_CHECKING:
    from agent.deployments import CommandResult
    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext


class Run(Protocol):
    """A command that is ready to be run."""

    @property
    def is_noop(self) -> bool:
        """Whether there is nothing to do; the service is told before the run."""

    def carry_out(self) -> CommandResult:
        """Do it.

        Raises:
            CommandFailure: it failed.
        """


def choose_run(command_name: str, specification: DeploymentSpecification, host: HostContext) -> Run:
    """What this command asks for.

    Raises:
        CommandFailure: the AppSpec that it needs can't be used, or the group has an impossible name.
    """
    check_group_id(specification.deployment_group_id, tracking_name=host.settings.ongoing_deployment_tracking)
    # Imported here, where they are wanted: some cost more than a command without scripts may take in all.
    if command_name == DOWNLOAD_BUNDLE:
        from agent.worker.runs.download import DownloadRun  # noqa: PLC0415

        return DownloadRun(specification, host)
    if command_name == INSTALL:
        from agent.worker.runs.install import InstallRun  # noqa: PLC0415

        return InstallRun(specification, host)
    if command_name == UPDATE_DEPLOYMENT_AGENT:
        from agent.worker.runs.update import UpdateRun  # noqa: PLC0415

        return UpdateRun(host)
    run = EventRun(command_name, specification, host)
    if command_name in LIFECYCLE_EVENTS or run.is_mapped:
        return run
    return _Unknown(command_name)


class _Unknown:
    """A command that nobody here knows. It is taken, so that the service learns why it fails."""

    is_noop = False

    def __init__(self, name: str) -> None:
        self._name = name

    def carry_out(self) -> CommandResult:
        # Only a failure needs it.
        from agent.appspec.reading import nearest  # noqa: PLC0415

        hint = nearest(self._name, (*IN_PLACE_ORDER, UPDATE_DEPLOYMENT_AGENT)) or "."
        raise CommandFailure(
            "command-unknown",
            f"This agent does not know the command {self._name}{hint} No AppSpec on this host has scripts for an "
            "event of that name either. Check the name; a newer service may need a newer agent.",
        )

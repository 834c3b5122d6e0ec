"""What a worker is given by the daemon that forked it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.deployments import DeploymentRoot, History, JobStore
from agent.endpoint import SharedThrottle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.endpoint import HostCommandClient
    from agent.identity import HostIdentity
    from agent.lifecycle import HookProcess, RecorderShelf
    from agent.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class HostContext:
    """This host and how it is set up: all that work on it needs, with or without a control endpoint.

    Attributes:
        settings: of the agent.
        identity: who this host is; None for a local deployment on a host that has not been told.
        s3_url: S3 service without bucket; empty when the region is not known.
        environment: what the agent was started with; hooks inherit most of it.
        on_script_started: told of each hook script, see `HookContext.on_started`.
        on_script_ended: told when it runs no more.
        on_step: told of each step beyond `run` that Install is about to take: `commit`, `undo`.
        is_cancelled: asked often while a hook script runs or a bundle is downloaded; once True, that is ended.
        recorders: see `HookContext.recorders`.
        hook_identity: AWS_REGION and AWS_HOST_IDENTIFIER for hooks.
    """

    settings: Settings
    identity: HostIdentity | None
    s3_url: str
    environment: Mapping[str, str]
    on_script_started: Callable[[HookProcess], None] = lambda _script: None
    on_script_ended: Callable[[], None] = lambda: None
    on_step: Callable[[str], None] = lambda _step: None
    is_cancelled: Callable[[], bool] = lambda: False
    recorders: RecorderShelf | None = None

    @property
    def root(self) -> DeploymentRoot:
        """The deployment root."""
        return DeploymentRoot(path=self.settings.root_dir)

    @property
    def hook_identity(self) -> dict[str, str]:
        """What the existing agents tell hooks of the host."""
        if self.identity is None:
            return {}
        return {
            "AWS_REGION": self.identity.region,
            "AWS_HOST_IDENTIFIER": self.identity.host_identifier,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """Everything around one host command. Nothing here is shared with the daemon any more.

    Attributes:
        client: for the one thread that carries the command.
        make_client: another one, with a connection of its own.
    """

    host: HostContext
    host_identifier: str
    client: HostCommandClient
    make_client: Callable[[], HostCommandClient]

    @property
    def settings(self) -> Settings:
        """Of the agent."""
        return self.host.settings

    @property
    def jobs(self) -> JobStore:
        """The records of all commands."""
        return JobStore(self.settings.state_directory)

    @property
    def history(self) -> History:
        """What came of earlier commands."""
        return History(self.settings.state_directory)

    @property
    def throttle(self) -> SharedThrottle:
        """The pause that all processes of this agent keep."""
        return SharedThrottle(self.settings.state_directory)

"""The deployment specification: everything that the service says about one deployment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.protocol import FileExistsBehavior

if TYPE_CHECKING:
    from agent.protocol import Secret
    from agent.specification.revision import Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownFileExistsBehavior:
    """A behavior that this agent doesn't know. It matters to Install only, so only Install fails."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpecification:
    """One deployment on this host.

    Attributes:
        deployment_id: short form (`d-ABC`), fit to be one path component.
        deployment_group_id: fit to be one path component.
        creator: who started it: `user`, `autoscaling`, `codeDeployRollback`, or any newer word.
        deployment_type: `IN_PLACE`, `BLUE_GREEN`, or any newer word.
        appspec_filename: path of the AppSpec below the archive's root; None = the usual names.
        file_exists_behavior: as the service wants it; read it with `known_file_exists_behavior`.
        possible_events: the only lifecycle events that an AppSpec may name; None = any.
        reuse_archive_from: an earlier deployment whose archive serves this one as well;
            fit to be one path component, and never this deployment.
    """

    deployment_id: str
    deployment_group_id: str
    deployment_group_name: str
    application_name: str
    revision: Revision
    creator: str = "user"
    deployment_type: str = "IN_PLACE"
    appspec_filename: str | None = None
    file_exists_behavior: FileExistsBehavior | UnknownFileExistsBehavior = FileExistsBehavior.DISALLOW
    possible_events: frozenset[str] | None = None
    github_token: Secret | None = None
    reuse_archive_from: str | None = None

    @property
    def is_blue_green_rollback(self) -> bool:
        """Some events then run the scripts of other revisions than usual."""
        return self.deployment_type == "BLUE_GREEN" and self.creator == "codeDeployRollback"

    @property
    def known_file_exists_behavior(self) -> FileExistsBehavior:
        """`file_exists_behavior`, for the one command that needs it.

        Raises:
            CommandFailure: the service wants a behavior that this agent doesn't know.
        """
        if isinstance(self.file_exists_behavior, FileExistsBehavior):
            return self.file_exists_behavior
        raise CommandFailure(
            "specification-file-exists-behavior-unknown",
            f'Deployment {self.deployment_id} asks for "{self.file_exists_behavior.text}" where files exist already, '
            "but this agent knows DISALLOW, OVERWRITE and RETAIN only. "
            "Create the deployment again with one of these, or set file_exists_behavior in the bundle, which wins.",
        )

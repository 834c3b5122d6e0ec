"""The deployments of a group that a command may have to do with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.deployments.pointers import read_pointer
from agent.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from agent.deployments import DeploymentDirectory
    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext

_APPSPEC_NAME = ".appspec-filename"


class GroupRevisions:
    """The current deployment and its predecessors, as they lie on this host."""

    def __init__(self, specification: DeploymentSpecification, host: HostContext) -> None:
        self._root = host.root
        self._group_id = specification.deployment_group_id
        self.current = self._root.deployment(self._group_id, specification.deployment_id)

    @property
    def last_successful(self) -> DeploymentDirectory | None:
        """The deployment whose Install last succeeded, if it is still here."""
        return read_pointer(self.last_successful_file, group=self._root.group(self._group_id))

    @property
    def most_recent(self) -> DeploymentDirectory | None:
        """The deployment that was last downloaded, if it is still here."""
        return read_pointer(self.most_recent_file, group=self._root.group(self._group_id))

    @property
    def last_successful_file(self) -> Path:
        """Where it is written which deployment that is."""
        return self._root.last_successful(self._group_id)

    @property
    def most_recent_file(self) -> Path:
        """Where it is written which deployment that is."""
        return self._root.most_recent(self._group_id)


def note_appspec_filename(directory: DeploymentDirectory, filename: str | None) -> None:
    """Keep how this revision names its AppSpec: later deployments may name theirs differently."""
    if filename is not None:
        replace_file(directory.path / _APPSPEC_NAME, filename.encode("utf-8", "surrogateescape"))


def appspec_filename(directory: DeploymentDirectory, otherwise: str | None) -> str | None:
    """How this revision names its AppSpec.

    For a revision that another agent has downloaded, `otherwise`: the name that the deployment at
    hand uses is the best guess then.
    """
    try:
        return (directory.path / _APPSPEC_NAME).read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return otherwise

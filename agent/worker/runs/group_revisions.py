"""The deployments of a group that a command may have to do with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.deployments.pointers import read_pointer
from agent.files import read_file, replace_file

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
    """Keep how this revision names its AppSpec, or that it has a usual name: later deployments may name theirs differently."""
    kept = (filename or "").encode("utf-8", "surrogateescape")
    # Where the host loses it, a usual name is what is looked for; waiting for the disk is for the others.
    replace_file(directory.path / _APPSPEC_NAME, kept, durable=bool(kept))


def earlier_appspec_filename(directory: DeploymentDirectory, current: str | None) -> str | None:
    """How this revision, which an earlier deployment has fetched, names its AppSpec; None = as usual.

    Another agent keeps no names. Of what that has fetched, the file counts that has the name of the deployment at
    hand, and where there is none, one with a usual name.

    Args:
        directory: of the earlier deployment.
        current: the name that the deployment at hand uses.

    Raises:
        OSError: the name can't be read.
    """
    try:
        kept = read_file(directory.path / _APPSPEC_NAME).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        has_same = current is not None and os.path.lexists(directory.archive / current.lstrip("/"))
        return current if has_same else None
    return kept or None

"""Files that name a deployment directory: the last successful one, the most recent one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.deployments.layout import DeploymentDirectory
from agent.files import is_directory, read_file, replace_file

if TYPE_CHECKING:
    from pathlib import Path


def read_pointer(pointer: Path, *, group: Path) -> DeploymentDirectory | None:
    """The deployment directory that this file names.

    None when there is no such file, when the directory is gone, or when it does not lie right
    below the group's directory: a pointer decides which scripts run as root.

    Raises:
        OSError: it can't be read, or it can't be told whether the directory is there.
    """
    target = named_by(pointer)
    if not target or "\0" in target:
        return None
    path = group / os.path.basename(target)
    if os.path.normpath(target) != str(path) or not is_directory(path):
        return None
    return DeploymentDirectory(path=path)


def named_by(pointer: Path) -> str | None:
    """What this file says, whatever that is worth; None when there is no such file.

    Raises:
        OSError: it can't be read.
    """
    try:
        return os.fsdecode(read_file(pointer).strip())
    except FileNotFoundError:
        return None


def write_pointer(pointer: Path, directory: DeploymentDirectory) -> None:
    """Afterwards the file names this deployment directory, also after a power loss."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    replace_file(pointer, os.fsencode(directory.path))

"""How a step of an Install fails."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.install.model.steps import PlannedFiles


class StepFailed(Exception):
    """A step of an Install failed on `path`; `error` says why."""

    def __init__(self, path: bytes, error: OSError) -> None:
        super().__init__(f"{os.fsdecode(path)}: {error.strerror or error}")
        self.path = path
        self.error = error

    def __reduce__(self) -> tuple[type[StepFailed], tuple[bytes, OSError]]:
        """It goes from one process to another."""
        return StepFailed, (self.path, OSError(self.error.errno, self.error.strerror))


def failed_step(files: PlannedFiles, position: int, error: OSError) -> StepFailed:
    """The failure of the planned file at this position.

    What has gone from the archive is told from what has changed at the destination: planned anew, it would simply
    be left out of the revision.
    """
    name = files.names[position]
    source = files.source_directory + b"/" + name
    if error.errno == errno.ENOENT and not os.path.lexists(source):
        gone = (
            f"{os.fsdecode(source)}, which is to be installed there, has been removed from the deployment archive"
            " since this Install began"
        )
        error = OSError(errno.EIDRM, gone)
    return StepFailed(files.prefix + name, error)

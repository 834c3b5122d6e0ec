"""The mark that says: take no more commands."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.files import replace_file
from agent.processes import boot_id

if TYPE_CHECKING:
    from pathlib import Path


class DrainMark:
    """`draining` in the state directory. It holds the boot id and counts only until the next boot.

    So a restart of the agent, by hand or by its supervisor, does not undo it; and a host that is
    started from an image of a drained one takes commands.
    """

    def __init__(self, state_directory: Path) -> None:
        self.path = state_directory / "draining"

    def put(self) -> None:
        """From now on the agent takes no commands, until the mark is removed or the host is rebooted.

        Raises:
            OSError: it can't be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.path, boot_id().encode())

    def remove(self) -> None:
        """The agent may take commands.

        Raises:
            OSError: it can't be removed.
        """
        self.path.unlink(missing_ok=True)

    def counts(self) -> bool:
        """Whether the agent is to take no commands.

        A mark that is there but can't be read counts: somebody has put it, and a host that is about to be switched
        off must not begin a deployment because no descriptor is left, say.
        """
        try:
            return self.path.read_bytes().decode("ascii", "replace").strip() == boot_id()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        except OSError:
            return os.path.lexists(self.path)

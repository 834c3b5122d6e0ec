"""One agent per deployment root: a lock that is held for life, and goes with its holder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from agent.errors import AgentAlreadyRuns


class RootLock:
    """The lock on a deployment root. It lies on the directory itself, so nothing is ever left behind."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._descriptor = -1

    def acquire(self) -> None:
        """Afterwards this process owns the root.

        Raises:
            AgentAlreadyRuns: another one does; the message names it.
        """
        self._descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.fstat(self._descriptor))
            self.forget()
            raise AgentAlreadyRuns(
                f"Another agent {holder} owns the deployment root {self._root}. Stop that one first, "
                "or give this one another root_dir."
            ) from None

    def forget(self) -> None:
        """Close our copy of the lock; for a forked worker, which must not keep it alive."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _holder(directory: os.stat_result) -> str:
    """Who holds the lock, as far as the kernel tells."""
    device = f"{os.major(directory.st_dev):02x}:{os.minor(directory.st_dev):02x}:{directory.st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        pid = next(line.split()[4] for line in lines if device in line.split())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (OSError, StopIteration):
        return "(of which nothing more is known)"
    return f"(pid {pid}: {command.strip()})"

"""One agent per deployment root and state directory: locks that are held for life, and go with their holder."""

from __future__ import annotations

import os
from pathlib import Path

from agent.errors import AgentAlreadyRuns, DirectoryNotLockable
from agent.files import lock_file, lock_holder, take_lock


class AgentLock:
    """Locks on directories that one agent owns. They lie on a file in each, see `open_lock`."""

    def __init__(self, *directories: Path) -> None:
        self._directories = directories
        self._descriptors: list[int] = []

    def acquire(self) -> None:
        """Afterwards this process owns all of them.

        Raises:
            AgentAlreadyRuns: another one owns one of them; the message names it.
            DirectoryNotLockable: one of them can't be locked.
        """
        for directory in self._directories:
            try:
                self._acquire(directory)
            except OSError as error:
                self.forget()
                raise DirectoryNotLockable(
                    f"{directory} can't be locked, which would keep a second agent away from it: "
                    f"{error.strerror or error}. Look at its permissions, its file system and the open files of the host."
                ) from error

    def _acquire(self, directory: Path) -> None:
        descriptor = take_lock(lock_file(directory))
        if descriptor is None:
            holder = _described(lock_holder(lock_file(directory)))
            self.forget()
            raise AgentAlreadyRuns(
                f"Another agent {holder} owns {directory}. Stop that one first, or give this one a root_dir "
                "and a pid_dir of its own."
            )
        self._descriptors.append(descriptor)

    def forget(self) -> None:
        """Close our copies of the locks; for a forked worker, which must not keep them alive."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def _described(pid: int | None) -> str:
    """Who that is, as far as the kernel tells."""
    if pid is None:
        return "(of which nothing more is known)"
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return f"(pid {pid})"
    return f"(pid {pid}: {command.strip()})"

"""Limits of processes and memory for one host, by control groups of version 1 or 2."""

from __future__ import annotations

import contextlib
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
# Mounted beside the controllers of version 1, or instead of them; names of the files for memory in both.
_MEMORY_FILES = (("memory.max", "max"), ("memory.limit_in_bytes", "-1"))
_EVENT_FILES = ("memory.events", "memory.oom_control")


class ControlGroups:
    """Made when they are first needed; each controller that this machine does not have is done without."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pids: Path | None = None
        self._memory: Path | None = None

    def adopt(self, pid: int) -> None:
        """From now on this process, and what it starts, counts."""
        self._pids = self._pids or _made("pids", self._name, "pids.max")
        if self._pids is not None:
            (self._pids / "cgroup.procs").write_text(str(pid))

    def limit_pids(self) -> bool:
        """No process can be started until `unlimit_pids`; False when that can't be done."""
        if self._pids is None:
            return False
        (self._pids / "pids.max").write_text((self._pids / "pids.current").read_text())
        return True

    def unlimit_pids(self) -> None:
        """Processes can be started again."""
        if self._pids is not None:
            (self._pids / "pids.max").write_text("max")

    def limit_memory(self, pid: int, spare_bytes: int) -> bool:
        """This process, and what it starts, is killed once it takes that much more; False when that can't be done.

        Raises:
            ProcessLookupError: there is no such process any more.
        """
        self._memory = self._memory or _made("memory", self._name, *(name for name, _ in _MEMORY_FILES))
        if self._memory is None:
            return False
        for name, _ in _MEMORY_FILES:
            if (self._memory / name).exists():
                # What it has by now counts where it was taken. Less than a few pages can't be written.
                (self._memory / name).write_text(str(spare_bytes + 2**16))
        (self._memory / "cgroup.procs").write_text(str(pid))
        return True

    def unlimit_memory(self) -> None:
        """What has survived is a worker that is kept for further commands."""
        if self._memory is not None:
            for name, most in _MEMORY_FILES:
                if (self._memory / name).exists():
                    (self._memory / name).write_text(most)

    def killed_for_memory(self) -> int:
        """How many processes the kernel has killed."""
        if self._memory is not None:
            for name in _EVENT_FILES:
                with contextlib.suppress(OSError):
                    lines = (self._memory / name).read_text().splitlines()
                    found = [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
                    return sum(found)
        return 0

    def remove(self) -> None:
        """Nothing is left of them; their processes must be gone."""
        for group in (self._pids, self._memory):
            if group is not None:
                with contextlib.suppress(OSError):
                    group.rmdir()


def _made(controller: str, name: str, *files: str) -> Path | None:
    """A group of this controller, of version 1 or 2; None when none can be made."""
    for parent in (_ROOT / controller, _ROOT):
        group = parent / name
        with contextlib.suppress(OSError):
            if not (parent / "cgroup.procs").exists():
                continue
            group.mkdir(exist_ok=True)
            if any((group / file).exists() for file in files):
                return group
            group.rmdir()
    return None

"""What the agent writes down of a running command, and whether its processes live."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

# How workers that have no command, and those who keep what hooks print, show themselves.
WAITING = "waits for a command"
RECORDER = "hook output"


class Record:
    """What a job record says."""

    def __init__(self, content: bytes) -> None:
        self.lines: list[dict[str, Any]] = []
        for line in content.splitlines():
            with contextlib.suppress(ValueError):
                self.lines.append(json.loads(line))

    @property
    def identifier(self) -> str:
        """Of the host command."""
        found = [line["command"]["identifier"] for line in self.lines if line.get("entry") == "accepted"]
        return str(found[0]) if found else ""

    def pid_of(self, kind: str) -> int:
        """Of the worker, or of the script that runs; 0 when there is none."""
        for line in reversed(self.lines):
            if line.get("entry") == kind:
                facts = line if kind == "worker" else line.get("process") or {}
                return int(facts.get("pid", 0))
        return 0


def is_running(pid: int) -> bool:
    """Whether this process lives; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def parent_of(pid: int) -> int:
    """Pid of the parent of this process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def shown_as(pid: int) -> str:
    """Command line and name of this process, with blanks; empty when it is gone."""
    try:
        words = [Path(f"/proc/{pid}/{file}").read_bytes() for file in ("cmdline", "comm")]
    except OSError:
        return ""
    return b" ".join(words).replace(b"\0", b" ").replace(b"-", b" ").decode(errors="replace").strip()

"""The status file: what the daemon does at the moment, for those who ask without it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.processes import start_ticks

if TYPE_CHECKING:
    from pathlib import Path

# A record has a fixed size, so that it can be written in place: one small write a poll.
_SIZE = 4096
_ATTEMPTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStatus:
    """What the daemon says of itself. Times are seconds since the epoch, 0 when it never happened.

    Attributes:
        state: `starting`, `polling`, `draining`, `stopping` or `stopped`.
        last_poll_result: `command`, `empty`, or the reason why it failed; empty before the first.
        failures: polls that failed in a row.
    """

    pid: int
    version: str
    state: str
    started_at: float
    host_identifier: str
    endpoint: str
    last_poll_at: float = 0.0
    last_poll_result: str = ""
    last_success_at: float = 0.0
    failures: int = 0
    next_poll_at: float = 0.0
    start_ticks: int = 0


def starting_status() -> DaemonStatus:
    """What this process, a daemon, says of itself until the host knows who it is."""
    return DaemonStatus(
        pid=os.getpid(),
        start_ticks=start_ticks(os.getpid()) or 0,
        version=__version__,
        state="starting",
        started_at=time.time(),
        host_identifier="",
        endpoint="",
    )


class StatusFile:
    """`status.json` in the state directory; readable by everybody, it holds no secret."""

    def __init__(self, state_directory: Path) -> None:
        self.path = state_directory / "status.json"
        self._descriptor = -1

    def write(self, status: DaemonStatus) -> None:
        """Afterwards readers see this status. A disk that is full loses it silently."""
        encoded = json.dumps(asdict(status), ensure_ascii=False).encode("utf-8", "replace")[: _SIZE - 1]
        try:
            if self._descriptor < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self._descriptor = os.open(self.path, flags, 0o644)
            os.pwrite(self._descriptor, encoded.ljust(_SIZE - 1) + b"\n", 0)
        except OSError:
            self.close()

    def close(self) -> None:
        """Let go of the file; it stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self) -> DaemonStatus | None:
        """The status that was written last; None when there is none that can be read.

        Raises:
            PermissionError: the caller may not read it.
        """
        for _ in range(_ATTEMPTS):
            try:
                values: dict[str, Any] = json.loads(self.path.read_bytes())
                return DaemonStatus(**values)
            except FileNotFoundError:
                return None
            except (ValueError, TypeError):
                # We may have read in the middle of a write.
                time.sleep(0.002)
        return None

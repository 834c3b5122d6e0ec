"""The status file: what the daemon does at the moment, for those who ask without it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.files import FileDamaged, read_file
from agent.processes import boot_id, start_ticks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# A record has a fixed size, so that it can be written in place: one small write a poll.
_SIZE = 4096
_ATTEMPTS = 50
# How often a living daemon touches its status file. It writes it with each poll, and a poll may be held for minutes.
HEARTBEAT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStatus:
    """What the daemon says of itself. Times are seconds since the epoch, 0 when it never happened.

    Attributes:
        state: `starting`, `polling`, `draining`, `stopping` or `stopped`.
        last_poll_result: `command`, `empty`, or the reason why it failed; empty before the first.
        last_error_id: what `agentctl explain` knows that reason by; empty when the last poll did not fail.
        failures: polls that failed in a row.
        boot_id: of the boot in which the process was started; empty from a daemon that did not say it.
        heartbeat_s: it touches the file at least this often; 0 from a daemon that did not do so.
        waits_for: what keeps it from polling, as a sentence; empty when nothing does.
        waits_error_id: what `agentctl explain` knows that by; empty when it is no error.
        waits_since: when that began to be so.
        next_try_at: when it looks again.
        refused: the last command that was refused although the history could not be written: `identifier`,
            `execution`, `command`, `error_id`, `message`, `at`; empty when there is none.
    """

    pid: int
    version: str
    state: str
    started_at: float
    host_identifier: str
    endpoint: str
    last_poll_at: float = 0.0
    last_poll_result: str = ""
    last_error_id: str = ""
    last_success_at: float = 0.0
    failures: int = 0
    next_poll_at: float = 0.0
    start_ticks: int = 0
    boot_id: str = ""
    heartbeat_s: float = 0.0
    waits_for: str = ""
    waits_error_id: str = ""
    waits_since: float = 0.0
    next_try_at: float = 0.0
    refused: Mapping[str, Any] = field(default_factory=dict, hash=False)


def starting_status() -> DaemonStatus:
    """What this process, a daemon, says of itself until the host knows who it is."""
    return DaemonStatus(
        pid=os.getpid(),
        start_ticks=start_ticks(os.getpid()) or 0,
        boot_id=boot_id(),
        heartbeat_s=HEARTBEAT_S,
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
        self._beat_at = 0.0

    def write(self, status: DaemonStatus) -> None:
        """Afterwards readers see this status. A disk that is full loses it silently."""
        try:
            if self._descriptor < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self._descriptor = os.open(self.path, flags, 0o644)
            os.pwrite(self._descriptor, _encoded(status).ljust(_SIZE - 1) + b"\n", 0)
        except OSError:
            self.close()
        self._beat_at = time.monotonic()

    def beat(self) -> None:
        """Let readers see that the daemon lives, if they have not seen it for a while. To be called often.

        Only the file's times change: that takes no room on the disk, and nobody waits for the disk.
        """
        now = time.monotonic()
        if now - self._beat_at >= HEARTBEAT_S:
            self._beat_at = now
            if self._descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.utime(self._descriptor)

    def close(self) -> None:
        """Let go of the file; it stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def heartbeat_at(self) -> float:
        """When the daemon last gave a sign of life, in seconds since the epoch; 0 when there is no file.

        Raises:
            OSError: this user may not look, or the disk does not work.
        """
        try:
            return os.stat(self.path).st_mtime
        except FileNotFoundError:
            return 0.0

    def read(self) -> DaemonStatus | None:
        """The status that was written last; None when there is no file, or an empty one.

        Raises:
            FileDamaged: what is in it is no status.
            OSError: it can't be read: this user may not, or the disk does not work.
        """
        for _ in range(_ATTEMPTS):
            try:
                content = read_file(self.path)
                # A disk that was full from the beginning has left the file empty.
                return _decoded(content) if content else None
            except FileNotFoundError:
                return None
            except (ValueError, TypeError, AttributeError):
                # We may have read in the middle of a write.
                time.sleep(0.002)
        raise FileDamaged(self.path)


def _encoded(status: DaemonStatus) -> bytes:
    """One line that fits into the file: where the facts are too long, what was refused is left out, then cut."""
    values = asdict(status)
    encoded = _as_json(values)
    if len(encoded) >= _SIZE:
        encoded = _as_json({**values, "refused": {}})
    if len(encoded) >= _SIZE:
        texts = ("waits_for", "last_poll_result", "host_identifier", "endpoint")
        encoded = _as_json({**values, "refused": {}, **{name: values[name][:200] for name in texts}})
    return encoded[: _SIZE - 1]


def _as_json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "replace")


def _decoded(content: bytes) -> DaemonStatus:
    """Facts that only a newer daemon knows are left out, and those that an older one did not know have their defaults."""
    values = json.loads(content)
    known = {item.name for item in fields(DaemonStatus)}
    return DaemonStatus(**{name: value for name, value in values.items() if name in known})

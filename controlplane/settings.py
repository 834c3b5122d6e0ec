"""Every setting of the control endpoint, once: unit, default, bounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_DATA_DIRECTORY = Path("/var/lib/codedeploy-control")
DEFAULT_LISTEN = "127.0.0.1:8462"
DEFAULT_REGION = "us-east-1"
DEFAULT_ACCOUNT = "000000000000"

POLL_HOLD_S = 60.0
"""How long an empty poll is held open. Agents give up reading after 80 s."""
REDELIVER_AFTER_S = 30.0
"""A command delivered but not acknowledged for this long is delivered again: the answer may have been lost."""
COMMAND_TIMEOUT_S = 3600.0
"""An acknowledged command that is neither completed nor updated for this long has failed."""
HOST_UNSEEN_AFTER_S = 300.0
"""A host that has a command ready but has not polled for this long fails the event."""

MAX_BODY_BYTES = 1024 * 1024
"""A larger request is refused before it is read to the end."""
MAX_CLOCK_SKEW_S = 900.0
"""How far the date of a signature may lie from our clock, in either direction."""
SIGHTINGS_FLUSH_S = 10.0
"""How often the times at which hosts polled are written down. Until then they live in memory only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The waits of the host command protocol, in seconds; all positive."""

    poll_hold_s: float = POLL_HOLD_S
    redeliver_after_s: float = REDELIVER_AFTER_S
    command_timeout_s: float = COMMAND_TIMEOUT_S
    host_unseen_after_s: float = HOST_UNSEEN_AFTER_S

    @property
    def tick_s(self) -> float:
        """How often overdue commands are looked for: a quarter of the shortest wait, 0.05 s to 1 s."""
        shortest = min(self.redeliver_after_s, self.command_timeout_s, self.host_unseen_after_s)
        return min(1.0, max(0.05, shortest / 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one running endpoint was told at its start."""

    data_directory: Path
    host: str
    port: int
    """0 lets the kernel choose; the chosen port is printed."""
    region: str | None = None
    """None takes what the data directory holds, and `DEFAULT_REGION` in a new one."""
    account: str | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    timing: Timing = Timing()

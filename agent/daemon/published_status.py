"""What others see of the daemon: its status file, and its line at the service manager."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.deployments import StatusFile, starting_status

if TYPE_CHECKING:
    from pathlib import Path

    from agent.daemon.notification import ServiceNotifier
    from agent.deployments import DaemonStatus

SHOWN_CHARACTERS = 1200
"""What is written of a reason; the status file has a fixed size."""


class PublishedStatus:
    """Kept for `agentctl status` and for `systemctl status`.

    Attributes:
        now: what the status file says at the moment.
        trouble: why polls fail, in a few words; empty when they don't.
    """

    def __init__(self, state_directory: Path, notifier: ServiceNotifier) -> None:
        self.now: DaemonStatus = starting_status()
        self.trouble = ""
        self._file = StatusFile(state_directory)
        self._notifier = notifier

    def tell(self, **changes: object) -> None:
        """Write these fields of the status anew."""
        self.now = replace(self.now, **changes)  # type: ignore[arg-type]
        self._file.write(self.now)

    def ready(self) -> None:
        """The host is looked after from now on, although nobody may know yet who it is."""
        self._notifier.ready()
        self._notifier.status("finding out who this host is")

    def waiting(self, reason: str, error_id: str, wait_s: float) -> None:
        """It is not known yet who this host is, for this reason; the next look is in so many seconds."""
        now = time.time()
        self.tell(
            waits_for=reason[:SHOWN_CHARACTERS],
            waits_error_id=error_id,
            waits_since=self.now.waits_since or now,
            next_try_at=now + wait_s,
        )

    def connected(self, host_identifier: str, endpoint: str) -> None:
        """It is known who this host is, and where to poll."""
        self.tell(
            state="polling",
            host_identifier=host_identifier,
            endpoint=endpoint,
            waits_for="",
            waits_error_id="",
            waits_since=0.0,
            next_try_at=0.0,
        )

    def stopping(self) -> None:
        """The daemon is about to end."""
        self.tell(state="stopping")
        self._notifier.stopping()

    def show_work(self, running: int) -> None:
        """Say to the service manager what the daemon does, and how many commands are at work."""
        text = self.now.state
        if self.now.failures and text not in ("stopping", "stopped"):
            text = f"polls fail ({self.now.failures} in a row): {self.trouble}"
        self._notifier.status(f"{text}; {running} running" if running else text)

    def beat(self) -> None:
        """The daemon is alive; to be called often."""
        self._notifier.keep_alive()
        self._file.beat()

    def close(self) -> None:
        """Close the file, in a forked worker."""
        self._file.close()

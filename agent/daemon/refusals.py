"""Commands of which there can be no record: they are refused, and that must not go unseen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from agent.deployments import HistoryEntry
from agent.worker.record import no_record
from agent.worker.results import failed_result

if TYPE_CHECKING:
    from pathlib import Path

    from agent.deployments import History
    from agent.protocol import HostCommand

_KEPT = 64
_AGAIN_S = 5.0
_SHOWN_CHARACTERS = 700


class Refusals:
    """Brings them into the history: at once, or when there is room for it again."""

    def __init__(self, history: History, records: Path) -> None:
        self._history = history
        self._records = records
        self._waiting: list[HistoryEntry] = []
        self._again_at = 0.0

    def note(self, command: HostCommand, reason: OSError) -> None:
        """This command was refused for this reason; it is, or will be, history."""
        now = time.time()
        entry = HistoryEntry(
            host_command_identifier=command.identifier,
            command_name=command.name,
            accepted_at=now,
            finished_at=now,
            result=failed_result(no_record(reason, self._records)),
            deployment_execution_id=command.deployment_execution_id,
        )
        self._waiting = [*self._waiting[1 - _KEPT :], entry]
        self._write()

    def try_again(self) -> bool:
        """Whether what had to wait has become history just now; to be called often."""
        if not self._waiting or time.monotonic() < self._again_at:
            return False
        self._write()
        return not self._waiting

    def shown(self) -> dict[str, Any]:
        """The last one that is not history yet, for the status file; empty when there is none."""
        if not self._waiting:
            return {}
        entry = self._waiting[-1]
        return {
            "identifier": entry.host_command_identifier[:200],
            "execution": entry.deployment_execution_id,
            "command": entry.command_name[:100],
            "error_id": entry.result.error_id,
            "message": entry.result.message[:_SHOWN_CHARACTERS],
            "at": entry.accepted_at,
        }

    def _write(self) -> None:
        self._again_at = time.monotonic() + _AGAIN_S
        while self._waiting:
            try:
                self._history.add(self._waiting[0])
            except OSError:
                return
            self._waiting.pop(0)

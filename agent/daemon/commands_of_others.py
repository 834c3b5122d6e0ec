"""Commands that the control endpoint has delivered to the wrong host."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from agent.deployments import CommandResult
from agent.deployments.history import HistoryEntry
from agent.errors import CommandForAnotherHost
from agent.protocol import CommandStatus, ErrorCode

if TYPE_CHECKING:
    from agent.deployments import History
    from agent.logs import Log
    from agent.protocol import HostCommand

_REMEMBERED = 256


class CommandsOfOthers:
    """What this host was given, and has left alone: neither acknowledged nor reported.

    Whoever it is meant for may be carrying it out just now, and a report of ours would be taken for theirs.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._known: deque[str] = deque(maxlen=_REMEMBERED)

    def note(
        self, command: HostCommand, host_identifier: str, log: Log
    ) -> tuple[CommandForAnotherHost, bool]:
        """What to say of it, and whether it is new: log and history are told once, however often it comes."""
        error = CommandForAnotherHost(command.host_identifier, host_identifier)
        if command.identifier in self._known:
            return error, False
        self._known.append(command.identifier)
        facts = {"host_command_identifier": command.identifier, "command": command.name}
        log.error("command_left_alone", **facts, error=error.message, error_id=error.error_id)
        try:
            if self._history.find(command.identifier) is None:
                self._history.add(_entry(command, error))
        except OSError as trouble:
            log.warning("history_not_written", error=str(trouble))
        return error, True


def _entry(command: HostCommand, error: CommandForAnotherHost) -> HistoryEntry:
    now = time.time()
    result = CommandResult(
        status=CommandStatus.FAILED,
        error_code=int(ErrorCode.UNKNOWN),
        message=f"{error.message} [{error.error_id}]",
        payload="",
        error_id=error.error_id,
        wanted=False,
    )
    return HistoryEntry(
        host_command_identifier=command.identifier,
        command_name=command.name,
        accepted_at=now,
        finished_at=now,
        result=result,
    )

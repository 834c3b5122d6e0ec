"""What came of the last commands: one JSON line each, for `agentctl status` and for duplicates."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from agent.deployments.job_state import CommandResult, deployment_facts
from agent.files import read_file
from agent.protocol import CommandStatus
from agent.rotation import RotatingFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.deployments.job_state import DeploymentFacts, JobState
    from agent.deployments.jobs import Job

# About two thousand commands; one predecessor of the same size is kept.
_MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """A command that is over. Times are seconds since the epoch.

    `deployment` is None where the command failed before its specification was known, or could not be
    trusted; `deployment_execution_id` then says what it is part of. It is empty in old entries.
    """

    host_command_identifier: str
    command_name: str
    accepted_at: float
    finished_at: float
    result: CommandResult
    deployment: DeploymentFacts | None = None
    deployment_execution_id: str = ""


def history_entry(state: JobState, result: CommandResult) -> HistoryEntry:
    """What remains of a command with this record and this result."""
    return HistoryEntry(
        host_command_identifier=state.command.identifier,
        command_name=state.command.name,
        accepted_at=state.accepted_at,
        finished_at=state.finished_at or time.time(),
        result=result,
        deployment=state.deployment,
        deployment_execution_id=state.command.deployment_execution_id,
    )


class History:
    """The commands that this agent has finished, newest last."""

    def __init__(self, state_directory: Path) -> None:
        self.path = state_directory / "history.jsonl"

    def add(self, entry: HistoryEntry) -> None:
        """Append one line.

        Raises:
            OSError: it can't be written.
        """
        line = asdict(entry)
        line["result"]["status"] = entry.result.status.value
        # A disk that was full has cut off the last line: this one must not become part of it.
        before = b"" if _ends_whole(self.path) else b"\n"
        file = RotatingFile(self.path, max_bytes=_MAX_BYTES, kept_files=2, mode=0o644)
        try:
            file.write(before + json.dumps(line).encode() + b"\n")
        finally:
            file.close()

    def take(self, job: Job) -> None:
        """Afterwards the command of this record is in the history, and has no record, if it has been reported.

        Only for a record that nobody works on any more.

        Raises:
            OSError: not now, as on a disk that is still full.
        """
        state = job.read()
        if state is not None and state.result is not None:
            self.add(history_entry(state, state.result))
        job.remove()

    def find(self, identifier: str) -> HistoryEntry | None:
        """The newest entry of this host command."""
        needle = json.dumps(identifier).encode()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError, ValueError), path.open("rb") as file:
                # Mapped, because the daemon looks here with each command, and must not grow by the file.
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                    entry = _find_last(text, needle, identifier)
                if entry is not None:
                    return entry
        return None

    def newest_first(self) -> Iterator[HistoryEntry]:
        """Every entry that can be read.

        Raises:
            OSError: the file can't be read.
        """
        for line in self._lines_newest_first():
            entry = _parse(line)
            if entry:
                yield entry

    def count_damaged(self) -> int:
        """How many entries can't be read: nobody knows what came of as many commands.

        Raises:
            OSError: the file can't be read.
        """
        return sum(_parse(line) is None for line in self._lines_newest_first() if line.strip())

    @property
    def _paths(self) -> tuple[Path, Path]:
        return self.path, self.path.with_name(f"{self.path.name}.1")

    def _lines_newest_first(self) -> Iterator[bytes]:
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                yield from reversed(read_file(path).splitlines())


def _ends_whole(path: Path) -> bool:
    """Whether the file ends with a whole line, as far as that can be told; an absent and an empty one do."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            return size == 0 or os.pread(file.fileno(), 1, size - 1) == b"\n"
    except OSError:
        return True


def _find_last(text: mmap.mmap, needle: bytes, identifier: str) -> HistoryEntry | None:
    """The entry of this command in the last line that has it; None when there is none."""
    end = len(text)
    while (found := text.rfind(needle, 0, end)) >= 0:
        start = text.rfind(b"\n", 0, found) + 1
        stop = text.find(b"\n", found)
        entry = _parse(text[start : stop if stop >= 0 else len(text)])
        if entry is not None and entry.host_command_identifier == identifier:
            return entry
        end = start
    return None


def _parse(line: bytes) -> HistoryEntry | None:
    """The entry of this line; None when a crash cut it off."""
    try:
        values: dict[str, Any] = json.loads(line)
        result = _known(values.pop("result"), CommandResult)
        deployment = values.pop("deployment")
        return HistoryEntry(
            result=CommandResult(**{**result, "status": CommandStatus(result["status"])}),
            deployment=deployment_facts(deployment) if deployment else None,
            **_known(values, HistoryEntry),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _known(values: dict[str, Any], kind: type[CommandResult | HistoryEntry]) -> dict[str, Any]:
    """What this version knows of it; a newer one may have written more."""
    names = {item.name for item in fields(kind)}
    return {name: value for name, value in values.items() if name in names}

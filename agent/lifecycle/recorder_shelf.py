"""The recorder of an event that is over, kept for the next one: to make one takes longer than most scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.lifecycle.recorder_client import Recorder
    from agent.lifecycle.script_log import ScriptLog


class RecorderShelf:
    """Where a worker that carries one event after the other keeps its recorder in between."""

    def __init__(self) -> None:
        self._kept: Recorder | None = None

    def take(self, script_log: ScriptLog, *, answer_s: float) -> Recorder:
        """A recorder for an event; see `Recorder`, also for what is raised."""
        # Only an event that has scripts needs one.
        from agent.lifecycle.recorder_client import Recorder  # noqa: PLC0415

        kept, self._kept = self._kept, None
        if kept is not None:
            if kept.begin(script_log):
                return kept
            kept.close()
        return Recorder(script_log, answer_s=answer_s)

    def put_back(self, recorder: Recorder) -> None:
        """Keep a recorder whose event has succeeded; one that has still something to log is left to itself."""
        if recorder.is_at_rest():
            self._kept = recorder
        else:
            recorder.close()

    def pids(self) -> tuple[int, ...]:
        """Of the process that is kept."""
        return () if self._kept is None else (self._kept.pid,)

    def close(self) -> None:
        """Let go of the recorder that is kept, which ends then."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

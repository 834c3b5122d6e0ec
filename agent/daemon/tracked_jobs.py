"""The records that the daemon keeps an eye on: one entry each, and what may follow what.

The state is what this process knows; how far the command has come is in the record itself.
"""

from __future__ import annotations

import contextlib
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.deployments import Job
    from agent.logs import Log


class Work(Enum):
    """What a worker is forked to do about a record."""

    CARRY = auto()
    """Bring the command to its end, wherever that stopped."""
    RESTORE = auto()
    """End and undo what a lost command has left, and keep its result."""
    ABANDON = auto()
    """Report the command as lost, without a further try to clean up after it."""


class TrackedState(Enum):
    """Who has a record at the moment, and what is waited for."""

    FOUND = auto()
    """Nothing has been done about it yet."""
    WAITING = auto()
    """We hold it: its next step takes the control endpoint, and there is none yet."""
    STARTING = auto()
    """We hold it, and are forking a worker for it."""
    UNSTARTED = auto()
    """We hold it: a worker is to be forked for it as soon as the host can fork again."""
    AT_WORK = auto()
    """A worker that this process has forked has it."""
    ADOPTED = auto()
    """Another process has it, which is no child of ours."""
    REPORTED = auto()
    """Nobody has it: it has been reported, and is to become history when there is room for that."""
    UNUSABLE = auto()
    """Nobody has it: it can't be read or locked, and is looked at again and again."""
    GIVEN_UP = auto()
    """Nobody has it: too many workers have died of it. The next start of the agent tries again."""
    OVER = auto()
    """It has gone, and is not tracked any more."""


_S = TrackedState

# What comes next for a record that was just looked at: another process has it, or it goes on.
_LOOKED_AT = {_S.ADOPTED, _S.WAITING, _S.STARTING, _S.UNUSABLE}

# The whole life of a record. STARTING is left within one call; all others are left in `reap` or by a delivery.
TRANSITIONS: dict[TrackedState, set[TrackedState]] = {
    _S.FOUND: _LOOKED_AT | {_S.OVER},
    _S.WAITING: {_S.STARTING, _S.UNUSABLE},
    _S.STARTING: {_S.AT_WORK, _S.UNSTARTED},
    _S.UNSTARTED: {_S.STARTING},
    _S.AT_WORK: _LOOKED_AT | {_S.REPORTED, _S.GIVEN_UP, _S.OVER},
    _S.ADOPTED: _LOOKED_AT | {_S.GIVEN_UP, _S.OVER},
    _S.REPORTED: {_S.STARTING, _S.OVER},
    _S.UNUSABLE: _LOOKED_AT | {_S.OVER},
    _S.GIVEN_UP: {_S.STARTING},
    _S.OVER: set(),
}

_HELD = {_S.WAITING, _S.UNSTARTED}
_COUNTED = {_S.STARTING, _S.UNSTARTED, _S.AT_WORK, _S.ADOPTED}


class TrackedJob:
    """One record and its state.

    Attributes:
        work: what its worker is to do, or does; before the first one, to carry it.
        pid: of the worker, in the state AT_WORK; 0 in any other.
        restarts: how often a worker of it has died, and another one has been thought of.
        is_said_unusable: whether the log says that it can't be used; it may be so for days, and is said once.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.work = Work.CARRY
        self.pid = 0
        self.restarts = 0
        self.is_said_unusable = False
        self._state = TrackedState.FOUND

    @property
    def name(self) -> str:
        """Of its directory."""
        return self.job.directory.name

    @property
    def state(self) -> TrackedState:
        """Where it is in TRANSITIONS."""
        return self._state

    def become(self, state: TrackedState, *, pid: int = 0) -> None:
        """Go to another state, or stay.

        Raises:
            AssertionError: that is not in TRANSITIONS.
        """
        if state is not self._state and state not in TRANSITIONS[self._state]:
            raise AssertionError(f"a record that is {self._state.name} can't become {state.name}")
        self._state, self.pid = state, pid

    def is_alive(self) -> bool:
        """Whether another process has the record."""
        try:
            return self.job.is_alive()
        except OSError:
            # Whoever takes it over meets the same, and says so.
            return False

    @contextlib.contextmanager
    def noting_unusable(self, log: Log) -> Iterator[None]:
        """Within the block, an OSError means that the record can't be used, as when no descriptor is left."""
        try:
            yield
        except OSError as error:
            self.job.let_go()
            if not self.is_said_unusable:
                self.is_said_unusable = True
                log.error("record_unusable", job=self.name, error=str(error))
            self.become(TrackedState.UNUSABLE)


class TrackedJobs:
    """All records that the daemon tracks, in the order in which they came to be tracked."""

    def __init__(self) -> None:
        self._jobs: dict[str, TrackedJob] = {}

    def __iter__(self) -> Iterator[TrackedJob]:
        """A snapshot: entries may change state, come and go meanwhile."""
        return iter(list(self._jobs.values()))

    def track(self, job: Job) -> TrackedJob:
        """The new entry of this record."""
        tracked = self._jobs[job.directory.name] = TrackedJob(job)
        return tracked

    def find(self, job: Job) -> TrackedJob | None:
        """The entry of this record, if it is tracked."""
        return self._jobs.get(job.directory.name)

    def worked_on_by(self, pid: int) -> TrackedJob | None:
        """The entry that this worker of ours has in hand."""
        return next((tracked for tracked in self if tracked.pid == pid), None)

    def in_state(self, *states: TrackedState) -> list[TrackedJob]:
        """The entries in one of these states."""
        return [tracked for tracked in self if tracked.state in states]

    def forget(self, tracked: TrackedJob) -> None:
        """The record has gone."""
        tracked.become(TrackedState.OVER)
        self._jobs.pop(tracked.name, None)

    def at_work(self) -> int:
        """How many are at work or about to be."""
        return len(self.in_state(*_COUNTED))

    def let_go_in_worker(self) -> None:
        """In a forked worker: let go of the records that are not its own; the one that is being started is."""
        for tracked in self.in_state(*_HELD):
            tracked.job.let_go()

"""What `agentctl status` knows: the daemon, its commands and its deployments, from what lies on disk.

Each part is looked at by itself. What can't be read is said to be unknown, and never taken for
nothing; the other parts are told all the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

from agent.cli.edge import unreadable
from agent.cli.liveness import Life, Vitality, examine
from agent.deployments import (
    CommandResult,
    DaemonStatus,
    DeploymentRoot,
    History,
    HistoryEntry,
    JobState,
    JobStore,
    StatusFile,
)
from agent.deployments.group import group_lock_file
from agent.deployments.judgement import DeploymentState, Judgement, judge
from agent.deployments.refused_start import RefusedStart, RefusedStartFile
from agent.files import FileDamaged, lock_file, lock_holder
from agent.protocol import CommandStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.settings import Settings

    T = TypeVar("T")


class RunState(IntEnum):
    """Is it running? The values are exit codes: those that the LSB gives to `status`."""

    RUNNING = 0
    FROZEN = 1
    NOT_RUNNING = 3
    UNKNOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All that `agentctl status` tells.

    Attributes:
        problems: why something is not known, as sentences.
        daemon: what it said of itself last; None where it never did, or that can't be read.
        vitality: of that daemon.
        holder: pid of whoever holds the agent's lock on its directory, as far as the kernel tells.
        refused_start: a start that came to nothing since then.
        at_work: commands that are not over; None where that is not known.
        kept: commands that are over, but not reported, or not history yet.
        deployments: the newest ones; None where they are not known.
        count: how many of them were asked for at most.
        broken_off: ids of local deployments that nobody carries on.
    """

    run_state: RunState
    problems: tuple[str, ...] = ()
    daemon: DaemonStatus | None = None
    vitality: Vitality | None = None
    holder: int | None = None
    refused_start: RefusedStart | None = None
    at_work: tuple[JobState, ...] | None = None
    kept: tuple[JobState, ...] = ()
    deployments: tuple[Judgement, ...] | None = None
    count: int = 1
    broken_off: frozenset[str] = frozenset()


def look(settings: Settings, count: int) -> Overview:
    """The state of the agent with these settings, and its newest deployments."""
    return _Look(settings).overview(count)


class _Look:
    """One look; what can't be read is noted."""

    def __init__(self, settings: Settings) -> None:
        self._state = settings.state_directory
        self._root = DeploymentRoot(path=settings.root_dir)
        self._problems: list[str] = []
        self._is_damaged = False

    def overview(self, count: int) -> Overview:
        file = StatusFile(self._state)
        daemon = self._try(file.read)
        is_known = not self._problems or (self._is_damaged and self._is_nobody_there())
        vitality = examine(daemon, self._try(file.heartbeat_at) or 0.0) if daemon else None
        holder = self._try(lambda: lock_holder(lock_file(self._state)))
        states = self._try(self._records)
        entries = self._try(self._history)
        refused = self._try(RefusedStartFile(self._state).read)
        deployments, broken_off = None, frozenset[str]()
        if entries is not None and states is not None:
            deployments = tuple(judge([*entries, *_refused_unseen(daemon, entries)], states))[:count]
            broken_off = frozenset(item.deployment_id for item in deployments if self._is_broken_off(item))
        run_state = self._run_state(daemon, vitality, holder, is_known=is_known)
        self._note_read_only()
        return Overview(
            run_state=run_state,
            problems=tuple(dict.fromkeys(self._problems)),
            daemon=daemon,
            vitality=vitality,
            holder=holder,
            refused_start=refused if refused and _is_newer(refused, daemon) else None,
            at_work=None if states is None else tuple(state for state in states if state.result is None),
            kept=tuple(state for state in states or () if state.result is not None),
            deployments=deployments,
            count=count,
            broken_off=broken_off,
        )

    def _try(self, read: Callable[[], T]) -> T | None:
        """What was read; None, and one more problem, where the system refused it."""
        try:
            return read()
        except OSError as error:
            self._is_damaged = self._is_damaged or isinstance(error, FileDamaged)
            self._problems.append(unreadable(error))
            return None

    def _is_nobody_there(self) -> bool:
        """Whether nobody has the agent's lock on its directory: it is what counts, whatever the status file says."""
        try:
            descriptor = os.open(lock_file(self._state), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # no agent has ever been here
            return True
        except OSError:
            return False
        try:
            # For an instant, and only where nothing else can tell: an agent that starts just then would give way.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _history(self) -> list[HistoryEntry]:
        history = History(self._state)
        entries = list(history.newest_first())
        if damaged := history.count_damaged():
            what = "one line is" if damaged == 1 else f"{damaged} lines are"
            self._problems.append(
                f"{history.path}: {what} damaged, so what came of as many commands is not known"
            )
        return entries

    def _records(self) -> tuple[JobState, ...]:
        """What the records say; one that can't be read is a problem of its own."""
        found = []
        for job in JobStore(self._state).undelivered():
            try:
                state = job.read()
            except PermissionError:
                raise
            except OSError as error:
                self._problems.append(unreadable(error))
                continue
            if state is not None:
                found.append(state)
        return tuple(found)

    def _run_state(
        self, daemon: DaemonStatus | None, vitality: Vitality | None, holder: int | None, *, is_known: bool
    ) -> RunState:
        if not is_known:
            return RunState.UNKNOWN
        if daemon is None or vitality is None:
            # A disk that was full from the start has no status, whoever runs.
            return RunState.UNKNOWN if holder else RunState.NOT_RUNNING
        if vitality.life is Life.HIDDEN:
            self._problems.append(
                f"a process {daemon.pid} is there, but /proc does not show it to this user; try again with sudo"
            )
            return RunState.UNKNOWN
        if vitality.is_frozen:
            return RunState.FROZEN
        return RunState.RUNNING if vitality.life is Life.WORKING else RunState.NOT_RUNNING

    def _note_read_only(self) -> None:
        """An agent that could not even keep why it did not start has left nothing to read."""
        with contextlib.suppress(OSError):
            if os.statvfs(self._state).f_flag & os.ST_RDONLY:
                self._problems.append(
                    f"{self._state} is mounted read-only, so an agent can neither start there nor keep anything"
                )

    def _is_broken_off(self, judgement: Judgement) -> bool:
        """Whether this is a local deployment that is not over, and that no `agentctl deploy` works on any more."""
        facts = judgement.facts
        if (
            judgement.state is not DeploymentState.IN_PROGRESS
            or facts is None
            or facts.planned_events is None
        ):
            return False
        try:
            group = self._root.group(facts.deployment_group_id)
            return lock_holder(group_lock_file(group)) is None
        except OSError:
            return False


def _is_newer(refused: RefusedStart, daemon: DaemonStatus | None) -> bool:
    return daemon is None or refused.at >= daemon.started_at


def _refused_unseen(daemon: DaemonStatus | None, entries: Sequence[HistoryEntry]) -> list[HistoryEntry]:
    """A command that was refused and could not become history, as the daemon tells of it."""
    refused: Mapping[str, Any] = daemon.refused if daemon else {}
    identifier = refused.get("identifier", "")
    if not identifier or any(entry.host_command_identifier == identifier for entry in entries):
        return []
    result = CommandResult(
        status=CommandStatus.FAILED,
        error_code=5,
        message=refused.get("message", ""),
        payload="",
        error_id=refused.get("error_id", ""),
    )
    at = float(refused.get("at", 0.0))
    return [
        HistoryEntry(
            host_command_identifier=identifier,
            command_name=refused.get("command", ""),
            accepted_at=at,
            finished_at=at,
            result=result,
            deployment_execution_id=refused.get("execution", ""),
        )
    ]


def with_problem(overview: Overview, problem: str) -> Overview:
    """The overview with one more problem, which comes first."""
    return replace(overview, problems=(problem, *overview.problems))

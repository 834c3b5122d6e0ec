"""What the record of a host command says, as the lines of it tell one after the other.

A line is written before the step that it announces, so whoever finds the record after a crash knows how far the work can
have come:

    accepted   the command, as it was polled            (daemon)
    worker     pid, its start time, the boot id         (worker)
    deployment what it is part of                       (worker, once the specification is known)
    step       what is about to be done                 (worker)
    script     pid, its start time, the boot id of a hook script that runs; null = it does no more
                                                        (worker)
    ended      exit code of a worker that died; minus the number of a signal        (daemon)
    result     what is about to be reported             (worker)
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from agent.protocol import CommandStatus, HostCommand

if TYPE_CHECKING:
    from collections.abc import Mapping


# Steps at which something may have been changed. Install has two more than other commands: `commit`
# is noted before it takes effect as a whole, `undo` before that is taken back.
RUN, COMMIT, UNDO = BEGUN_STEPS = ("run", "commit", "undo")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentFacts:
    """What a command is part of, for those who look at its record or at the history.

    Attributes:
        deployment_type: as the specification has it; empty where that is not known.
        creator: who has created the deployment, as the specification has it; empty where that is not known.
        possible_events: the only lifecycle events that the deployment can have; None = it does not say.
        planned_events: of a local deployment, exactly those that it consists of, in order; None for any other.
    """

    deployment_id: str
    deployment_group_id: str
    deployment_group_name: str
    application_name: str
    deployment_type: str = ""
    creator: str = ""
    possible_events: tuple[str, ...] | None = None
    planned_events: tuple[str, ...] | None = None


def deployment_facts(values: Mapping[str, Any]) -> DeploymentFacts:
    """The facts that were written like this, by this version or by another: what only others know is left out.

    Raises:
        TypeError: there is too little.
    """
    known = {item.name for item in fields(DeploymentFacts)}
    kept: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name in known
    }
    return DeploymentFacts(**kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command ended. `payload` is the diagnostics text as it is, or was, reported.

    `wanted` False means that the service wants no report: it had told us not to run the command.
    """

    status: CommandStatus
    error_code: int
    message: str
    payload: str
    script_name: str = ""
    error_id: str = ""
    wanted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedProcess:
    """A worker, or a hook script. A pid alone may be somebody else's by now."""

    pid: int
    start_ticks: int
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What a record says. Times are seconds since the epoch; `attempts` counts workers so far.

    `script` is the hook script that the worker had running; None = there was none. `worker_exit` is how the
    worker ended that had begun to change something: its exit code, or minus the number of the signal that ended
    it; None = it lives, or nobody saw its end.
    """

    command: HostCommand
    accepted_at: float
    worker: RecordedProcess | None = None
    script: RecordedProcess | None = None
    deployment: DeploymentFacts | None = None
    step: str = "accepted"
    step_at: float = 0.0
    result: CommandResult | None = None
    finished_at: float = 0.0
    attempts: int = 0
    worker_exit: int | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a worker may have changed something on the host."""
        return self.attempts > 0 and self.step in BEGUN_STEPS

    @property
    def is_lost(self) -> bool:
        """Whether, its worker being dead, nobody knows what has become of it."""
        return self.has_begun and self.result is None


def advance(  # noqa: PLR0911 - one for each kind of line
    state: JobState | None, line: dict[str, Any]
) -> JobState | None:
    """The state after one more line of the record."""
    entry, at = line.pop("entry"), line.pop("at")
    if entry == "accepted":
        return JobState(command=HostCommand(**line["command"]), accepted_at=at, step_at=at)
    if state is None:
        return None
    if entry == "worker":
        return replace(state, worker=RecordedProcess(**line), attempts=state.attempts + 1)
    if entry == "ended":
        return (
            replace(state, worker_exit=line["code"])
            if state.has_begun and state.worker_exit is None
            else state
        )
    if entry == "script":
        process = line["process"]
        return replace(state, script=RecordedProcess(**process) if process else None)
    if entry == "deployment":
        return replace(state, deployment=deployment_facts(line))
    if entry == "step":
        return replace(state, step=line["step"], step_at=at)
    if entry == "result":
        status = CommandStatus(line.pop("status"))
        return replace(state, result=CommandResult(status=status, **line), finished_at=at)
    return state

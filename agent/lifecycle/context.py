"""What the scripts of one event have in common, and what others are told of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.rotation import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.lifecycle.environment import HookEnvironment
    from agent.lifecycle.recorder_shelf import RecorderShelf

# What the process is called that keeps the session of a script's user, see `session`.
SESSION_KEEPER = "hook-session"
# What shows of which deployment and event a process is, to whoever comes after a dead worker.
MARKING_VARIABLES = ("DEPLOYMENT_ID", "LIFECYCLE_EVENT")


@dataclass(frozen=True, slots=True, kw_only=True)
class HookProcess:
    """A running script, for whoever must end it should we die: a pid alone may be somebody else's by then.

    `pid` 0 = one is about to start, or has just been started: not before `start_ticks`, and with the variables of its
    deployment and event.
    """

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptPatience:
    """How long we wait for what a script, or what it needs, may take; all in seconds.

    Attributes:
        term_s: from SIGTERM until what is left of a script gets SIGKILL.
        kill_s: from SIGKILL until what is left of it is given up.
        output_s: after a script, for pipelines such as `exec > >(tee setup.log)` to finish.
        open_output_s: after a script, for background processes to end where `fail_on_open_output` is set.
        busy_s: for whoever has a script open for writing, and keeps it from being started.
        session_s: after a script, for PAM to close the session of its user.
        recorder_s: for an answer of the process that records the output; then it is replaced.
    """

    term_s: float = 5.0
    kill_s: float = 2.0
    output_s: float = 0.5
    open_output_s: float = 5.0
    busy_s: float = 2.0
    session_s: float = 5.0
    recorder_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HookContext:
    """What all scripts of one event have in common.

    Attributes:
        event: name of the lifecycle event.
        deployment_id: the deployment that the event belongs to.
        archive: deployment archive that the scripts are in; an absolute path.
        scripts_of: id of the deployment whose archive that is; often an earlier one.
        environment: what the scripts find in theirs.
        scripts_log: the deployment's own log; directories are made.
        deployments_log: the log of all deployments; None = not wanted.
        fail_on_open_output: a script whose output is still open after it ended has failed.
        patience: how long things may take.
        max_log_bytes: size at which either log is rotated.
        recorders: where the process that records the output comes from, and goes to when the event has succeeded;
            None = one is made for this event.
        on_started: told of each script before it runs, and of its process as soon as that is known. It may be
            called in that process, right before that becomes the script: it may write to what is open, and must
            not raise.
        on_ended: told when it runs no more, if it did; what it left running is on its own from then on.
    """

    event: str
    deployment_id: str
    archive: Path
    scripts_of: str
    environment: HookEnvironment
    scripts_log: Path
    deployments_log: Path | None
    fail_on_open_output: bool = False
    patience: ScriptPatience = ScriptPatience()
    max_log_bytes: int = MAX_BYTES
    recorders: RecorderShelf | None = None
    on_started: Callable[[HookProcess], None] = lambda _process: None
    on_ended: Callable[[], None] = lambda: None

    @property
    def is_of_earlier(self) -> bool:
        """Whether the scripts are those of an earlier deployment."""
        return self.scripts_of != self.deployment_id

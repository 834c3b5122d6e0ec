"""What is done to a host in one run: follows from the seed alone."""
# ruff: noqa: S311 - reproducible, not secret

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum


class FaultKind(Enum):
    """What can be done to a host, beside what the network does to its requests."""

    KILL_DAEMON = "kill-daemon"
    KILL_WORKER = "kill-worker"
    KILL_HOOK = "kill-hook"
    KILL_RECORDER = "kill-recorder"
    STOP_DAEMON = "stop-daemon"
    STOP_WORKER = "stop-worker"
    STOP_HOOK = "stop-hook"
    RESTART_DAEMON = "restart-daemon"
    DRAIN = "drain"
    KILL_ENDPOINT = "kill-endpoint"
    REBOOT = "reboot"
    FULL_DISK = "full-disk"
    READ_ONLY = "read-only"
    NO_FILES = "no-files"
    NO_PIDS = "no-pids"
    CLOCK_STEP = "clock-step"


class NetworkFault(Enum):
    """What the proxy does to one exchange. LOST_ANSWER and those after it reach the endpoint."""

    NONE = "none"
    LOST_REQUEST = "lost-request"
    RESET = "reset"
    ERROR = "error-500"
    THROTTLED = "throttled"
    LOST_ANSWER = "lost-answer"
    ERROR_AFTER = "error-500-after"
    DUPLICATED = "duplicated-request"
    CUT = "cut-answer"
    SLOW = "slow-answer"
    MALFORMED = "malformed-answer"
    DELIVERED_AGAIN = "delivered-again"


class Script(Enum):
    """How the hooks of a revision behave."""

    PLAIN = "plain"
    SLOW = "slow"
    TIMED_OUT = "timed-out"
    FAILING = "failing"


class Disk(Enum):
    """Which directories lie on a small file system of their own."""

    SHARED = "shared"
    ROOT = "root"
    STATE = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that is done to the host.

    Attributes:
        delay_s: after the start of the run; or, with `event`, after the worker of the next command of
            this name has been told to run it.
        duration_s: how long a condition lasts; for a process that is gone, until it is started again.
        clock_s: how far the clock is moved.
    """

    kind: FaultKind
    delay_s: float
    event: str = ""
    duration_s: float = 0.0
    clock_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """All that a run does. `network` is the share of exchanges that the proxy harms."""

    seed: int
    revisions: tuple[Script, ...]
    disk: Disk
    network: float
    actions: tuple[Action, ...]

    @property
    def has_clock_steps(self) -> bool:
        """Whether the agent needs a clock that can be moved."""
        return any(action.kind is FaultKind.CLOCK_STEP for action in self.actions)


# Install three times: that is where most can go wrong.
_EVENTS = (
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "Install",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
)
_CLOCK_STEPS = (-86400.0, -3600.0, -90.0, -5.0, 5.0, 90.0, 3600.0, 86400.0)
_WINDOW_S = 6.0
_DISK_FAULTS = (FaultKind.FULL_DISK, FaultKind.READ_ONLY)


_HOOK_FAULTS = (FaultKind.KILL_HOOK, FaultKind.STOP_HOOK, FaultKind.KILL_RECORDER)


def make_schedule(seed: int) -> Schedule:
    """The schedule of this seed; the same every time."""
    chance = random.Random(seed)
    second = chance.choices(list(Script), weights=(3, 3, 3, 2))[0]
    third = chance.choice((Script.PLAIN, Script.SLOW))
    revisions = (chance.choice((Script.PLAIN, Script.SLOW)), second, third)[: chance.choice((2, 2, 3))]
    actions = tuple(_action(chance) for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 4))))
    disk = Disk.SHARED
    if any(action.kind in _DISK_FAULTS for action in actions):
        disk = chance.choice((Disk.ROOT, Disk.STATE))
    network = chance.choice((0.0, 0.05, 0.15, 0.3)) if actions else chance.choice((0.1, 0.3, 0.5))
    return Schedule(seed=seed, revisions=revisions, disk=disk, network=network, actions=actions)


def _action(chance: random.Random) -> Action:
    kind = chance.choices(list(FaultKind), weights=(4, 6, 3, 3, 2, 3, 2, 4, 2, 2, 4, 3, 2, 3, 3, 3))[0]
    is_timed = kind is FaultKind.KILL_ENDPOINT or chance.random() < 0.4
    if is_timed:
        delay_s, event = chance.uniform(0, _WINDOW_S), ""
    else:
        delay_s, event = (
            chance.choice((0.0, 0.005, 0.02, 0.05, 0.1)) * chance.random(),
            chance.choice(_EVENTS),
        )
    if kind in _HOOK_FAULTS and event in ("DownloadBundle", "Install"):
        event = "ApplicationStart"
    return Action(
        kind=kind,
        delay_s=round(delay_s, 4),
        event=event,
        duration_s=round(chance.uniform(0.05, 2.5), 3),
        clock_s=chance.choice(_CLOCK_STEPS) if kind is FaultKind.CLOCK_STEP else 0.0,
    )


_BEFORE_ENDPOINT = (
    NetworkFault.LOST_REQUEST,
    NetworkFault.RESET,
    NetworkFault.ERROR,
    NetworkFault.THROTTLED,
)
_AFTER_ENDPOINT = (
    NetworkFault.LOST_ANSWER,
    NetworkFault.LOST_ANSWER,
    NetworkFault.ERROR_AFTER,
    NetworkFault.DUPLICATED,
    NetworkFault.CUT,
    NetworkFault.SLOW,
    NetworkFault.MALFORMED,
)


def choose_network_fault(chance: random.Random, share: float, operation: str) -> NetworkFault:
    """What happens to the next exchange.

    Polls are harmed less often: an agent waits ten seconds and more after each failed one.
    """
    if operation == "PollHostCommand":
        if chance.random() < share / 3:
            return NetworkFault.DELIVERED_AGAIN
        share /= 15
    if chance.random() >= share:
        return NetworkFault.NONE
    faults = _BEFORE_ENDPOINT + _AFTER_ENDPOINT
    fault = chance.choice(faults)
    # Throttling is shared by all processes of the agent and grows to half a minute: a little is enough.
    return fault if fault is not NetworkFault.THROTTLED or chance.random() < 0.4 else NetworkFault.ERROR

"""What is done to a host in one run: follows from the seed alone."""
# ruff: noqa: S311 - reproducible, not secret

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from chaos.faults import CERTIFICATE_FAULTS, DISK_FAULTS, HOOK_FAULTS, MEMORY_FAULTS, FaultKind


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


class BundleType(Enum):
    """How the revisions are packed."""

    TAR = "tar"
    TGZ = "tgz"
    ZIP = "zip"


class Sweep(Enum):
    """What goes with ARCHIVE_GONE."""

    ARCHIVE = "archive"
    CONTENTS = "contents"
    DEPLOYMENT = "deployment-directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that is done to the host.

    Attributes:
        delay_s: after the start of the run; or, with `event`, after the worker of the next command of
            this name has been told to run it; for ARCHIVE_GONE, after the command is over.
        turn: how many commands of this name are let pass.
        duration_s: how long a condition lasts; for a process that is gone, until it is started again.
        clock_s: how far the clock is moved.
        sweep: for ARCHIVE_GONE: what is removed.
        spare_bytes: for NO_MEMORY and OOM_KILL: what the worker may still take.
    """

    kind: FaultKind
    delay_s: float
    event: str = ""
    turn: int = 0
    duration_s: float = 0.0
    clock_s: float = 0.0
    sweep: Sweep = Sweep.ARCHIVE
    spare_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """All that a run does.

    Attributes:
        network: share of exchanges with the control endpoint that are harmed.
        s3: share of requests to the S3 server that are.
        handshakes: share of TLS handshakes that are cut.
        bundle_type: of all revisions.
        names_etag: whether deployments name the ETag of their revision.
        tls: whether the agent meets the control endpoint and the S3 server over TLS.
        pre_accept: whether the agent asks a command before it accepts one.
    """

    seed: int
    revisions: tuple[Script, ...]
    disk: Disk
    network: float
    s3: float
    handshakes: float
    bundle_type: BundleType
    names_etag: bool
    tls: bool
    pre_accept: bool
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
_WEIGHTS = {
    FaultKind.KILL_DAEMON: 4,
    FaultKind.KILL_WORKER: 6,
    FaultKind.KILL_WAITING: 2,
    FaultKind.KILL_HOOK: 3,
    FaultKind.KILL_RECORDER: 3,
    FaultKind.STOP_DAEMON: 2,
    FaultKind.STOP_WORKER: 3,
    FaultKind.STOP_WAITING: 2,
    FaultKind.STOP_HOOK: 2,
    FaultKind.RESTART_DAEMON: 4,
    FaultKind.DRAIN: 2,
    FaultKind.KILL_ENDPOINT: 2,
    FaultKind.REBOOT: 4,
    FaultKind.FULL_DISK: 3,
    FaultKind.READ_ONLY: 2,
    FaultKind.NO_FILES: 3,
    FaultKind.NO_PIDS: 3,
    FaultKind.NO_MEMORY: 3,
    FaultKind.OOM_KILL: 3,
    FaultKind.CLOCK_STEP: 3,
    FaultKind.REFUSE: 3,
    FaultKind.S3_DOWN: 2,
    FaultKind.ARCHIVE_GONE: 3,
    FaultKind.EXPIRED_CERTIFICATE: 2,
    FaultKind.OTHER_CERTIFICATE: 2,
}
# They come to nothing when the command that they belong to does not come, or has just ended.
_NEED_LUCK = (
    FaultKind.NO_MEMORY,
    FaultKind.OOM_KILL,
    FaultKind.REFUSE,
    FaultKind.S3_DOWN,
    FaultKind.ARCHIVE_GONE,
    FaultKind.EXPIRED_CERTIFICATE,
    FaultKind.OTHER_CERTIFICATE,
)
# The archive is there after DownloadBundle, and goes once one of these is over.
_BEFORE_ARCHIVE_GOES = ("DownloadBundle", "BeforeInstall", "Install", "AfterInstall", "ApplicationStart")
_BEFORE_DOWNLOAD = ("ApplicationStop", "DownloadBundle")
_ASKED_BEFORE = ("ApplicationStop", "DownloadBundle", "BeforeInstall")
_CLOCK_STEPS = (-86400.0, -3600.0, -90.0, -5.0, 5.0, 90.0, 3600.0, 86400.0)
_WINDOW_S = 6.0


def make_schedule(seed: int) -> Schedule:
    """The schedule of this seed; the same every time."""
    chance = random.Random(seed)
    second = chance.choices(list(Script), weights=(3, 3, 3, 2))[0]
    third = chance.choice((Script.PLAIN, Script.SLOW))
    revisions = (chance.choice((Script.PLAIN, Script.SLOW)), second, third)[: chance.choice((2, 2, 3))]
    actions = tuple(_action(chance, kind) for kind in _kinds(chance, seed))
    kinds = {action.kind for action in actions}
    disk = chance.choice((Disk.ROOT, Disk.STATE)) if kinds & DISK_FAULTS else Disk.SHARED
    network = chance.choice((0.0, 0.05, 0.15, 0.3)) if actions else chance.choice((0.1, 0.3, 0.5))
    tls = bool(kinds & CERTIFICATE_FAULTS) or chance.random() < 0.4
    return Schedule(
        seed=seed,
        revisions=revisions,
        disk=disk,
        network=network,
        s3=chance.choice((0.0, 0.5, 0.5, 0.8, 0.8)),
        handshakes=chance.choice((0.0, 0.05, 0.15)) if tls else 0.0,
        bundle_type=chance.choice(list(BundleType)),
        names_etag=chance.random() < 0.4,
        tls=tls,
        pre_accept=FaultKind.REFUSE in kinds or chance.random() < 0.25,
        actions=actions,
    )


def _kinds(chance: random.Random, seed: int) -> list[FaultKind]:
    """Some at random; one of them in turn, so that a short campaign meets all, and those that need luck more often."""
    number = chance.choice((0, 1, 1, 2, 2, 3, 4))
    kinds = chance.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()), k=number)
    if number:
        turns = _NEED_LUCK if seed % 2 == 0 else tuple(FaultKind)
        kinds[-1] = turns[seed // 2 % len(turns)]
    return kinds


def _action(chance: random.Random, kind: FaultKind) -> Action:
    is_timed = kind is FaultKind.KILL_ENDPOINT or chance.random() < 0.4
    if is_timed and kind not in (FaultKind.ARCHIVE_GONE, FaultKind.S3_DOWN):
        delay_s, event = chance.uniform(0, _WINDOW_S), ""
    else:
        delay_s, event = (
            chance.choice((0.0, 0.005, 0.02, 0.05, 0.1)) * chance.random(),
            _event(chance, kind),
        )
    return Action(
        kind=kind,
        delay_s=round(delay_s, 4),
        event=event,
        turn=chance.choice((0, 0, 1)) if event else 0,
        duration_s=round(chance.uniform(0.05, 2.5), 3),
        clock_s=chance.choice(_CLOCK_STEPS) if kind is FaultKind.CLOCK_STEP else 0.0,
        sweep=chance.choice(list(Sweep)),
        spare_bytes=chance.choice((0, 1, 4, 12)) * 2**18 if kind in MEMORY_FAULTS else 0,
    )


def _event(chance: random.Random, kind: FaultKind) -> str:
    if kind is FaultKind.ARCHIVE_GONE:
        return chance.choice(_BEFORE_ARCHIVE_GOES)
    if kind is FaultKind.S3_DOWN:
        return chance.choice(_BEFORE_DOWNLOAD)
    if kind is FaultKind.REFUSE:
        return chance.choice(_ASKED_BEFORE)
    event = chance.choice(_EVENTS)
    if kind in HOOK_FAULTS and event in ("DownloadBundle", "Install"):
        return "ApplicationStart"
    return event

"""Everything that can go wrong in a run, and what of it meets the next exchange."""
# ruff: noqa: S311 - reproducible, not secret

from __future__ import annotations

import random
from enum import Enum


class FaultKind(Enum):
    """What can be done to a host, beside what the network does to its requests."""

    KILL_DAEMON = "kill-daemon"
    KILL_WORKER = "kill-worker"
    KILL_WAITING = "kill-waiting-worker"
    KILL_HOOK = "kill-hook"
    KILL_RECORDER = "kill-recorder"
    STOP_DAEMON = "stop-daemon"
    STOP_WORKER = "stop-worker"
    STOP_WAITING = "stop-waiting-worker"
    STOP_HOOK = "stop-hook"
    RESTART_DAEMON = "restart-daemon"
    DRAIN = "drain"
    KILL_ENDPOINT = "kill-endpoint"
    REBOOT = "reboot"
    FULL_DISK = "full-disk"
    READ_ONLY = "read-only"
    NO_FILES = "no-files"
    NO_PIDS = "no-pids"
    NO_MEMORY = "no-memory"
    OOM_KILL = "oom-kill"
    CLOCK_STEP = "clock-step"
    REFUSE = "pre-accept-refuses"
    S3_DOWN = "s3-down"
    ARCHIVE_GONE = "archive-gone"
    EXPIRED_CERTIFICATE = "expired-certificate"
    OTHER_CERTIFICATE = "other-certificate"


CERTIFICATE_FAULTS = frozenset((FaultKind.EXPIRED_CERTIFICATE, FaultKind.OTHER_CERTIFICATE))
MEMORY_FAULTS = frozenset((FaultKind.NO_MEMORY, FaultKind.OOM_KILL))
DISK_FAULTS = frozenset((FaultKind.FULL_DISK, FaultKind.READ_ONLY))
HOOK_FAULTS = frozenset((FaultKind.KILL_HOOK, FaultKind.STOP_HOOK, FaultKind.KILL_RECORDER))
# What they take is needed for anything at all.
STARVING = DISK_FAULTS | MEMORY_FAULTS | {FaultKind.NO_FILES, FaultKind.NO_PIDS}


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


class S3Fault(Enum):
    """What the proxy before the S3 server does to one download. Those after WRONG_BYTES answer a range."""

    NONE = "none"
    RESET = "reset"
    SLOW_DOWN = "503-slow-down"
    ERROR = "error-500"
    BODY_RESET = "body-reset"
    BODY_ENDED = "body-ended"
    SLOW = "slow"
    OTHER_ETAG = "other-etag"
    WRONG_BYTES = "wrong-bytes"
    RANGE_206 = "range-206"
    RANGE_200 = "range-200-with-content-range"
    RANGE_IGNORED = "range-ignored"
    RANGE_OTHER_OFFSET = "range-other-offset"
    RANGE_OTHER_TOTAL = "range-other-total"
    RANGE_REFUSED = "range-416"
    RANGE_SHORTER = "range-shorter"
    RANGE_LONGER = "range-longer"
    RANGE_OTHER_ETAG = "range-other-etag"


RANGE_FAULTS = tuple(fault for fault in S3Fault if fault.value.startswith("range-"))


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
# Mostly in the body: only what has begun is asked for again with a range.
_WHOLE_OBJECT = {
    S3Fault.RESET: 2,
    S3Fault.SLOW_DOWN: 2,
    S3Fault.ERROR: 2,
    S3Fault.BODY_RESET: 14,
    S3Fault.BODY_ENDED: 12,
    S3Fault.SLOW: 2,
    S3Fault.OTHER_ETAG: 2,
    S3Fault.WRONG_BYTES: 2,
}


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


class S3Faults:
    """What happens to one download after the other of one run.

    Ranges are answered in every way in turn, beginning where the seed says: they are too few for chance.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._turn = seed

    def choose(self, share: float, *, is_range: bool) -> S3Fault:
        """What happens to the next request, for an object or for the rest of one."""
        # Ranges are asked for seldom, and many of these answers are right.
        if self.chance.random() >= (max(share, 0.9) if is_range and share else share):
            return S3Fault.NONE
        if is_range and self.chance.random() < 0.9:
            self._turn += 1
            return RANGE_FAULTS[self._turn % len(RANGE_FAULTS)]
        return self.chance.choices(list(_WHOLE_OBJECT), weights=list(_WHOLE_OBJECT.values()))[0]

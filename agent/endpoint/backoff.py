"""How long to wait after polls that failed. Pure."""

from __future__ import annotations

import math

_BASE = 1.2675
_LIMIT = 10
_LONGEST_S = 90


def wait_after_failures(failures: int, *, spent_s: float = 0.0) -> float:
    """Seconds until the next poll after so many failures in a row.

    Grows from 10 s to 90 s at the tenth failure, less the time that the failed poll itself took.
    The curve is that of the existing agents, so that a fleet behaves as the service expects.

    Args:
        failures: at least 1.
        spent_s: how long the last attempt took.
    """
    counted = min(max(failures, 1), _LIMIT)
    planned = math.floor(_BASE**counted * _LONGEST_S / _BASE**_LIMIT)
    return max(0.0, planned - spent_s)

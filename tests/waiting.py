"""Waiting for something to happen, instead of sleeping for as long as it might take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PATIENCE_S = 20.0
"""What a test waits for comes long before that, or never."""


def wait_until(
    claim: Callable[[], T | None], what: str = "it never happened", within_s: float = PATIENCE_S
) -> T:
    """The first true value of the claim; fails with `what` when there is none in time."""
    end = time.monotonic() + within_s
    while True:
        value = claim()
        if value:
            return value
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether this process lives; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"

"""Whose scripts run at a lifecycle event. Pure.

The events before DownloadBundle come when the new revision is not on the host yet, so the scripts
of an earlier one run: those that stop what is running now know best how.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class _Source(Enum):
    """A deployment of the group, by the part it has played."""

    CURRENT = "current"
    LAST_SUCCESSFUL = "last successful"
    MOST_RECENT = "most recent"


_NORMAL = {
    "BeforeBlockTraffic": _Source.LAST_SUCCESSFUL,
    "AfterBlockTraffic": _Source.LAST_SUCCESSFUL,
    "ApplicationStop": _Source.LAST_SUCCESSFUL,
}
_BLUE_GREEN_ROLLBACK = {
    "BeforeBlockTraffic": _Source.MOST_RECENT,
    "AfterBlockTraffic": _Source.MOST_RECENT,
    "ApplicationStop": _Source.LAST_SUCCESSFUL,
    "BeforeAllowTraffic": _Source.LAST_SUCCESSFUL,
    "AfterAllowTraffic": _Source.LAST_SUCCESSFUL,
}


def choose_deployment(
    event: str,
    *,
    is_blue_green_rollback: bool,
    current: Path | None,
    last_successful: Path | None,
    most_recent: Path | None,
) -> Path | None:
    """The deployment directory whose scripts run at this event; None = nothing to run.

    Each directory is given only if its deployment archive exists, else None: a revision that is
    gone has no scripts, and its absence is no failure.

    Args:
        event: any name; unknown ones are treated as custom events.
        is_blue_green_rollback: the service rolls a blue/green deployment back.
        current: the deployment that the command belongs to.
        last_successful: the deployment whose Install last succeeded.
        most_recent: the deployment that was last downloaded.
    """
    if current is not None:
        return current
    table = _BLUE_GREEN_ROLLBACK if is_blue_green_rollback else _NORMAL
    sources = {_Source.LAST_SUCCESSFUL: last_successful, _Source.MOST_RECENT: most_recent}
    return sources.get(table.get(event, _Source.CURRENT))

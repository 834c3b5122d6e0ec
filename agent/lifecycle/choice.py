"""Whose scripts run at a lifecycle event. Pure.

The events before DownloadBundle come when the new revision is not on the host yet, so the scripts
of an earlier one run: those that stop what is running now know best how.
"""

from __future__ import annotations

from enum import Enum


class ScriptSource(Enum):
    """A deployment of the group, by the part it has played.

    `CURRENT` is the one that the command belongs to, `LAST_SUCCESSFUL` the one whose Install last
    succeeded, `MOST_RECENT` the one that was last downloaded.
    """

    CURRENT = "current"
    LAST_SUCCESSFUL = "last successful"
    MOST_RECENT = "most recent"


_NORMAL = {
    "BeforeBlockTraffic": ScriptSource.LAST_SUCCESSFUL,
    "AfterBlockTraffic": ScriptSource.LAST_SUCCESSFUL,
    "ApplicationStop": ScriptSource.LAST_SUCCESSFUL,
}
_BLUE_GREEN_ROLLBACK = {
    "BeforeBlockTraffic": ScriptSource.MOST_RECENT,
    "AfterBlockTraffic": ScriptSource.MOST_RECENT,
    "ApplicationStop": ScriptSource.LAST_SUCCESSFUL,
    "BeforeAllowTraffic": ScriptSource.LAST_SUCCESSFUL,
    "AfterAllowTraffic": ScriptSource.LAST_SUCCESSFUL,
}


def choose_source(event: str, *, is_blue_green_rollback: bool, has_current: bool) -> ScriptSource:
    """The deployment whose scripts run at this event.

    An earlier deployment that was never there has no scripts, and that is no failure. The current one
    has an archive from DownloadBundle on: where it is missing at an event that needs it, nobody knows
    what should have run.

    Args:
        event: any name; unknown ones are treated as custom events.
        is_blue_green_rollback: the service rolls a blue/green deployment back.
        has_current: the deployment archive of the current deployment exists.
    """
    if has_current:
        return ScriptSource.CURRENT
    table = _BLUE_GREEN_ROLLBACK if is_blue_green_rollback else _NORMAL
    return table.get(event, ScriptSource.CURRENT)

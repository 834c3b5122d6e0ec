"""Whose scripts run at which event."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.lifecycle.choice import choose_deployment
from agent.protocol import LIFECYCLE_EVENTS

CURRENT, LAST, RECENT = Path("/current"), Path("/last-successful"), Path("/most-recent")
BEFORE_DOWNLOAD = ("BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop")

# Event → whose scripts, while the current deployment's archive does not exist:
# normally, and in the rollback of a blue/green deployment.
TABLE = {
    "BeforeBlockTraffic": (LAST, RECENT),
    "AfterBlockTraffic": (LAST, RECENT),
    "ApplicationStop": (LAST, LAST),
    "BeforeInstall": (None, None),
    "AfterInstall": (None, None),
    "ApplicationStart": (None, None),
    "ValidateService": (None, None),
    "BeforeAllowTraffic": (None, LAST),
    "AfterAllowTraffic": (None, LAST),
    "CustomEvent": (None, None),
}


def choose(
    event: str,
    *,
    rollback: bool = False,
    current: Path | None = None,
    last_successful: Path | None = LAST,
    most_recent: Path | None = RECENT,
) -> Path | None:
    return choose_deployment(
        event,
        is_blue_green_rollback=rollback,
        current=current,
        last_successful=last_successful,
        most_recent=most_recent,
    )


@pytest.mark.parametrize("event", TABLE)
def test_without_an_archive_of_its_own_an_event_runs_the_scripts_of_the_table(event: str) -> None:
    """The wrong revision's stop script stops the wrong thing."""
    assert TABLE[event] == (choose(event), choose(event, rollback=True))


@pytest.mark.parametrize("event", TABLE)
@pytest.mark.parametrize("rollback", [False, True])
def test_a_deployment_whose_archive_exists_runs_its_own_scripts(event: str, *, rollback: bool) -> None:
    """A deployment that is repeated, or stops late, finds its own scripts."""
    assert choose(event, rollback=rollback, current=CURRENT) == CURRENT


@pytest.mark.parametrize("event", TABLE)
@pytest.mark.parametrize("rollback", [False, True])
def test_on_a_fresh_host_nothing_runs(event: str, *, rollback: bool) -> None:
    """ApplicationStop of the first deployment must succeed by doing nothing."""
    assert choose(event, rollback=rollback, last_successful=None, most_recent=None) is None


def test_the_table_covers_every_lifecycle_event() -> None:
    """A new event must not slip in without a decision."""
    assert {*LIFECYCLE_EVENTS, "CustomEvent"} == set(TABLE)

"""Whose scripts run at which event."""

from __future__ import annotations

import pytest

from agent.lifecycle.choice import ScriptSource, choose_source
from agent.protocol import LIFECYCLE_EVENTS

CURRENT, LAST, RECENT = ScriptSource.CURRENT, ScriptSource.LAST_SUCCESSFUL, ScriptSource.MOST_RECENT

# Event → whose scripts, while the current deployment's archive does not exist:
# normally, and in the rollback of a blue/green deployment.
TABLE = {
    "BeforeBlockTraffic": (LAST, RECENT),
    "AfterBlockTraffic": (LAST, RECENT),
    "ApplicationStop": (LAST, LAST),
    "BeforeInstall": (CURRENT, CURRENT),
    "AfterInstall": (CURRENT, CURRENT),
    "ApplicationStart": (CURRENT, CURRENT),
    "ValidateService": (CURRENT, CURRENT),
    "BeforeAllowTraffic": (CURRENT, LAST),
    "AfterAllowTraffic": (CURRENT, LAST),
    "CustomEvent": (CURRENT, CURRENT),
}


def choose(event: str, *, rollback: bool, has_current: bool = False) -> ScriptSource:
    return choose_source(event, is_blue_green_rollback=rollback, has_current=has_current)


@pytest.mark.parametrize("event", TABLE)
def test_without_an_archive_of_its_own_an_event_runs_the_scripts_of_the_table(event: str) -> None:
    """The wrong revision's stop script stops the wrong thing."""
    assert TABLE[event] == (choose(event, rollback=False), choose(event, rollback=True))


@pytest.mark.parametrize("event", TABLE)
@pytest.mark.parametrize("rollback", [False, True])
def test_a_deployment_whose_archive_exists_runs_its_own_scripts(event: str, *, rollback: bool) -> None:
    """A deployment that is repeated, or stops late, finds its own scripts."""
    assert choose(event, rollback=rollback, has_current=True) is CURRENT


def test_the_table_covers_every_lifecycle_event() -> None:
    """A new event must not slip in without a decision."""
    assert {*LIFECYCLE_EVENTS, "CustomEvent"} == set(TABLE)

"""A record is in one state at a time, and goes from one to another only as the table says."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.daemon.tracked_jobs import TRANSITIONS, TrackedJob, TrackedJobs, TrackedState
from agent.deployments import Job


def way_to(state: TrackedState) -> list[TrackedState]:
    """The shortest way through the table that leads there."""
    ways = [[TrackedState.FOUND]]
    for way in ways:
        if way[-1] is state:
            return way[1:]
        ways += [[*way, following] for following in TRANSITIONS[way[-1]] if following not in way]
    raise AssertionError(f"nothing leads to {state}")


def tracked_in(state: TrackedState) -> TrackedJob:
    tracked = TrackedJobs().track(Job(Path("00000001-a")))
    for step in way_to(state):
        tracked.become(step, pid=17 if step is TrackedState.AT_WORK else 0)
    return tracked


@pytest.mark.parametrize("before", TrackedState)
@pytest.mark.parametrize("after", TrackedState)
def test_what_the_table_does_not_have_is_a_bug_and_said_to_be_one(
    before: TrackedState, after: TrackedState
) -> None:
    """A daemon that starts two workers for one command, or loses one, would do so without a word."""
    tracked = tracked_in(before)
    if after is before or after in TRANSITIONS[before]:
        tracked.become(after)
        assert after is tracked.state
    else:
        with pytest.raises(AssertionError, match=f"{before.name} can't become {after.name}"):
            tracked.become(after)
        assert before is tracked.state


def test_every_state_is_reached_and_only_the_last_one_is_never_left() -> None:
    """A record in a state that nothing leads out of would never be reported."""
    assert {*TrackedState} == {*TRANSITIONS}
    assert all(tracked_in(state).state is state for state in TrackedState)
    assert [TrackedState.OVER] == [state for state, following in TRANSITIONS.items() if not following]


def test_the_pid_of_a_worker_stands_for_its_record_only_while_it_is_at_work() -> None:
    """A pid that is another process's by now must not end the command of the first one."""
    jobs = TrackedJobs()
    tracked = jobs.track(Job(Path("00000001-a")))
    tracked.become(TrackedState.STARTING)
    tracked.become(TrackedState.AT_WORK, pid=17)
    assert tracked is jobs.worked_on_by(17)
    tracked.become(TrackedState.REPORTED)
    assert jobs.worked_on_by(17) is None

"""The order of an Install's phases: each knows nothing but the next one."""

from __future__ import annotations

import inspect
import itertools

import pytest

from agent.install.apply.phases import Begun, Committed, Compared, Recorded, Staged, Switched

ORDER: list[type] = [Compared, Begun, Staged, Switched, Recorded, Committed]


@pytest.mark.parametrize(("phase", "following"), list(itertools.pairwise(ORDER)))
def test_a_phase_leads_to_the_next_one_and_nowhere_else(phase: type, following: type) -> None:
    """An order that leaves out the journal, or the disk, would show after a loss of power: so none can be written."""
    ways = [value for name, value in vars(phase).items() if inspect.isfunction(value) and name[0] != "_"]

    assert [following.__name__] == [way.__annotations__["return"] for way in ways]

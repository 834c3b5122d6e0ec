"""I10: what damage makes of lists is not believed by the compiled library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.install.compare.survey import UNCHANGED
from agent.install.posix import batched
from tests.install.batched_pair import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.install.posix.batched import Library


@pytest.fixture
def library() -> Library:
    """The library itself."""
    found = batched.library()
    if found is None:
        pytest.skip("the library was not compiled: there is no C compiler")
    return found


@pytest.fixture
def pair(place: Path) -> Iterator[Pair]:
    pair = Pair(place)
    yield pair
    pair.close()


DAMAGE = st.lists(
    st.tuples(
        st.booleans(),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 40),
        st.binary(max_size=3) | st.text("0129 -\n%/lf\0", max_size=3).map(str.encode),
    ),
    min_size=1,
    max_size=3,
)
"""Whether it befalls the index, where, how many bytes go there, and what takes their place."""


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(damage=DAMAGE)
def test_what_damaged_lists_say_is_not_believed(
    library: Library, pair: Pair, damage: list[tuple[bool, float, int, bytes]]
) -> None:
    """And memory is not read, or written, beyond them."""
    entries, listed = lists = pair.both("a", "b", "n" * 255)
    for is_index, where, length, instead in damage:
        content = entries if is_index else listed
        at = int(where * len(content))
        content = content[:at] + instead + content[at + length :]
        entries, listed = (content, listed) if is_index else (entries, content)

    states = pair.compared(library, entries, listed)

    files = [line for line in entries.split(b"\n") if not line.startswith(b"/ ")]
    for entry, line, state in zip(files, listed.split(b"\n"), states or (), strict=False):
        assert state != UNCHANGED or (entry in lists[0].split(b"\n") and line in lists[1].split(b"\n"))

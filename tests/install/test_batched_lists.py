"""I10: what damage makes of lists is not believed by the compiled library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.install.compare.survey import UNCHANGED

if TYPE_CHECKING:
    from agent.install.posix.batched import Library
    from tests.install.batched_pair import Pair


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
    compiled: Library, pair: Pair, damage: list[tuple[bool, float, int, bytes]]
) -> None:
    """And memory is not read, or written, beyond them."""
    entries, listed = lists = pair.both("a", "b", "n" * 255)
    for is_index, where, length, instead in damage:
        content = entries if is_index else listed
        at = int(where * len(content))
        content = content[:at] + instead + content[at + length :]
        entries, listed = (content, listed) if is_index else (entries, content)

    states = pair.compared(compiled, entries, listed)

    files = [line for line in entries.split(b"\n") if not line.startswith(b"/ ")]
    for entry, line, state in zip(files, listed.split(b"\n"), states or (), strict=False):
        assert state != UNCHANGED or (entry in lists[0].split(b"\n") and line in lists[1].split(b"\n"))

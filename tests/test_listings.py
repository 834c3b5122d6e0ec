"""Lists of what directories hold, of which a few lines change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.listings import Sections, escape

NAMES = [b"a", b"b", b"a b", b"%41", b"n\nl", b"\xff", b"aa"]
PARTS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=3)), min_size=1, max_size=6
)
"""Directories in order, each with what is listed in it there; it may come again."""


def _lines(
    directory: bytes, fields: bytes, names: list[bytes], told: dict[tuple[bytes, bytes], bytes]
) -> bytes:
    files = [b"%b %b\n" % (told.get((directory, name), b"f old"), escape(name)) for name in names]
    return b"d %b /%b\n" % (fields, escape(directory)) + b"".join(files)


@given(parts=PARTS, data=st.data(), length=st.sampled_from([0, 100]))
def test_what_changes_is_all_that_is_another_then(
    parts: list[tuple[bytes, list[bytes]]], data: st.DataObject, length: int
) -> None:
    """Also where nothing is listed between a directory and the next one; few lines among long ones are searched for."""
    seen: set[tuple[bytes, bytes]] = set()
    once: list[tuple[bytes, list[bytes]]] = []
    for directory, names in parts:
        own = [name for name in dict.fromkeys(names) if (directory, name) not in seen]
        seen.update((directory, name) for name in own)
        once.append((directory, own))
    changed = data.draw(st.sets(st.sampled_from(sorted(seen)))) if seen else set()
    again = data.draw(st.sets(st.sampled_from(sorted({directory for directory, _names in once}))))
    long = dict.fromkeys(sorted(seen - changed), b"f " + b"1" * length)
    before, after, known = b"", b"", set[bytes]()
    for directory, names in once:
        is_first, fields = directory not in known, b"- 1"
        known.add(directory)
        before += _lines(directory, fields, names, long)
        fields = b"c 2 3" if is_first and directory in again else fields
        after += _lines(directory, fields, names, {**long, **dict.fromkeys(changed, b"f new")})
    sections = Sections(before)
    sections.directories()
    lines: dict[bytes, list[bytes]] = {}
    for directory, name in sorted(changed):
        lines.setdefault(b"/" + directory, []).append(b"f new " + escape(name))

    found = b"".join(sections.changed({b"/" + directory: b"c 2 3" for directory in sorted(again)}, lines))

    assert found == after

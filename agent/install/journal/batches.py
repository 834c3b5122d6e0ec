"""Lines about very many files at once, as `encode` makes them of their entries one by one, which takes ten times as long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.listings import escape, escaped

if TYPE_CHECKING:
    from collections.abc import Iterable


def encode_changes(
    number: int, directory: bytes, names: list[bytes], new: Iterable[tuple[int, int, int]]
) -> bytes:
    """Lines of a `Hiding` and of all changes of one directory.

    Args:
        number: of the first of the names; the next one has the next number.
        directory: its real path.
        names: of all planned files in it.
        new: position in the names, inode, and inode of what is there, 0 when nothing is, of each that changes.
    """
    real, escaped_names = escape(directory), escaped(names)
    lines = [b"h " + real + b"\n"]
    for position, inode, old_inode in new:
        name = escaped_names[position]
        if old_inode:
            lines.append(b"r %d %d %d %b %b\n" % (number + position, inode, old_inode, real, name))
        else:
            lines.append(b"n %d %d %b %b\n" % (number + position, inode, real, name))
    return b"".join(lines)


def encode_new_files(names: list[bytes], lines: list[bytes]) -> bytes:
    """The lines of a `MadeFiles` below its first one.

    Args:
        names: of the files and links in it.
        lines: the fields of their manifest lines.
    """
    return b"".join(
        [
            b" %b %b\n" % (fields.split(b" ", 2)[1], name)
            for fields, name in zip(lines, escaped(names), strict=True)
        ]
    )

"""System calls for all files of one directory at once, in a small compiled library (`batched.c`), where there is one.

It has no rules of its own: each function does what Python does file by file in the usual case, and stops before the first
file that is not such a one. Without the library, and for whoever wants to be told before each change, Python does it all, with
the same outcome; it takes two to four times as long for a file.
"""

from __future__ import annotations

from array import array
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_VERSION = 2  # that of batched.c
_ROW = Struct("=QQqq")
_NUMBER_BYTES = array("Q").itemsize


class Made(NamedTuple):
    """A file as it is now."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Copied(NamedTuple):
    """What came of copying.

    Attributes:
        made: the copies that are complete, of the first files.
        error: number of the error of the next one; 0 where that is not a plain file, and when there is none.
    """

    made: list[Made]
    error: int


class Switched(NamedTuple):
    """What came of letting files take their places.

    Attributes:
        made: the first files, which have them.
        is_unclear: the next name was changed, too, but something else may have it, or it has a time that is no number of
            ours. Otherwise nothing was done with that one.
    """

    made: list[Made]
    is_unclear: bool


class Library:
    """The library.

    Args:
        found: it, loaded.
    """

    def __init__(self, found: Any) -> None:
        import ctypes  # noqa: PLC0415 - the daemon never needs it

        number, size, text, place = ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p
        self._compare, self._copy, self._switch = (
            found.compare_files,
            found.copy_files,
            found.switch_files,
        )
        self._compare.restype = ctypes.c_long
        self._compare.argtypes = (text, size, text, size, number, number, number, ctypes.c_uint, place)
        self._copy.restype = size
        self._copy.argtypes = (
            *(number, number, text, text, text, size),
            *(size, number, ctypes.c_uint, place, ctypes.POINTER(number)),
        )
        self._switch.restype = size
        self._switch.argtypes = (number, text, text, place, size, place, ctypes.POINTER(number))
        self._number = number

    def compared(
        self, entries: bytes, listed: bytes, source_fd: int, real_fd: int, *, is_root: bool, gid: int
    ) -> array[int] | None:
        """What is known of each file of a directory, as of a survey; None where that has to be found out file by file.

        Args:
            entries: what the archive's index lists of it there.
            listed: what the manifest lists of it on the host; as many files, with the same names.
            source_fd: descriptor of the archive's directory.
            real_fd: of that of the host.
            is_root: whether owners matter.
            gid: that new files get, for those who are not root.
        """
        states = array("Q", bytes(_NUMBER_BYTES * listed.count(b"\n")))
        count = self._compare(
            *(entries, len(entries), listed, len(listed)),
            *(source_fd, real_fd, is_root, gid, states.buffer_info()[0]),
        )
        return states if count == len(states) else None

    def copied(
        self,
        source_fd: int,
        dir_fd: int,
        fields: list[bytes],
        names: list[bytes],
        places: list[bytes] | None,
        *,
        most_bytes: int,
        is_root: bool,
        gid: int,
    ) -> Copied:
        """Copy files that are as they were unpacked, and get no more than the archive says.

        Args:
            source_fd: descriptor of their directory.
            dir_fd: of the directory where the copies are made.
            fields: what the archive's index lists of each, but for its name.
            names: of each.
            places: names of the copies; None = the same.
            most_bytes: of a file.
            is_root: whether they get the owners that they have in the archive.
            gid: group that new files get by themselves.
        """
        rows, error = bytearray(_ROW.size * len(names)), self._number()
        count = self._copy(
            *(source_fd, dir_fd, _joined(fields), _joined(names), _joined(places) if places else None),
            *(len(names), most_bytes, is_root, gid, _address(rows), error),
        )
        return Copied(list(_rows(rows, count)), error.value)

    def switched(self, dir_fd: int, hidden: list[bytes], names: list[bytes], inodes: array[int]) -> Switched:
        """Let new files take their places, those that replace something in exchange for it.

        Args:
            dir_fd: descriptor of their directory.
            hidden: names under which they wait.
            names: that they are to have.
            inodes: of each its own, and that of what it replaces, 0 = nothing is there.
        """
        rows, is_unclear = bytearray(_ROW.size * len(names)), self._number()
        count = self._switch(
            *(dir_fd, _joined(hidden), _joined(names), inodes.buffer_info()[0], len(names)),
            *(_address(rows), is_unclear),
        )
        return Switched(list(_rows(rows, count)), bool(is_unclear.value))


def _joined(texts: list[bytes]) -> bytes:
    """As the library takes them; after the last one, ctypes puts another zero."""
    return b"\0".join(texts)


def _address(rows: bytearray) -> Any:
    import ctypes  # noqa: PLC0415

    return ctypes.addressof(ctypes.c_char.from_buffer(rows)) if rows else None


def _rows(rows: bytearray, count: int) -> Iterator[Made]:
    return map(Made._make, _ROW.iter_unpack(memoryview(rows)[: _ROW.size * count]))


@cache
def library() -> Library | None:
    """The library; None where it was not compiled, or from another version of its source."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_batched{suffix}")
        if path.exists():
            return _loaded(path)
    return None


def _loaded(path: Path) -> Library | None:
    import ctypes  # noqa: PLC0415

    try:
        found = ctypes.CDLL(str(path))
        return Library(found) if found.batched_version() == _VERSION else None
    except (OSError, AttributeError):
        return None

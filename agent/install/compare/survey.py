"""Finding out quickly which files are there already, just as they are to be: while one process plans, another looks.

An Install without changes consists of little else, and what is to be planned can be guessed: that
what is in the archive goes to where the files were that have the same names.
"""

from __future__ import annotations

import os
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from agent.install.posix.open_directories import PLACE
from agent.install.posix.two_processes import Crew, SecondProcessKilled, processes_for
from agent.install.revision.sources import placement_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.archive_index import ArchiveIndex
    from agent.install.model.request import InstallRequest
    from agent.install.records.installed import PreviousFiles

T = TypeVar("T")

UNKNOWN, UNCHANGED = 0, 1
_NUMBER_BYTES = array("Q").itemsize

Found: TypeAlias = bytes | None
"""What `states_in` gives for each of `names_of` a directory's entries: UNKNOWN; UNCHANGED, so that nothing is to be
done; or, where the index says that the content is another, the inode of what is there. None when all are UNCHANGED.

As bytes it goes from one process to another in a third of the time."""


class Survey:
    """What was found at the pairs of a directory of the archive and one of the host that probably belong together.

    Close it in the end, however far it has come.

    Args:
        processes: how many look.
    """

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._crews: list[Crew] = []
        self._pairs: list[tuple[bytes, bytes]] = []
        self._complete: Callable[[], list[Found]] = list
        self._found: dict[tuple[bytes, bytes], Found] = {}

    def close(self) -> None:
        """Nobody looks any more."""
        for crew in self._crews:
            crew.close()
        self._crews.clear()

    def look_at_all(self, look: Callable[[int], T], length: int, count: int) -> list[T]:
        """What `look` answers for all numbers below that.

        Args:
            look: as the works of a `Crew`.
            length: how many numbers.
            count: about how many files that means.

        Raises:
            SecondProcessKilled: it has not done its part.
        """
        return self._begin(look, length, count)()

    def begin(self, request: InstallRequest, index: ArchiveIndex, previous: PreviousFiles) -> None:
        """Let the others look, if there is much to be seen."""
        self.close()
        self._pairs, self._found, self._complete = [], {}, list
        if processes_for(index.size, self._processes) < 2:
            return
        self._pairs = pairs = list(_pairs(request, index, previous))
        is_root = os.geteuid() == 0

        def look_at(number: int) -> Found:
            source, real = pairs[number]
            return look_in(source, real, index.of(source), previous.of(real), is_root=is_root)

        if pairs:
            self._complete = self._begin(look_at, len(pairs), index.size)

    def complete(self) -> None:
        """Look at what nobody else has looked at yet, and wait for the others."""
        with suppress(SecondProcessKilled):  # another process was killed: whoever needs it has to look
            self._found.update(zip(self._pairs, self._complete(), strict=True))
        self._pairs, self._complete = [], list

    def _begin(self, look: Callable[[int], T], length: int, count: int) -> Callable[[], list[T]]:
        crew = Crew(look, processes=processes_for(count, self._processes))
        self._crews.append(crew)
        return crew.begin(look, length)

    def take(self, found: dict[tuple[bytes, bytes], Found]) -> None:
        """This was found by somebody else; nobody needs to look any more."""
        self.close()
        self._pairs, self._found, self._complete = [], found, list

    def has(self, source: bytes, real: bytes) -> bool:
        """Whether it was guessed that this directory of the archive goes to that one."""
        return (source, real) in self._found

    def of(self, source: bytes, real: bytes) -> Found:
        """What was found there."""
        return self._found[source, real]


def states_in(found: bytes) -> array[int]:
    """The numbers."""
    return array("Q", found)


def names_of(entries: dict[bytes, bytes]) -> list[bytes]:
    """Names of the files of a directory of the archive, in order, of which the content is known."""
    return [name for name, fields in entries.items() if len(fields) > 1]


def look_in(
    source: bytes, real: bytes, entries: dict[bytes, bytes], known: dict[bytes, bytes], *, is_root: bool
) -> Found:
    """The same as `look`, of directories given by their paths."""
    try:
        source_fd = os.open(source, PLACE)
        try:
            real_fd = os.open(real, PLACE)
            try:
                return look(source_fd, real_fd, entries, known, is_root=is_root)
            finally:
                os.close(real_fd)
        finally:
            os.close(source_fd)
    except OSError:
        return _nothing(len(names_of(entries))).tobytes()


def _nothing(count: int) -> array[int]:
    return array("Q", bytes(_NUMBER_BYTES * count))


def look(
    source_fd: int, real_fd: int, entries: dict[bytes, bytes], known: dict[bytes, bytes], *, is_root: bool
) -> Found:
    """What there is of the files of a directory of the archive, as far as its index knows them.

    This opens no file, and makes at most two calls for each: the index holds the status of the archive's
    files, and the manifest that of ours. What can't be looked at is left to a closer look, which will say why.

    Args:
        source_fd: the directory in the archive, opened as a PLACE.
        real_fd: where they go.
        entries: of the index, about the former.
        known: of the manifest, about the latter.
        is_root: whether owners matter; where not, all have the group of the agent, or need a closer look.
    """
    gid, lstat = -1 if is_root else os.getegid(), os.lstat
    files = [item for item in entries.items() if len(item[1]) > 1]
    found = _nothing(len(files))
    for position, (name, entry) in enumerate(files):
        fields = known.get(name)
        if not fields:
            continue
        try:
            there = lstat(name, dir_fd=real_fd)
            inode, size, mtime_ns = there.st_ino, there.st_size, there.st_mtime_ns
            identity = b"f %d %d %d %d " % (inode, size, mtime_ns, there.st_ctime_ns)
            digest = fields[len(identity) : -2]
            if not fields.startswith(identity) or digest == b"-" or inode <= UNCHANGED:
                continue
            if not entry.endswith(digest):
                # If it was changed in the archive since, that will be seen when it is copied.
                found[position] = inode
                continue
            source_is = lstat(name, dir_fd=source_fd)
        except OSError:
            continue
        if (
            entry == b"%d %d %d %d %b" % (source_is.st_ino, size, mtime_ns, source_is.st_ctime_ns, digest)
            and size == source_is.st_size
            and mtime_ns == source_is.st_mtime_ns
            and there.st_mode == source_is.st_mode
            and there.st_nlink == source_is.st_nlink == 1
            and there.st_gid == (source_is.st_gid if is_root else gid)
            and (not is_root or there.st_uid == source_is.st_uid)
            and fields.endswith(b" -")
        ):
            found[position] = UNCHANGED
    return None if found.count(UNCHANGED) == len(found) else found.tobytes()


def _pairs(
    request: InstallRequest, index: ArchiveIndex, previous: PreviousFiles
) -> Iterator[tuple[bytes, bytes]]:
    archive = os.fsencode(request.archive)
    reals = dict(previous.spellings())
    for mapping in request.appspec.files:
        for path, source in placement_of(archive, mapping).sources_of(reals).items():
            if index.knows(source):
                yield source, reals[path]

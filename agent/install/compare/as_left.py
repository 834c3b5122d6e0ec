"""Whether what the last Install has left is still there, and would be made just so now."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.archive_index import DIRECTORY, LINK
from agent.install.attributes.of_files import wanted_of
from agent.install.attributes.of_new_directories import (
    FreshDirectories,
    HandedDown,
    handed_down,
    handed_down_at,
)
from agent.install.compare.recorded_directories import DifferentError, require
from agent.install.model.directory import Directory, Standing
from agent.install.posix.acl import ACCESS, DEFAULT, place_acl
from agent.install.posix.open_directories import PLACE
from agent.install.records.manifest import attributes_in_state, is_in_state, is_state_unknown, link_fields
from agent.listings import unescape

if TYPE_CHECKING:
    from agent.archive_index import ArchiveIndex
    from agent.install.compare.recorded_directories import RecordedDirectories, RecordedDirectory
    from agent.install.posix.places import Places
    from agent.listings import Sections

_FIELDS_OF_FILE = 3  # of its entry in the index, where its content is known: status, digest, name


class AsLeft:
    """Looks whether directories are as they were left, and as they would be made now.

    Raises:
        OSError, DifferentError: it can't be told how they would be made now.
    """

    def __init__(
        self, recorded: RecordedDirectories, sections: Sections, index: ArchiveIndex, places: Places
    ) -> None:
        self._created = _as_created_now(recorded, places)
        self._places = places
        self._recorded = recorded
        self._sections = sections
        self._index = index
        self._is_root = os.geteuid() == 0

    def count_at(self, number: int) -> int | None:
        """Number of files and links in the directory of this number; None when anything there is not as it was left."""
        try:
            return self._count(self._recorded.at(number))
        except (OSError, DifferentError):
            return None

    def _count(self, place: RecordedDirectory) -> int:
        """Number of files and links in this directory, all of which are as they were left.

        Raises:
            OSError, DifferentError: something is not as it was.
        """
        listed = self._sections.text(place.path)
        if not listed or place.source is None:
            self._check_without_files(place, listed)
            return 0
        source_fd = os.open(place.source, PLACE)
        try:
            return self._check_with_files(place, place.source, listed, source_fd, self._places.of(place.real))
        finally:
            os.close(source_fd)

    def _check_without_files(self, place: RecordedDirectory, listed: bytes) -> None:
        require(not listed)
        status = self._places.status(place.real)
        text = b""
        if place.source is not None:
            source_status = os.lstat(place.source)
            require(stat.S_ISDIR(source_status.st_mode))
            text = self._index.text(place.source)
            for line in text.split(b"\n")[:-1]:
                self._check_directory(place, line)
            self._check_names(place.source, source_status, text)
        self._check_state(place, status, text)

    def _check_with_files(
        self, place: RecordedDirectory, source: bytes, listed: bytes, source_fd: int, real_fd: int
    ) -> int:
        """What is listed must be what would be listed now, if what is there is as it is in the archive.

        There may be 100,000 files, so nothing is called here that need not be.
        """
        text = self._index.text(source)
        lines: list[bytes] = []
        is_root, is_escaped, lstat = self._is_root, b"%" in text, os.lstat
        inherited = self._created.handed_down if place.state is not None else handed_down_at(real_fd)
        require(inherited.default_acl is None)
        gid = inherited.gid
        for line in text.split(b"\n")[:-1]:
            fields = line.rsplit(b" ", 2)
            if len(fields) < _FIELDS_OF_FILE:
                if fields[0] == LINK:
                    lines.append(self._checked_link(fields[1], source_fd, real_fd, inherited))
                else:
                    self._check_directory(place, line)
                continue
            identity, digest, spelled = fields
            name = unescape(spelled) if is_escaped else spelled
            there, wanted = lstat(name, dir_fd=real_fd), lstat(name, dir_fd=source_fd)
            size, mtime_ns = wanted.st_size, wanted.st_mtime_ns
            if not (
                identity == b"%d %d %d %d" % (wanted.st_ino, size, mtime_ns, wanted.st_ctime_ns)
                and there.st_mode == wanted.st_mode
                and there.st_nlink == wanted.st_nlink == 1
                and there.st_size == size
                and there.st_mtime_ns == mtime_ns
                and there.st_gid == (wanted.st_gid if is_root else gid)
                and (not is_root or there.st_uid == wanted.st_uid)
            ):
                raise DifferentError
            inode, ctime_ns = there.st_ino, there.st_ctime_ns
            # As `file_fields` has it.
            lines.append(b"f %d %d %d %d %b - %b" % (inode, size, mtime_ns, ctime_ns, digest, spelled))
        lines.append(b"")
        require(b"\n".join(lines) == listed)
        self._check_names(source, os.fstat(source_fd), text)
        self._check_state(place, os.fstat(real_fd), text)
        return len(lines) - 1

    def _check_directory(self, place: RecordedDirectory, line: bytes) -> None:
        """This entry is a directory, which has a place of its own."""
        kind, _space, spelled = line.partition(b" ")
        name = unescape(spelled)
        require(kind == DIRECTORY)
        require(self._recorded.sources.get(place.inner(name)) == (place.source or b"") + b"/" + name)

    def _check_state(self, place: RecordedDirectory, status: os.stat_result, text: bytes) -> None:
        """It is as Install has left it, or holds just these names, and has the attributes that it would have now."""
        if place.state is None:
            return
        if is_state_unknown(place.state):
            require(self._names(place.real) == _names_in(text))
            require(
                attributes_in_state(status.st_mode, status.st_uid, status.st_gid) == self._created.attributes
            )
            dir_fd = self._places.of(place.real)
            require(place_acl(dir_fd, ACCESS) is None and place_acl(dir_fd, DEFAULT) is None)
        else:
            require(is_in_state(status, place.state) and place.state.endswith(self._created.attributes))

    def _names(self, real: bytes) -> set[bytes]:
        """All that is in this directory."""
        dir_fd = self._places.opened(real)
        try:
            return {os.fsencode(name) for name in os.listdir(dir_fd)}
        finally:
            os.close(dir_fd)

    def _check_names(self, source: bytes, status: os.stat_result, text: bytes) -> None:
        """These are still all that are in this directory of the archive."""
        if not self._index.lists_all(source, status):
            require(_names_in(text) == set(os.listdir(source)))

    def _checked_link(self, spelled: bytes, source_fd: int, real_fd: int, inherited: HandedDown) -> bytes:
        """What would be listed of a link that is as it would be now."""
        name = unescape(spelled)
        there = os.lstat(name, dir_fd=real_fd)
        wanted = wanted_of(os.lstat(name, dir_fd=source_fd), None, inherited, is_root=self._is_root)
        require(stat.S_ISLNK(there.st_mode) and wanted.is_met_by_link(there))
        return b"%b %b" % (link_fields(there, os.readlink(name, dir_fd=source_fd)), spelled)


class _Created(NamedTuple):
    """All directories that Install has created, if it would create them now.

    Attributes:
        attributes: what their states end with.
        handed_down: what they hand down.
    """

    attributes: bytes
    handed_down: HandedDown


def _as_created_now(recorded: RecordedDirectories, places: Places) -> _Created:
    """What all directories that Install has created would be if it created them now.

    Raises:
        OSError: what is above them can't be looked at.
        DifferentError: one would be different from another, or have ACLs.
    """
    created = set()
    fresh = FreshDirectories(places)
    for path in recorded.tops:  # the others take after these
        real = recorded.reals[path]
        above = real.rpartition(b"/")[0] or b"/"
        parent = Directory(above, above, Standing.USED_BY_OTHERS, replaces=False, parent=None)
        directory = Directory(path, real, Standing.OURS, replaces=False, parent=parent)
        wanted = fresh.of(directory)
        require(not wanted.has_acls)
        attributes = attributes_in_state(wanted.mode, wanted.uid, wanted.gid)
        created.add(_Created(attributes, fresh.handed_down(directory)))
    require(len(created) <= 1)
    return created.pop() if created else _Created(b"", handed_down(0, 0, None))


def _names_in(text: bytes) -> set[bytes]:
    """The names of these entries of the index."""
    return {unescape(line.rpartition(b" ")[2]) for line in text.split(b"\n")[:-1]}

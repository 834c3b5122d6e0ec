"""Whether what the last Install has left is still there, and would be made just so now."""

from __future__ import annotations

import os
import stat
from array import array
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
from agent.install.compare.survey import UNCHANGED, UNKNOWN
from agent.install.model.directory import Directory, Standing
from agent.install.posix import batched
from agent.install.posix.acl import ACCESS, DEFAULT, place_acl
from agent.install.posix.open_directories import PLACE
from agent.install.records.manifest import (
    attributes_in_state,
    directory_state,
    is_in_state,
    is_state_unknown,
    link_fields,
)
from agent.listings import clock_ns, has_identity, unescape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.archive_index import ArchiveIndex
    from agent.install.compare.recorded_directories import RecordedDirectories, RecordedDirectory
    from agent.install.posix.places import Places
    from agent.listings import Sections

_UNKNOWN_DIGEST = ord("-")
_FILE, _DIRECTORY_LINE = b"f", DIRECTORY + b" "
_NO_FILES = array("Q")
_SMALL = 600  # bytes of what is listed: with more than some four files, opening a directory pays
_FIELDS_OF_FILE = 3  # of its entry in the index, where its content is known: status, digest, name


class Difference(NamedTuple):
    """What is not as it was left in a directory that holds the names that it is to hold.

    Attributes:
        unchanged: number of its files and links that are as they were left.
        found: what is known of each that the manifest lists, as of a survey; empty when all are UNCHANGED.
        state: in which the directory is now, if it is not the one that is recorded; else empty.
        is_lasting: whether that state shows each later change.
    """

    unchanged: int
    found: bytes
    state: bytes
    is_lasting: bool


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
        self._library = batched.library()

    def look_at(self, number: int) -> int | Difference | None:
        """Number of files and links in the directory of this number, if all there is as it was left; or what is not.

        None when more than that is different: other names, other attributes of the directory.
        """
        try:
            return self._look(self._recorded.at(number))
        except (OSError, DifferentError):
            return None

    def _look(self, place: RecordedDirectory) -> int | Difference:
        """What `look_at` answers.

        Nothing is done with what is as it was left, and whatever is not will be looked at by its descriptor, so that a path
        does for a small directory of which the inode and the times are recorded, which takes less time.

        Raises:
            OSError, DifferentError: more than that is different.
        """
        listed = self._sections.text(place.path)
        source = place.source
        if source is None:
            require(not listed)
            return self._answer(place, self._places.status(place.real), b"", _NO_FILES)
        text, identity = self._index.section(source)
        if place.state and not is_state_unknown(place.state) and len(listed) < _SMALL:
            source_status, status = os.lstat(source), os.lstat(place.real)
            require(stat.S_ISDIR(source_status.st_mode))
            sides = _Side(source + b"/", None), _Side(place.real + b"/", None)
            states = self._compared(place, text, listed, *sides)
        else:
            source_fd = os.open(source, PLACE)
            try:
                source_status = os.fstat(source_fd)
                real_fd = self._places.of(place.real)
                found = self._compared_at_once(place, text, listed, source_fd, real_fd)
                sides = _Side(b"", source_fd), _Side(b"", real_fd)
                states = self._compared(place, text, listed, *sides) if found is None else found
                status = os.fstat(real_fd)
            finally:
                os.close(source_fd)
        # These must still be all that are in this directory of the archive.
        if not (identity and has_identity(source_status, identity)):
            require(dict(_kinds_in(text)) == _kinds_now(source))
        return self._answer(place, status, text, states)

    def _compared_at_once(
        self, place: RecordedDirectory, text: bytes, listed: bytes, source_fd: int, real_fd: int
    ) -> array[int] | None:
        """What `_compared` answers, found out by the library; None where that can't tell."""
        if self._library is None:
            return None
        gid = self._inherited(place, real_fd).gid
        states = self._library.compared(text, listed, source_fd, real_fd, is_root=self._is_root, gid=gid)
        if states is not None and (text.startswith(_DIRECTORY_LINE) or b"\n" + _DIRECTORY_LINE in text):
            lines = [line for line in text.split(b"\n") if line.startswith(_DIRECTORY_LINE)]
            names = [unescape(line[len(_DIRECTORY_LINE) :]) for line in lines]
            require(all(self._recorded.has_inner(place, name) for name in names))
        return states

    def _compared(
        self, place: RecordedDirectory, text: bytes, listed: bytes, source: _Side, real: _Side
    ) -> array[int]:
        """What is known of each file and link that is listed; they are those of the archive.

        There may be 100,000 files, so nothing is called here that need not be.
        """
        left = iter(listed.split(b"\n"))
        states = array("Q")
        is_root, is_escaped, lstat = self._is_root, b"%" in text, os.lstat
        inherited = self._inherited(place, real.dir_fd)
        gid = inherited.gid
        below, source_fd = source
        above, real_fd = real
        for line in text.split(b"\n")[:-1]:
            fields = line.rsplit(b" ", 2)
            if len(fields) < _FIELDS_OF_FILE:
                kind, spelled = fields
                if kind == LINK:
                    states.append(self._state_of_link(next(left, b""), spelled, source, real, inherited))
                else:
                    require(kind == DIRECTORY and self._recorded.has_inner(place, unescape(spelled)))
                continue
            identity, digest, spelled = fields
            name = unescape(spelled) if is_escaped else spelled
            found, state = next(left, b""), UNKNOWN
            try:
                there = lstat(above + name, dir_fd=real_fd)
            except FileNotFoundError:
                _require_file(found, spelled)
                states.append(UNKNOWN)
                continue
            size, mtime_ns = there.st_size, there.st_mtime_ns
            # As `file_fields` has it.
            known = b"f %d %d %d %d " % (there.st_ino, size, mtime_ns, there.st_ctime_ns)
            if found == b"%b%b - %b" % (known, digest, spelled):
                wanted = lstat(below + name, dir_fd=source_fd)
                if (
                    there.st_mode == wanted.st_mode
                    and there.st_nlink == wanted.st_nlink == 1
                    and wanted.st_size == size
                    and wanted.st_mtime_ns == mtime_ns
                    and there.st_gid == (wanted.st_gid if is_root else gid)
                    and (not is_root or there.st_uid == wanted.st_uid)
                    and identity == b"%d %d %d %d" % (wanted.st_ino, size, mtime_ns, wanted.st_ctime_ns)
                ):
                    state = UNCHANGED
            else:
                _require_file(found, spelled)
                require(not stat.S_ISDIR(there.st_mode))
                if _has_other_content(found, known, digest) and there.st_ino > UNCHANGED:
                    state = there.st_ino
            states.append(state)
        require(not next(left, b""))
        return states

    def _inherited(self, place: RecordedDirectory, real_fd: int | None) -> HandedDown:
        """What new files get from a directory; an ACL is not among that.

        Args:
            place: the directory.
            real_fd: of it; needed where Install has not created it.
        """
        inherited = self._created.handed_down
        if place.state is None and real_fd is not None:
            inherited = handed_down_at(real_fd)
        require(inherited.default_acl is None)
        return inherited

    def _answer(
        self, place: RecordedDirectory, status: os.stat_result, text: bytes, states: array[int]
    ) -> int | Difference:
        """What there is to say of a directory that has the attributes that it would have now, and just these names.

        Where Install has not created it, it may have others, too.
        """
        require(place.inode in {0, status.st_ino})
        state = b""
        is_lasting = False
        if place.state is not None:
            if not is_state_unknown(place.state) and is_in_state(status, place.state):
                require(place.state.endswith(self._created.attributes))
            else:
                state, is_lasting = self._state_now(place, text, status.st_ino)
        unchanged = states.count(UNCHANGED)
        found = b"" if unchanged == len(states) else states.tobytes()
        return Difference(unchanged, found, state, is_lasting) if found or state else unchanged

    def _state_now(self, place: RecordedDirectory, text: bytes, inode: int) -> tuple[bytes, bool]:
        """The state of a directory that has changed since, or of which that is not known; and whether it is a lasting one."""
        dir_fd = self._places.opened(place.real)
        try:
            looked_ns = clock_ns()
            status = os.fstat(dir_fd)  # before its names: what appears meanwhile will have changed the state
            names = {os.fsencode(name) for name in os.listdir(dir_fd)}
        finally:
            os.close(dir_fd)
        require(status.st_ino == inode)
        require(names == self._recorded.names_in(place.path) | {name for name, _kind in _kinds_in(text)})
        require(attributes_in_state(status.st_mode, status.st_uid, status.st_gid) == self._created.attributes)
        place_fd = self._places.of(place.real)
        require(place_acl(place_fd, ACCESS) is None and place_acl(place_fd, DEFAULT) is None)
        return directory_state(status), status.st_ctime_ns < looked_ns

    def _state_of_link(
        self, found: bytes, spelled: bytes, source: _Side, real: _Side, inherited: HandedDown
    ) -> int:
        """UNCHANGED when what is listed of it is what would be listed now of what is there, if it is as it is to be."""
        name = unescape(spelled)
        wanted = os.lstat(source.prefix + name, dir_fd=source.dir_fd)
        require(found.startswith(b"l ") and found.endswith(b" " + spelled))
        try:
            there = os.lstat(real.prefix + name, dir_fd=real.dir_fd)
        except FileNotFoundError:
            return UNKNOWN
        require(not stat.S_ISDIR(there.st_mode))
        is_met = wanted_of(wanted, None, inherited, is_root=self._is_root).is_met_by_link(there)
        if not is_met or not stat.S_ISLNK(there.st_mode):
            return UNKNOWN
        target = os.readlink(source.prefix + name, dir_fd=source.dir_fd)
        is_as_left = found == b"%b %b" % (link_fields(there, target), spelled)
        return UNCHANGED if is_as_left else UNKNOWN


class _Side(NamedTuple):
    """How the entries of a directory are reached: with this before their names, and this descriptor, if there is one."""

    prefix: bytes
    dir_fd: int | None


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


def _require_file(found: bytes, spelled: bytes) -> None:
    """Check that this line of the manifest is about the file with this name, as the archive has a file there.

    A script may have put a link there before the last Install, which tells nothing of that when it says what was asked for.

    Raises:
        DifferentError: it is about a link, or another name.
    """
    require(found.startswith(b"f ") and found.endswith(b" " + spelled))


def _has_other_content(found: bytes, known: bytes, digest: bytes) -> bool:
    """Whether a file is still the one that this line of the manifest is about, and has another content than this.

    Args:
        found: the line.
        known: what it begins with as long as the file has not changed.
        digest: of the content.
    """
    told = found.removeprefix(known)
    return len(told) < len(found) and told[0] != _UNKNOWN_DIGEST and not told.startswith(digest)


def _kinds_in(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and kind of each of these entries of the index."""
    for line in text.split(b"\n")[:-1]:
        fields, _space, spelled = line.rpartition(b" ")
        yield unescape(spelled), fields if len(fields) == 1 else _FILE


def _kinds_now(directory: bytes) -> dict[bytes, bytes]:
    """Name → kind of all that is in a directory."""
    with os.scandir(directory) as entries:
        return {
            entry.name: LINK
            if entry.is_symlink()
            else DIRECTORY
            if entry.is_dir(follow_symlinks=False)
            else _FILE
            if entry.is_file(follow_symlinks=False)
            else b"?"
            for entry in entries
        }

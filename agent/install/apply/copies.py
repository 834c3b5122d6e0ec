"""Copies of the archive's files and links, which wait for the switch. There may be 100,000 in one Install."""

from __future__ import annotations

import os
from stat import S_IFREG
from typing import TYPE_CHECKING, TypeAlias

from agent.files import write_all
from agent.install.attributes.of_files import BITS, copy_link
from agent.install.model.moments import Moment
from agent.install.posix.acl import ACCESS, read_acl
from agent.install.posix.copying import CREATE, PAGE_BYTES, SMALL_BYTES, copy_content, has_holes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.install.apply.waiting import WaitingFiles
    from agent.install.model.moments import Observer
    from agent.install.posix.batched import Library

_PLAINEST = S_IFREG | 0o777
_COPY, _LINK = Moment.COPY, Moment.LINK  # a member of an enum takes longer to look up than a name of a module


Copy: TypeAlias = tuple[int, bytes, bool]
"""Inode of a copy, digest of its content (empty when not known), and whether it has an ACL. A named tuple would be made
by a call more for each file."""


class StopCopies(OSError):
    """A copy can't be made; `count` others have been made before it."""

    def __init__(self, count: int, number: int) -> None:
        super().__init__(number, os.strerror(number))
        self.count = count


class Copies:
    """Makes copies of the planned files of one directory.

    Args:
        waiting: where they wait.
        observer: told before each is made.
    """

    def __init__(self, waiting: WaitingFiles, observer: Observer) -> None:
        self._waiting = waiting
        self._findings = waiting.findings
        self._attributes = waiting.files.attributes
        self._prefix = waiting.files.prefix
        self._entries = waiting.comparison.entries
        self._source_fd = waiting.comparison.source_fd
        self._observe = observer
        self._is_root = os.geteuid() == 0
        self._owner = 0, waiting.handed_down.gid  # that root makes new files with

    def content_if_plain(
        self, name: bytes, descriptor: int, source: os.stat_result
    ) -> tuple[bytes, bytes] | None:
        """Content and digest of an open file that is small, has one name, and is as it was when it was unpacked.

        Nearly all are, and a copy of such a one takes the fewest steps. None for another one; then nothing was read.
        """
        size, mode = source.st_size, source.st_mode
        identity = b"%d %d %d %d " % (source.st_ino, size, source.st_mtime_ns, source.st_ctime_ns)
        fields = self._entries.get(name, b"")
        if (
            not fields.startswith(identity)
            or not S_IFREG <= mode <= _PLAINEST
            or source.st_nlink > 1
            or size > SMALL_BYTES
            or (size > PAGE_BYTES and has_holes(source))
        ):
            return None
        content = os.read(descriptor, size + 1)
        if len(content) != size:
            os.lseek(descriptor, 0, os.SEEK_SET)
            return None
        return content, fields[len(identity) :]

    def copy_at_once(self, library: Library, pending: Sequence[tuple[int, int]]) -> int:
        """Copy the first of these files, as long as they are as `content_if_plain` wants them. How many.

        Args:
            library: does it.
            pending: position and inode of what it replaces, of each.

        Raises:
            StopCopies: the next one can't be copied.
        """
        waiting, entries = self._waiting, self._entries
        names = [waiting.files.names[position] for position, _old_inode in pending]
        fields = [entries.get(name, b"") for name in names]
        copied = library.copied(
            self._source_fd,
            waiting.dir_fd,
            fields,
            names,
            [waiting.place_of(position) for position, _old_inode in pending],
            most_bytes=SMALL_BYTES,
            is_root=self._is_root,
            gid=self._owner[1],
        )
        count = len(copied.made)
        digests = [item[item.rindex(b" ") + 1 :] for item in fields[:count]]
        waiting.note_copies(pending[:count], copied.made, digests)
        if copied.error:
            raise StopCopies(count, copied.error)
        return count

    def copy(
        self,
        position: int,
        descriptor: int,
        source: os.stat_result,
        old_inode: int,
        digest: bytes | None,
        *,
        plain: bytes | None = None,
    ) -> Copy:
        """Copy an open file.

        Args:
            position: in the planned files.
            descriptor: open for reading, at the beginning.
            source: its status.
            old_inode: of what it replaces; 0 = nothing is there.
            digest: of its content; None when not known.
            plain: its content, from `content_if_plain`, where nothing but the archive says what the copy gets.
        """
        waiting, mode, has_acl = self._waiting, source.st_mode & BITS, False
        name = waiting.files.names[position]
        self._observe(_COPY, self._prefix + name)
        is_plain = plain is not None or (waiting.is_plain and mode <= 0o777 and name not in self._attributes)
        # Nobody else may open it before owner and mode are right.
        target = os.open(
            waiting.place_of(position), CREATE, mode if is_plain else 0o600, dir_fd=waiting.dir_fd
        )
        try:
            if plain is None or digest is None:
                digest = copy_content(descriptor, source, target, digest)
            else:
                write_all(target, plain)
            os.utime(target, ns=(source.st_atime_ns, source.st_mtime_ns))
            owner = (source.st_uid, source.st_gid) if self._is_root else None
            if not is_plain:
                has_acl = self._give(target, name, source)
            elif owner and owner != self._owner:
                os.fchown(target, *owner)
            status = os.fstat(target)
            if is_plain and owner and (status.st_uid, status.st_gid) != owner:
                # Some file systems give the directory's group to each new file.
                os.fchown(target, *owner)
                status = os.fstat(target)
        finally:
            os.close(target)
        self._findings.copied_bytes += source.st_size
        waiting.note(position, old_inode, status, digest, has_acl=has_acl)
        return status.st_ino, digest, has_acl

    def _give(self, target: int, name: bytes, source: os.stat_result) -> bool:
        """Give a fresh copy what it lacks; whether it has an ACL now."""
        waiting = self._waiting
        wanted = waiting.comparison.wanted(name, source)
        wanted.give(target, os.fstat(target), None if waiting.is_plain else read_acl(target, ACCESS))
        return wanted.access_acl is not None

    def copy_link(self, position: int, old_inode: int) -> None:
        """Make a symbolic link like that of the archive; the arguments are those of `copy`."""
        waiting = self._waiting
        name = waiting.files.names[position]
        source = os.stat(name, dir_fd=self._source_fd, follow_symlinks=False)
        target = os.readlink(name, dir_fd=self._source_fd)
        wanted = waiting.comparison.wanted(name, source)
        self._observe(_LINK, self._prefix + name)
        status = copy_link(target, waiting.place_of(position), waiting.dir_fd, wanted)
        waiting.note(position, old_inode, status, target, is_link=True)

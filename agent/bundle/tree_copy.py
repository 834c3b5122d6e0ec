"""One directory tree copied to another place, sharing blocks with it where the file system can."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.archive_index import DIRECTORY, LINK, UNKNOWN, IndexWriter
from agent.bundle.failures import printable
from agent.errors import CommandFailure
from agent.files import write_all

if TYPE_CHECKING:
    from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SMALL_FILE_BYTES = 128 * 1024
_PIECE_BYTES = 1024 * 1024
_MOST_COPIES = 3  # of a file that is written to while it is copied
_KERNEL_BYTES = 1 << 30
_KERNEL_REFUSES = frozenset([errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # never wait for a pipe put in its place
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedTree:
    """What has been copied.

    Attributes:
        size_bytes: of all files together.
        index: names and kinds of all entries. Contents are not known: nothing here reads what the kernel can share.
    """

    size_bytes: int
    index: IndexWriter


def copy_tree(source: Path, target: Path, *, keeps_owners: bool) -> CopiedTree:
    """Afterwards `target`, an empty directory, holds a copy of all that is in `source`.

    Contents, modes, times, symbolic links and hard links within the tree are the same; so are
    owners, if they are to be kept and we are root.

    Raises:
        CommandFailure: `archive-entry-unsupported`, there is a device, a named pipe or a socket;
            `bundle-local-changed`, a file is written to all the time.
        OSError: something can't be read or written.
    """
    umask = os.umask(0)
    try:
        # The top may be a link: it is what the user, not what an archive, has named.
        top = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            below = os.open(target, _DIRECTORY)
            try:
                copy = _Copy(below, keeps_owners=keeps_owners and os.geteuid() == 0)
                copy.entries(top, below, b"")
                copy.index.identify(b"", os.fstat(below))
            finally:
                os.close(below)
        finally:
            os.close(top)
        return CopiedTree(size_bytes=copy.size_bytes, index=copy.index)
    finally:
        os.umask(umask)


class _Copy:
    """A few open directories per level, and nothing in the source is resolved by path."""

    def __init__(self, root: int, *, keeps_owners: bool) -> None:
        self.size_bytes = 0
        self.index = IndexWriter()
        self._root = root
        self._keeps_owners = keeps_owners
        # Device and inode of a file with several names → where its first copy is.
        self._copies: dict[tuple[int, int], bytes] = {}

    def entries(self, source: int, target: int, path: bytes) -> None:
        """Copy all entries of one directory, which is at this path below the top."""
        with os.scandir(source) as entries:
            names = [os.fsencode(entry.name) for entry in entries]
        for name in names:
            self._entry(name, source, target, path + b"/" + name if path else name)

    def _entry(self, name: bytes, source: int, target: int, path: bytes) -> None:
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            self._file(source, target, found, path)
            self.index.note(path, UNKNOWN)
        elif stat.S_ISDIR(found.st_mode):
            self._directory(source, target, found, path)
            self.index.note(path, DIRECTORY)
        elif stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            if self._keeps_owners:
                os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
            os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)
            self.index.note(path, LINK)
        else:
            raise CommandFailure(
                "archive-entry-unsupported",
                f"{printable(path)} in the directory is a device, a named pipe or a socket, which can't be part"
                " of a revision. Remove it, and deploy again.",
            )

    def _file(self, source: int, target: int, found: os.stat_result, path: bytes) -> None:
        name = path.rpartition(b"/")[2]
        if found.st_nlink > 1:
            first = self._copies.setdefault((found.st_dev, found.st_ino), path)
            if first != path:
                os.link(first, name, src_dir_fd=self._root, dst_dir_fd=target, follow_symlinks=False)
                return
        for _ in range(_MOST_COPIES):
            if self._copied_unchanged(source, target, name):
                return
            os.unlink(name, dir_fd=target)
        raise CommandFailure(
            "bundle-local-changed",
            f"{printable(path)} in the directory was written to each of {_MOST_COPIES} times that it was copied, so a copy"
            " may be half of one file and half of another. Stop what writes there, or keep that file elsewhere, and"
            " deploy again.",
        )

    def _copied_unchanged(self, source: int, target: int, name: bytes) -> bool:
        """Copy one file; whether nobody wrote to it meanwhile."""
        reader = os.open(name, _READ, dir_fd=source)
        try:
            before = os.fstat(reader)
            writer = os.open(name, _NEW_FILE, before.st_mode & 0o777, dir_fd=target)
            try:
                size = _copy_content(reader, writer, before.st_size)
                after = os.fstat(reader)
                if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, size):
                    return False
                self.size_bytes += size
                self._set_attributes(writer, before)
            finally:
                os.close(writer)
        finally:
            os.close(reader)
        return True

    def _directory(self, source: int, target: int, found: os.stat_result, path: bytes) -> None:
        name = path.rpartition(b"/")[2]
        os.mkdir(name, 0o700, dir_fd=target)
        inner = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            below = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                self.entries(inner, below, path)
                self._set_attributes(below, found)
                self.index.identify(path, os.fstat(below))
            finally:
                os.close(below)
        finally:
            os.close(inner)

    def _set_attributes(self, descriptor: int, found: os.stat_result) -> None:
        if self._keeps_owners:
            os.fchown(descriptor, found.st_uid, found.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
        os.utime(descriptor, ns=(found.st_atime_ns, found.st_mtime_ns))


def _copy_content(reader: int, writer: int, size: int) -> int:
    """Copy a whole file of this size; returns how much there was. One that grows is not followed to its end."""
    if size > _SMALL_FILE_BYTES:
        copied = _copied_by_kernel(reader, writer, size)
    else:
        content = os.read(reader, size + 1)
        write_all(writer, content)
        copied = len(content)
        if copied == size:
            return size
    while copied <= size and (piece := os.read(reader, _PIECE_BYTES)):
        write_all(writer, piece)
        copied += len(piece)
    return copied


def _copied_by_kernel(reader: int, writer: int, size: int) -> int:
    """As much as copy_file_range takes: all of it, or nothing where two file systems can't agree."""
    copied = 0
    try:
        while copied <= size and (
            count := os.copy_file_range(reader, writer, min(_KERNEL_BYTES, size + 1 - copied))
        ):
            copied += count
    except OSError as error:
        if error.errno not in _KERNEL_REFUSES:
            raise
    return copied

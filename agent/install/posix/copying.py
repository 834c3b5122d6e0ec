"""Copying the content of one file."""

from __future__ import annotations

import errno
import os
import stat

from agent.files import write_all
from agent.listings import content_digest

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


SMALL_BYTES = 1024 * 1024
"""Up to here a file is read at once, and its digest is known. Larger ones are copied by the kernel."""


_CHUNK_BYTES = 64 * 1024 * 1024


_NO_COPY_RANGE = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF})


_BLOCK_BYTES = 512
PAGE_BYTES = 4096
"""Files up to here have no holes: they may lie in the inode itself, and take no blocks."""


def has_holes(status: os.stat_result) -> bool:
    """Whether there may be holes in the file with this status."""
    return status.st_size > PAGE_BYTES and status.st_blocks * _BLOCK_BYTES < status.st_size


def copy_content(source: int, status: os.stat_result, target: int, digest: bytes | None) -> bytes:
    """Copy everything; holes stay holes.

    Args:
        source: open for reading.
        status: of the source.
        target: open for writing, empty.
        digest: of the content, if it is known.

    Returns:
        The digest of the content; empty when it is not known, and the file is large.
    """
    is_sparse = has_holes(status)
    content = b""
    if status.st_size <= SMALL_BYTES and not (is_sparse and digest):
        content = read_small(source, status.st_size)
        digest = digest or content_digest(content)
    if is_sparse:
        _copy_data(source, status.st_size, target)
    elif status.st_size <= SMALL_BYTES:
        write_all(target, content)
    else:
        _copy_range(source, target)
    return digest or b""


ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a file is opened to look at it, whatever it is: that changes nothing, and `opened_for_owner` opens that very file."""


def opened_for_owner(place: int) -> int:
    """A descriptor for reading a file, also where the mode lets not even the owner read; the mode is another one then.

    Args:
        place: a descriptor of the regular file, opened as `ITSELF` says.

    Raises:
        OSError: it can't be opened.
    """
    opened = f"/proc/self/fd/{place}"
    try:
        return os.open(opened, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        os.chmod(opened, stat.S_IRUSR | stat.S_IWUSR)
        return os.open(opened, os.O_RDONLY | os.O_CLOEXEC)


def read_small(source: int, size: int) -> bytes:
    """The whole content. One read is enough, unless a signal comes in between or the file changes."""
    content = os.read(source, size + 1)
    if len(content) == size:
        return content
    parts = [content]
    while content := os.read(source, SMALL_BYTES):
        parts.append(content)
    return b"".join(parts)


def read_as_long(descriptor: int, size: int) -> bytes:
    """The content of a small file that has had this size; where it has more by now, one byte of that, too.

    Others may have made it as long as they like since, or put a pipe in its place that never ends.
    """
    content = os.read(descriptor, size + 1)
    while len(content) <= size and (piece := os.read(descriptor, size + 1 - len(content))):
        content += piece
    return content


def _copy_range(source: int, target: int, size: int | None = None) -> None:
    """Copy so many bytes, or all that are left, from where the source stands to where the target does."""
    left = size
    while left is None or left > 0:
        chunk = _CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES)
        try:
            done = os.copy_file_range(source, target, chunk)
        except OSError as error:
            if error.errno not in _NO_COPY_RANGE:
                raise
            _copy_by_hand(source, target, left)
            return
        if done == 0:
            return
        left = None if left is None else left - done


def _copy_by_hand(source: int, target: int, size: int | None) -> None:
    left = size
    while piece := os.read(source, SMALL_BYTES if left is None else min(left, SMALL_BYTES)):
        write_all(target, piece)
        left = None if left is None else left - len(piece)


def _copy_data(source: int, size: int, target: int) -> None:
    """Copy what is not a hole."""
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(source, start, os.SEEK_SET)
        os.lseek(target, start, os.SEEK_SET)
        _copy_range(source, target, end - start)
    os.ftruncate(target, size)

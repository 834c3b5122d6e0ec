"""Copying one file or link of the archive, and telling whether it is there already."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.files import write_all
from agent.install.acl import ACCESS, encode_acl, read_acl, write_acl
from agent.install.records import Record, content_digest

if TYPE_CHECKING:
    from agent.install.attributes import Attributes

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BITS = 0o7777

# Up to here a file is read at once and its digest kept. Larger ones are copied by the kernel.
_SMALL_BYTES = 1024 * 1024
_CHUNK_BYTES = 64 * 1024 * 1024
_NO_COPY_RANGE = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF})


class Spot(NamedTuple):
    """A name in a directory that is open."""

    dir_fd: int
    name: bytes


def copy_file(source: int, status: os.stat_result, spot: Spot, attributes: Attributes | None) -> Record:
    """Afterwards the file is at `spot`, where nothing was, with mode, owner, times and ACL as they are to be.

    Args:
        source: the archive's file, open for reading.
        status: its status.
        spot: where to create the file. The process's umask must be 0.
        attributes: what `permissions` say, if anything.
    """
    mode = status.st_mode & _BITS if attributes is None or attributes.mode is None else attributes.mode
    # Nobody else may open it before owner and mode are right.
    descriptor = os.open(
        spot.name, _CREATE, mode & 0o777 if attributes is None else 0o600, dir_fd=spot.dir_fd
    )
    try:
        digest = _copy_content(source, status.st_size, descriptor)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        written = os.fstat(descriptor)
        if _set_attributes(descriptor, written, status, mode, attributes):
            written = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    has_acl = attributes is not None and bool(attributes.access_acl)
    return Record(
        is_link=False,
        inode=written.st_ino,
        size=written.st_size,
        mtime_ns=written.st_mtime_ns,
        ctime_ns=written.st_ctime_ns,
        digest=digest,
        has_acl=has_acl,
    )


def copy_link(source: Spot, spot: Spot, attributes: Attributes | None) -> Record:
    """Afterwards the same link is at `spot`; of `attributes` a link takes owner and group only."""
    target = os.readlink(source.name, dir_fd=source.dir_fd)
    status = os.stat(source.name, dir_fd=source.dir_fd, follow_symlinks=False)
    os.symlink(target, spot.name, dir_fd=spot.dir_fd)
    written = os.stat(spot.name, dir_fd=spot.dir_fd, follow_symlinks=False)
    uid, gid = wanted_owner(status, attributes)
    if (uid is not None and uid != written.st_uid) or (gid is not None and gid != written.st_gid):
        os.chown(spot.name, _id(uid), _id(gid), dir_fd=spot.dir_fd, follow_symlinks=False)
    os.utime(
        spot.name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=spot.dir_fd, follow_symlinks=False
    )
    written = os.stat(spot.name, dir_fd=spot.dir_fd, follow_symlinks=False)
    return _link_record(written, target)


def link_again(
    source: Spot, spot: Spot, attributes: Attributes | None, known: Record | None
) -> Record | None:
    """A record of the link at `spot` if it equals the archive's link, else None."""
    status = os.stat(spot.name, dir_fd=spot.dir_fd, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        return None
    target = os.readlink(source.name, dir_fd=source.dir_fd)
    wanted = os.stat(source.name, dir_fd=source.dir_fd, follow_symlinks=False)
    uid, gid = wanted_owner(wanted, attributes)
    same = (
        os.readlink(spot.name, dir_fd=spot.dir_fd) == target
        and status.st_mtime_ns == wanted.st_mtime_ns
        and uid in {None, status.st_uid}
        and gid in {None, status.st_gid}
    )
    if not same:
        return None
    return known or _link_record(status, target)


def file_again(
    source: Spot, spot: Spot, attributes: Attributes | None, known: Record | None
) -> Record | None:
    """A record of the file at `spot` if it equals what would be copied there in every way, else None.

    A file of which nothing has changed since the last Install (inode, size, both times) is not
    read again: its content is what the record's digest says.
    """
    there = os.stat(spot.name, dir_fd=spot.dir_fd, follow_symlinks=False)
    if known is not None and known.has_acl:
        return None
    descriptor = os.open(source.name, READ, dir_fd=source.dir_fd)
    try:
        status = os.fstat(descriptor)
        if not _attributes_match(there, status, attributes):
            return None
        is_untouched = known is not None and _is_untouched(there, known)
        if is_untouched and known is not None and known.digest:
            content = _read_small(descriptor, status.st_size)
            return known if content_digest(content) == known.digest else None
        return _compared(descriptor, status, spot, has_no_acl=is_untouched)
    finally:
        os.close(descriptor)


def wanted_owner(status: os.stat_result, attributes: Attributes | None) -> tuple[int | None, int | None]:
    """Owner and group for a copy; None where it is ours anyway. Only root can keep the archive's."""
    uid, gid = (status.st_uid, status.st_gid) if os.geteuid() == 0 else (None, None)
    if attributes is None:
        return uid, gid
    return (
        uid if attributes.uid is None else attributes.uid,
        gid if attributes.gid is None else attributes.gid,
    )


def _id(number: int | None) -> int:
    return -1 if number is None else number


def _link_record(status: os.stat_result, target: bytes) -> Record:
    return Record(True, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, target, False)


def _copy_content(source: int, size: int, target: int) -> bytes:
    """Copy everything; the digest of a small file's content, else nothing."""
    if size <= _SMALL_BYTES:
        content = _read_small(source, size)
        write_all(target, content)
        return content_digest(content)
    copied = 0
    while True:
        try:
            done = os.copy_file_range(source, target, _CHUNK_BYTES)
        except OSError as error:
            if copied or error.errno not in _NO_COPY_RANGE:
                raise
            _copy_by_hand(source, target)
            return b""
        if done == 0:
            return b""
        copied += done


def _copy_by_hand(source: int, target: int) -> None:
    while chunk := os.read(source, _SMALL_BYTES):
        write_all(target, chunk)


def _read_small(source: int, size: int) -> bytes:
    """The whole content. One read is enough, unless a signal comes in between or the file changes."""
    content = os.read(source, size + 1)
    if len(content) == size:
        return content
    parts = [content]
    while content := os.read(source, _SMALL_BYTES):
        parts.append(content)
    return b"".join(parts)


def _set_attributes(
    descriptor: int, written: os.stat_result, source: os.stat_result, mode: int, attributes: Attributes | None
) -> bool:
    """Owner first: a change of owner takes the setuid and setgid bits away. Whether anything was changed."""
    changed = False
    uid, gid = wanted_owner(source, attributes)
    if (uid is not None and uid != written.st_uid) or (gid is not None and gid != written.st_gid):
        os.fchown(descriptor, _id(uid), _id(gid))
        changed = True
    if changed or written.st_mode & _BITS != mode:
        os.fchmod(descriptor, mode)
        changed = True
    if attributes is not None and attributes.access_acl:
        write_acl(descriptor, ACCESS, encode_acl(mode, attributes.access_acl))
        changed = True
    return changed


def _attributes_match(there: os.stat_result, source: os.stat_result, attributes: Attributes | None) -> bool:
    """Whether kind, size, mode, owner and time are those of a fresh copy; an ACL never counts as equal."""
    mode = source.st_mode & _BITS if attributes is None or attributes.mode is None else attributes.mode
    uid, gid = wanted_owner(source, attributes)
    return (
        stat.S_ISREG(there.st_mode)
        and there.st_size == source.st_size
        and there.st_mtime_ns == source.st_mtime_ns
        and there.st_mode & _BITS == mode
        and uid in {None, there.st_uid}
        and gid in {None, there.st_gid}
        and not (attributes is not None and attributes.access_acl)
    )


def _is_untouched(there: os.stat_result, known: Record) -> bool:
    return (
        not known.is_link
        and there.st_ino == known.inode
        and there.st_size == known.size
        and there.st_mtime_ns == known.mtime_ns
        and there.st_ctime_ns == known.ctime_ns
    )


def _compared(source: int, status: os.stat_result, spot: Spot, *, has_no_acl: bool) -> Record | None:
    descriptor = os.open(spot.name, READ, dir_fd=spot.dir_fd)
    try:
        there = os.fstat(descriptor)
        if not has_no_acl and read_acl(descriptor, ACCESS) is not None:
            return None
        digest = b""
        while True:
            ours, theirs = os.read(source, _SMALL_BYTES), os.read(descriptor, _SMALL_BYTES)
            if ours != theirs:
                return None
            if status.st_size <= _SMALL_BYTES and ours:
                digest = content_digest(ours)
            if not ours:
                break
    finally:
        os.close(descriptor)
    if status.st_size == 0:
        digest = content_digest(b"")
    return Record(False, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns, digest, False)

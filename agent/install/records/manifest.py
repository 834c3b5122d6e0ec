"""The files in the instructions directory that tell what an Install created.

`<group>-install.json` and `<group>-cleanup` are those of the existing agents, so that either
agent can clean up after the other. `<group>-manifest` is ours and knows more: what exactly was
written, so that a file that somebody changed since is not taken for ours. It names the two others
by their content; after an Install by another agent they are different, and it is not used.

A manifest has one line per item, fields separated by spaces, and names escaped as in a URL:

    install-manifest 6 <digest of the cleanup file> <its state, or -> <digest of install.json> <its state, or ->
                    <digest of what was asked for, or -> <archive> <id of the deployment>, all in one line
    d - -<inode> <path>
                    a directory that was there before; the lines that follow are about what is in it
    d c <inode> <mtime ns> <ctime ns> <mode> <uid> <gid> <path>
                    a directory that Install created, and how it was when all had its place; the same
    d c -<inode> <path>
                    the same, where it was to change once more, has ACLs, or holds things of others; without the number
                    where that is not known
    f <inode> <size> <mtime ns> <ctime ns> <digest of the content, or -> <a if it has an ACL, or -> <name>
    l <inode> <size> <mtime ns> <ctime ns> <target> - <name>
    s <type> <user or -> <range or -> <path>        an SELinux rule that Install added
    p <path>                                        where a file system was mounted that something was installed on
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.appspec import SelinuxContext
from agent.listings import counts_seconds, directory_identity, escape, escaped, stream_digest, unescape

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAGIC = b"install-manifest 6 "
UNKNOWN_STATE = b"-"
LABEL_PREFIX = b"semanage\0"

NOT_REPEATABLE = b"-"
"""What was asked for in an Install of which the next one can't tell that it would be the same."""


class ManifestHeader(NamedTuple):
    """The first line of a manifest.

    Attributes:
        cleanup, instructions: digests of the cleanup file and of install.json, of the same Install; of the latter
            without the path of the archive.
        cleanup_state, instructions_state: as `state_of_record` tells them: in these they need not be read.
        asked: of what that Install was asked for; `-` when it can't be repeated.
        archive: the archive that was installed.
        deployment_id: whose revision that was.
    """

    cleanup: bytes
    cleanup_state: bytes
    instructions: bytes
    instructions_state: bytes
    asked: bytes
    archive: bytes
    deployment_id: bytes

    def encoded(self) -> bytes:
        """The line."""
        return _MAGIC + b" ".join([escape(field) for field in self]) + b"\n"


def decode_header(line: bytes) -> ManifestHeader | None:
    """The header in this line; None when it is none, or unfinished."""
    if not line.startswith(_MAGIC) or not line.endswith(b"\n"):
        return None
    fields = [unescape(field) for field in line[len(_MAGIC) : -1].split(b" ")]
    return ManifestHeader(*fields) if len(fields) == len(ManifestHeader._fields) else None


def state_of_record(status: os.stat_result) -> bytes:
    """Tells whether one of these files was written anew. A rename leaves it as it is, a copy does not.

    UNKNOWN_STATE where the file system's clock is too coarse for that.
    """
    if counts_seconds(status.st_mtime_ns):
        return UNKNOWN_STATE
    return b"%d:%d:%d" % (status.st_ino, status.st_size, status.st_mtime_ns)


class Record(NamedTuple):
    """A file or link as Install left it. A NamedTuple, because there are very many.

    `digest` is that of a file's content, or a link's target; empty when it is not known.
    """

    is_link: bool
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    digest: bytes
    has_acl: bool


def encode_record(record: Record) -> bytes:
    """The fields of a manifest line, without the name."""
    kind = b"l" if record.is_link else b"f"
    return b"%b %d %d %d %d %b %b" % (
        kind,
        record.inode,
        record.size,
        record.mtime_ns,
        record.ctime_ns,
        escape(record.digest) or b"-",
        b"a" if record.has_acl else b"-",
    )


def file_fields(status: os.stat_result, digest: bytes, *, has_acl: bool) -> bytes:
    """Fields of the manifest line of a file as it is now; an empty digest means that it is not known."""
    return b"f %d %d %d %d %b %b" % (
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        digest or b"-",
        b"a" if has_acl else b"-",
    )


def link_fields(status: os.stat_result, target: bytes) -> bytes:
    """Fields of the manifest line of a link as it is now."""
    return b"l %d %d %d %d %b -" % (
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        escape(target) or b"-",
    )


def encode_lines(fields: list[bytes], names: list[bytes]) -> bytes:
    """The manifest lines of files and links in one directory: there can be very many."""
    return b"".join([b"%b %b\n" % item for item in zip(fields, escaped(names), strict=True)])


def digest_if_untouched(fields: bytes, status: os.stat_result) -> bytes:
    """The digest in these fields, if the file is still as they say; empty where it is not, or not known."""
    identity = b"f %d %d %d %d " % (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if not fields.startswith(identity):
        return b""
    digest = fields[len(identity) : -2]
    return b"" if digest == b"-" else digest


def directory_state(status: os.stat_result) -> bytes:
    """What a manifest tells of a directory: another one means that a name in it has changed, or an attribute.

    Empty where the file system's clock is too coarse for that.
    """
    identity = directory_identity(status)
    return identity and identity + attributes_in_state(status.st_mode, status.st_uid, status.st_gid)


def is_in_state(status: os.stat_result, state: bytes) -> bool:
    """Whether a directory is in a state that a manifest tells."""
    return state == b"%d %d %d %d %d %d" % (
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
    )


def lasting_state(status: os.stat_result, looked_ns: int) -> bytes:
    """What `directory_state` tells, for the next Install; empty where it may change again, and look as if it had not.

    Args:
        status: of the directory.
        looked_ns: what `clock_ns` told before it was looked at.
    """
    return directory_state(status) if status.st_ctime_ns < looked_ns else b""


def unknown_state(inode: int) -> bytes:
    """What a manifest tells of a directory of which it is not known whether it will be as it is now, but which it is."""
    return UNKNOWN_STATE + b"%d" % inode


def is_state_unknown(state: bytes) -> bool:
    """Whether that is all that the manifest tells, or not even that."""
    return state.startswith(UNKNOWN_STATE)


def inode_in_state(state: bytes) -> int:
    """Which directory this is about; 0 when that is not known."""
    return int(state.partition(b" ")[0].removeprefix(UNKNOWN_STATE) or 0)


def attributes_in_state(mode: int, uid: int, gid: int) -> bytes:
    """What the state of a directory with these attributes ends with."""
    return b" %d %d %d" % (stat.S_IMODE(mode), uid, gid)


def decode_record(fields: bytes) -> Record:
    """The record of a manifest line without the name."""
    kind, inode, size, mtime_ns, ctime_ns, digest, acl = fields.split(b" ")
    return Record(
        is_link=kind == b"l",
        inode=int(inode),
        size=int(size),
        mtime_ns=int(mtime_ns),
        ctime_ns=int(ctime_ns),
        digest=b"" if digest == b"-" else unescape(digest),
        has_acl=acl == b"a",
    )


def take_labels(lines: bytes) -> tuple[dict[bytes, SelinuxContext | None], bytes]:
    """The labels, which stand at the end of these lines of a manifest, and the rest."""
    labels: dict[bytes, SelinuxContext | None] = {}
    while (start := lines.rfind(b"\n", 0, -1) + 1) < len(lines) and lines.startswith(b"s ", start):
        path, context = _label(lines[start:-1])
        labels[path] = context
        lines = lines[:start]
    return dict(reversed(labels.items())), lines


def _label(line: bytes) -> tuple[bytes, SelinuxContext]:
    _kind, type_name, user, level, path = line.split(b" ")
    context = SelinuxContext(
        type=type_name.decode(),
        user=None if user == b"-" else user.decode(),
        range=None if level == b"-" else level.decode(),
    )
    return unescape(path), context


def encode_mount_points(points: Iterable[bytes]) -> bytes:
    """The lines of a manifest about them."""
    return b"".join([b"p %b\n" % escape(point) for point in points])


def take_mount_points(lines: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """The mount points, which stand at the very end of these lines of a manifest, and the rest."""
    points: list[bytes] = []
    while (start := lines.rfind(b"\n", 0, -1) + 1) < len(lines) and lines.startswith(b"p ", start):
        points.append(unescape(lines[start + 2 : -1]))
        lines = lines[:start]
    return tuple(reversed(points)), lines


def is_untouched(record: Record, status: os.stat_result) -> bool:
    """Whether nothing has changed this very file or link since."""
    identity = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return identity == (record.inode, record.size, record.mtime_ns, record.ctime_ns)


def is_as_left(
    path: bytes, status: os.stat_result, record: Record | None, *, dir_fd: int | None = None
) -> bool:
    """Whether this is still what Install wrote. When all that is known is its name: whether it is no directory.

    It is believed unread only when nothing has touched the file. Size and time alone say little: files of
    reproducible bundles have all the same time. What can't be read counts as changed.

    Raises:
        FileNotFoundError: it has gone.
    """
    if record is None:
        return not stat.S_ISDIR(status.st_mode)
    if record.is_link:
        return stat.S_ISLNK(status.st_mode) and os.readlink(path, dir_fd=dir_fd) == record.digest
    if not stat.S_ISREG(status.st_mode) or status.st_size != record.size:
        return False
    identity = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    if identity == (record.inode, record.mtime_ns, record.ctime_ns):
        return True
    try:
        return bool(record.digest) and _digest_of(path, record.size, dir_fd) == record.digest
    except FileNotFoundError:
        raise
    except OSError:
        return False


def _digest_of(path: bytes, size: int, dir_fd: int | None) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=dir_fd)
    with open(descriptor, "rb", buffering=0) as stream:
        return stream_digest(stream, size + 1)

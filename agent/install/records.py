"""The files in the instructions directory that tell what an Install created.

`<group>-install.json` and `<group>-cleanup` are those of the existing agents, so that either
agent can clean up after the other. `<group>-manifest` is ours and knows more: what exactly was
written, so that a file that somebody changed since is not taken for ours. It names the two others
by their content; after an Install by another agent they are different, and it is not used.

A manifest has one line per item, fields separated by spaces, and names escaped as in a URL:

    install-manifest 3 <digest of the cleanup file> <digest of install.json> <id of the deployment>
    d <path>        a directory that was there before; the lines that follow are about what is in it
    c <path>        a directory that Install created; the same
    f <inode> <size> <mtime ns> <ctime ns> <digest of the content, or -> <a if it has an ACL, or -> <name>
    l <inode> <size> <mtime ns> <ctime ns> <target> - <name>
    s <type> <user or -> <range or -> <path>        an SELinux rule that Install added
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent.listings import escape, unescape

if TYPE_CHECKING:
    import os

MANIFEST_HEADER = b"install-manifest 3 "
LABEL_PREFIX = b"semanage\0"


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


def digest_if_untouched(fields: bytes, status: os.stat_result) -> bytes:
    """The digest in these fields, if the file is still as they say; empty where it is not, or not known."""
    identity = b"f %d %d %d %d " % (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if not fields.startswith(identity):
        return b""
    digest = fields[len(identity) : -2]
    return b"" if digest == b"-" else digest


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

"""The files in the instructions directory that tell what an Install created.

`<group>-install.json` and `<group>-cleanup` are those of the existing agents, so that either
agent can clean up after the other. `<group>-manifest` is ours and knows more: what exactly was
written, so that a file that somebody changed since is not taken for ours. It names the cleanup
file that it belongs to; after an Install by another agent it no longer fits, and is not used.

A manifest has one line per item, fields separated by spaces, and names escaped as in a URL:

    install-manifest 1 <digest of the cleanup file>
    d <path>        a directory that was there before; the lines that follow are about what is in it
    c <path>        a directory that Install created; the same
    f <inode> <size> <mtime ns> <ctime ns> <digest of the content, or -> <a if it has an ACL, or -> <name>
    l <inode> <size> <mtime ns> <ctime ns> <target> - <name>
    s <type> <user or -> <range or -> <path>        an SELinux rule that Install added
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

MANIFEST_HEADER = b"install-manifest 1 "
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


def content_digest(content: bytes | memoryview) -> bytes:
    """Tells contents apart, in hexadecimal."""
    return blake2b(content, digest_size=16).hexdigest().encode()


def escape(name: bytes) -> bytes:
    """The name without the three bytes that have a meaning in our files."""
    if b"%" in name:
        name = name.replace(b"%", b"%25")
    if b" " in name:
        name = name.replace(b" ", b"%20")
    if b"\n" in name:
        name = name.replace(b"\n", b"%0A")
    return name


def unescape(name: bytes) -> bytes:
    """The name that `escape` made this of."""
    return unquote_to_bytes(name) if b"%" in name else name


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


def with_ctime(fields: bytes, ctime_ns: int) -> bytes:
    """The same fields with another ctime."""
    parts = fields.split(b" ", 5)
    parts[4] = b"%d" % ctime_ns
    return b" ".join(parts)


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

"""POSIX access control lists, as Linux keeps them in extended attributes.

Writing the attribute directly needs no `setfacl`, works on an open file so that nobody can swap
it, and takes every name. The layout is that of linux/posix_acl_xattr.h: a version, then tag,
permissions and id of each entry, in the order of the tags.
"""

from __future__ import annotations

import errno
import os
import struct
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from agent.appspec import AclKind

if TYPE_CHECKING:
    from agent.install.model.attributes import NamedEntry


ACCESS = "system.posix_acl_access"
DEFAULT = "system.posix_acl_default"

_VERSION = 2
_OWNER, _USER, _OWNING_GROUP, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_BASE = frozenset({_OWNER, _OWNING_GROUP, _OTHER})
_NO_ID = 0xFFFFFFFF
_WRITE = 0o2
_NAMED = {AclKind.USER: _USER, AclKind.GROUP: _GROUP}
_NAMELESS = {
    AclKind.USER: _OWNER,
    AclKind.GROUP: _OWNING_GROUP,
    AclKind.MASK: _MASK,
    AclKind.OTHER: _OTHER,
}


def encode_acl(mode: int, entries: tuple[NamedEntry, ...]) -> bytes:
    """Value of the attribute: these entries, and the base entries that the mode stands for where they have none.

    Without a mask of its own the list gets one that takes nothing from any entry, as `setfacl` does it.
    """
    base = {_OWNER: mode >> 6 & 7, _OWNING_GROUP: mode >> 3 & 7, _OTHER: mode & 7}
    named = []
    for item in entries:
        if item.id is None:
            base[_NAMELESS[item.entry.kind]] = item.entry.permissions
        else:
            named.append((_NAMED[item.entry.kind], item.entry.permissions, item.id))
    if named:
        widest = reduce(or_, (permissions for _tag, permissions, _id in named), base[_OWNING_GROUP])
        base.setdefault(_MASK, widest)
    found = [*named, *((tag, permissions, _NO_ID) for tag, permissions in base.items())]
    packed = [struct.pack("<HHI", *item) for item in sorted(found, key=lambda item: (item[0], item[2]))]
    return struct.pack("<I", _VERSION) + b"".join(packed)


def acl_after_chmod(acl: bytes, mode: int) -> bytes:
    """What an access ACL becomes when its file is given this mode."""
    given = _by_tag(acl, mode)
    packed = [struct.pack("<HHI", tag, given.get(tag, bits), number) for tag, bits, number in _entries(acl)]
    return acl[:4] + b"".join(packed)


def or_none(acl: bytes) -> bytes | None:
    """The list, or None where it says no more than a mode: the kernel keeps no such access ACL."""
    return None if all(tag in _BASE for tag, _bits, _id in _entries(acl)) else acl


def mode_shown(acl: bytes) -> int:
    """The nine bits of the mode that a file with this access ACL has; those of the group are its mask."""
    bits = {tag: bits for tag, bits, _id in _entries(acl)}
    return bits[_OWNER] << 6 | bits.get(_MASK, bits[_OWNING_GROUP]) << 3 | bits[_OTHER]


def mode_without(acl: bytes) -> int:
    """The nine bits of the mode that leaves owner, owning group and others what this list gives to them."""
    bits = {tag: bits for tag, bits, _id in _entries(acl)}
    return bits[_OWNER] << 6 | (bits[_OWNING_GROUP] & bits.get(_MASK, 7)) << 3 | bits[_OTHER]


def writers(mode: int, gid: int, acl: bytes | None) -> frozenset[tuple[int, int, bool]]:
    """Who besides the owner may write a file: tag and id of each entry, and whether it lets them; empty when nobody may.

    Of two files with the same, the same users may write both.

    Args:
        mode: as its status shows it.
        gid: of its group.
        acl: its access ACL.
    """
    entries = _entries(acl or encode_acl(mode, ()))
    mask = next((bits for tag, bits, _id in entries if tag == _MASK), 7)
    found = set()
    for tag, bits, number in entries:
        if tag == _OTHER:
            found.add((tag, number, bool(bits & _WRITE)))
        elif tag == _OWNING_GROUP:
            found.add((_GROUP, gid, bool(bits & mask & _WRITE)))
        elif tag in {_USER, _GROUP}:
            found.add((tag, number, bool(bits & mask & _WRITE)))
    return frozenset(found) if any(may_write for _tag, _id, may_write in found) else frozenset()


def _entries(acl: bytes) -> list[tuple[int, int, int]]:
    """Tag, permissions and id of each entry."""
    return list(struct.iter_unpack("<HHI", acl[4:]))


def _by_tag(acl: bytes, mode: int) -> dict[int, int]:
    """The bits of the mode by the entries that they are about."""
    has_mask = any(tag == _MASK for tag, _bits, _id in _entries(acl))
    group = _MASK if has_mask else _OWNING_GROUP
    return {_OWNER: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}


def read_acl(descriptor: int | bytes, name: str) -> bytes | None:
    """The attribute as it is, of an open file or of what is at a path, not behind a link.

    None when there is none, or the file system knows no such lists.
    """
    try:
        if isinstance(descriptor, bytes):
            return os.getxattr(descriptor, name, follow_symlinks=False)
        return os.getxattr(descriptor, name)
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return None
        raise


def place_acl(dir_fd: int, name: str) -> bytes | None:
    """The same of a directory whose descriptor stands for the place only (O_PATH)."""
    try:
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except PermissionError:
        # Whoever may not list it may look at it all the same, but only by a path.
        return read_acl(b"/proc/self/fd/%d/." % dir_fd, name)
    try:
        return read_acl(descriptor, name)
    finally:
        os.close(descriptor)


def write_acl(descriptor: int, name: str, value: bytes | None) -> None:
    """Set the attribute; None removes it."""
    if value is not None:
        os.setxattr(descriptor, name, value)
        return
    try:
        os.removexattr(descriptor, name)
    except OSError as error:
        if error.errno not in {errno.ENODATA, errno.EOPNOTSUPP}:
            raise

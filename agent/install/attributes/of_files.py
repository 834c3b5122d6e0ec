"""What attributes an installed file is to have, and giving them to it."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.install.posix.acl import ACCESS, encode_acl, write_acl

if TYPE_CHECKING:
    from agent.install.model.attributes import Attributes

BITS = 0o7777


class Wanted(NamedTuple):
    """Attributes of a file; owner and group are None where they stay what they are."""

    mode: int
    uid: int | None
    gid: int | None
    atime_ns: int
    mtime_ns: int
    access_acl: bytes | None

    def is_met_by(self, there: os.stat_result) -> bool:
        """Whether this is a file with all that, as far as a status tells. The time of access does not count."""
        # With an ACL, the bits of the group are its mask.
        differing = there.st_mode ^ (self.mode | stat.S_IFREG)
        if self.access_acl is not None:
            differing &= ~stat.S_IRWXG
        return not differing and self.is_met_by_link(there)

    def is_met_by_link(self, there: os.stat_result) -> bool:
        """The same for a link, which has no mode of its own."""
        return (
            there.st_mtime_ns == self.mtime_ns
            and (self.uid is None or there.st_uid == self.uid)
            and (self.gid is None or there.st_gid == self.gid)
        )

    def changes_owner(self, there: os.stat_result) -> bool:
        """Whether a file that is there gets another owner or group."""
        return self.uid not in {None, there.st_uid} or self.gid not in {None, there.st_gid}

    def give(self, descriptor: int, status: os.stat_result, acl: bytes | None) -> None:
        """Afterwards the open file has all that.

        Args:
            descriptor: of the file.
            status: as it is now.
            acl: as it is now.
        """
        # Owner first: a change of owner takes the setuid and setgid bits away.
        uid = -1 if self.uid is None or self.uid == status.st_uid else self.uid
        gid = -1 if self.gid is None or self.gid == status.st_gid else self.gid
        if (uid, gid) != (-1, -1):
            os.fchown(descriptor, uid, gid)
        if acl is not None and self.access_acl is None:
            write_acl(descriptor, ACCESS, None)
        # After a change of owner or ACL, the mode is another one.
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != self.mode:
            os.fchmod(descriptor, self.mode)
        if self.access_acl is not None:
            write_acl(descriptor, ACCESS, self.access_acl)
        if status.st_mtime_ns != self.mtime_ns:
            os.utime(descriptor, ns=(self.atime_ns, self.mtime_ns))


def has_capabilities(descriptor: int) -> bool:
    """Whether the file has some, as `setcap` gives them; they go when the owner changes."""
    try:
        os.getxattr(descriptor, "security.capability")
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return False
        raise
    return True


def wanted_of(source: os.stat_result, attributes: Attributes | None, *, is_root: bool) -> Wanted:
    """What a file installed from this one is to have. Only root can keep the archive's owners."""
    uid, gid = (source.st_uid, source.st_gid) if is_root else (None, None)
    mode, acl = source.st_mode & BITS, None
    if attributes is not None:
        mode = mode if attributes.mode is None else attributes.mode
        uid = uid if attributes.uid is None else attributes.uid
        gid = gid if attributes.gid is None else attributes.gid
        acl = encode_acl(mode, attributes.access_acl) if attributes.access_acl else None
    return Wanted(mode, uid, gid, source.st_atime_ns, source.st_mtime_ns, acl)


def copy_link(link: bytes, place: bytes, dir_fd: int, wanted: Wanted) -> os.stat_result:
    """Afterwards there is a link to the target `link`; of permissions it takes owner and group only."""
    os.symlink(link, place, dir_fd=dir_fd)
    written = os.stat(place, dir_fd=dir_fd, follow_symlinks=False)
    uid = -1 if wanted.uid is None or wanted.uid == written.st_uid else wanted.uid
    gid = -1 if wanted.gid is None or wanted.gid == written.st_gid else wanted.gid
    if (uid, gid) != (-1, -1):
        os.chown(place, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
    os.utime(place, ns=(wanted.atime_ns, wanted.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)
    return os.stat(place, dir_fd=dir_fd, follow_symlinks=False)

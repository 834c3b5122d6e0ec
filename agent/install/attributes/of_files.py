"""What attributes an installed file is to have, and giving them to it."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.install.posix.acl import ACCESS, encode_acl, mode_shown, write_acl, writers

if TYPE_CHECKING:
    from agent.install.attributes.of_new_directories import HandedDown
    from agent.install.model.attributes import Attributes

BITS = 0o7777
_SPECIAL_BITS = 0o7000


class Wanted(NamedTuple):
    """Attributes of a file; owner and group are None where they stay what they are."""

    mode: int
    uid: int | None
    gid: int | None
    atime_ns: int
    mtime_ns: int
    access_acl: bytes | None

    @property
    def mode_shown(self) -> int:
        """The mode in its status: with an ACL, the bits of the group are its mask."""
        return (
            self.mode if self.access_acl is None else self.mode & _SPECIAL_BITS | mode_shown(self.access_acl)
        )

    def is_met_by(self, there: os.stat_result) -> bool:
        """Whether this is a file with all that, as far as a status tells. The time of access does not count."""
        return there.st_mode == self.mode_shown | stat.S_IFREG and self.is_met_by_link(there)

    def is_met_by_link(self, there: os.stat_result) -> bool:
        """Whether this is a link with all that but the mode, which links have not."""
        return (
            there.st_mtime_ns == self.mtime_ns
            and (self.uid is None or there.st_uid == self.uid)
            and (self.gid is None or there.st_gid == self.gid)
        )

    def changes_group(self, there: os.stat_result) -> bool:
        """Whether a file that is there gets another group."""
        return self.gid not in {None, there.st_gid}

    def can_adjust(self, there: os.stat_result, acl: bytes | None) -> bool:
        """Whether a file may be given all that while others may have it open: not where that would make it trusted more.

        Whoever could open it for writing can still write to it afterwards, whatever it is then. So its owner must stay
        the same, and so must all who may write; and no file gets a setuid or setgid bit, or loses one, which an undo
        would have to give back.

        Args:
            there: status of the file.
            acl: of the file.
        """
        if self.uid not in {None, there.st_uid}:
            return False
        is_same = self.mode_shown == stat.S_IMODE(there.st_mode) and acl == self.access_acl
        if is_same and not self.changes_group(there):
            return True
        if (there.st_mode | self.mode) & (stat.S_ISUID | stat.S_ISGID):
            return False
        gid = there.st_gid if self.gid is None else self.gid
        may_write = writers(self.mode_shown, gid, self.access_acl)
        return writers(there.st_mode, there.st_gid, acl) == may_write

    def give(self, descriptor: int, status: os.stat_result, acl: bytes | None) -> None:
        """Give the open file all that.

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
        if acl != self.access_acl:
            # Nothing but base entries: they take the place of the list and of the mode in one step.
            write_acl(descriptor, ACCESS, self.access_acl or encode_acl(self.mode, ()))
        # After a change of owner or ACL, the mode may be another one.
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != self.mode_shown:
            os.fchmod(descriptor, self.mode_shown)
        if status.st_mtime_ns != self.mtime_ns:
            os.utime(descriptor, ns=(self.atime_ns, self.mtime_ns))


def may_give_group(gid: int | None) -> bool:
    """Whether the agent's user may give files to this group; None = they keep theirs."""
    return gid is None or os.geteuid() == 0 or gid in {os.getegid(), *os.getgroups()}


def has_capabilities(descriptor: int) -> bool:
    """Whether the file has some, as `setcap` gives them; they go when the owner changes."""
    try:
        os.getxattr(descriptor, "security.capability")
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return False
        raise
    return True


def wanted_of(
    source: os.stat_result, attributes: Attributes | None, handed_down: HandedDown, *, is_root: bool
) -> Wanted:
    """What a file installed from this one is to have. Only root can keep the archive's owners.

    Args:
        source: status of the file in the archive.
        attributes: what `permissions` gives to it.
        handed_down: what it gets from the directory that it is installed into.
        is_root: whether the agent is.
    """
    uid, gid = (source.st_uid, source.st_gid) if is_root else (None, handed_down.gid)
    mode = source.st_mode & BITS
    if attributes is not None:
        mode = mode if attributes.mode is None else attributes.mode
        uid = uid if attributes.uid is None else attributes.uid
        gid = gid if attributes.gid is None else attributes.gid
    if attributes is not None and attributes.access_acl:
        acl: bytes | None = encode_acl(mode, attributes.access_acl)
    else:
        acl = handed_down.access_acl(mode)
    return Wanted(mode, uid, gid, source.st_atime_ns, source.st_mtime_ns, acl)


def copy_link(link: bytes, place: bytes, dir_fd: int, wanted: Wanted) -> os.stat_result:
    """Make a link to the target `link`; of permissions it takes owner and group only."""
    os.symlink(link, place, dir_fd=dir_fd)
    # By its descriptor: whoever may write to the directory may have put another file there, to be given its owner.
    descriptor = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        written = os.fstat(descriptor)
        # On a file system without owners it belongs to somebody else all the same.
        if not stat.S_ISLNK(written.st_mode) or os.readlink(b"", dir_fd=descriptor) != link:
            raise OSError(errno.ESTALE, "it was replaced while Install was running")
        itself = f"/proc/self/fd/{descriptor}"
        uid = -1 if wanted.uid is None or wanted.uid == written.st_uid else wanted.uid
        gid = -1 if wanted.gid is None or wanted.gid == written.st_gid else wanted.gid
        if (uid, gid) != (-1, -1):
            os.chown(itself, uid, gid)
        os.utime(itself, ns=(wanted.atime_ns, wanted.mtime_ns))
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)

"""What a directory gets that is made here, and hands down: other agents make theirs anew with each Install.

What new files and directories get from the directory that they are made in must not depend on whether that one was
kept. So it is always what a directory would hand down that is made now, before `permissions` gives anything to it (I5).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.install.model.directory import Standing
from agent.install.posix.acl import (
    ACCESS,
    DEFAULT,
    acl_after_chmod,
    encode_acl,
    mode_shown,
    mode_without,
    or_none,
    place_acl,
    read_acl,
    write_acl,
    writers,
)

if TYPE_CHECKING:
    from agent.install.model.attributes import Attributes
    from agent.install.model.directory import Directory
    from agent.install.posix.places import Places

_MODE = 0o755
_MODE_BELOW_DEFAULT_ACL = 0o777  # the default entries say what is left of it
_SPECIAL_BITS = 0o7000


class HandedDown(NamedTuple):
    """What new files and directories get from the directory that they are made in.

    Attributes:
        default_acl: None = there is none.
        gid: their group.
        setgid: that bit, or 0: new directories get it.
    """

    default_acl: bytes | None
    gid: int
    setgid: int

    def access_acl(self, mode: int) -> bytes | None:
        """The access ACL of a new file that has this mode in the end."""
        return None if self.default_acl is None else or_none(acl_after_chmod(self.default_acl, mode))


def handed_down(mode: int, gid: int, default_acl: bytes | None) -> HandedDown:
    """What a directory with these attributes hands down."""
    setgid = mode & stat.S_ISGID
    return HandedDown(default_acl, gid if setgid else os.getegid(), setgid)


def handed_down_at(place: int) -> HandedDown:
    """What a directory that is there hands down now.

    Args:
        place: its descriptor, which may stand for the place only.

    Raises:
        OSError: it can't be looked at.
    """
    status = os.stat(b".", dir_fd=place)
    return handed_down(status.st_mode, status.st_gid, place_acl(place, DEFAULT))


class WantedDirectory(NamedTuple):
    """Owner, mode and ACLs of a directory of ours. With an access ACL, the mode is what is left without it."""

    uid: int
    gid: int
    mode: int
    access_acl: bytes | None
    default_acl: bytes | None

    @property
    def has_acls(self) -> bool:
        """Whether there is any."""
        return self.access_acl is not None or self.default_acl is not None

    @property
    def acls(self) -> tuple[bytes | None, bytes | None]:
        """Access and default."""
        return self.access_acl, self.default_acl

    @property
    def mode_shown(self) -> int:
        """The mode in its status."""
        return (
            self.mode if self.access_acl is None else self.mode & _SPECIAL_BITS | mode_shown(self.access_acl)
        )

    def is_met_by(self, there: os.stat_result) -> bool:
        """Whether a directory has all that, as far as a status tells."""
        shown = stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid
        return shown == (self.mode_shown, self.uid, self.gid)

    @property
    def is_only_ours(self) -> bool:
        """Whether nobody but the agent's user can change what is in such a directory."""
        return self.uid == os.geteuid() and not writers(self.mode_shown, self.gid, self.access_acl)

    def shuts_out(self, there: os.stat_result, acl: bytes | None) -> bool:
        """Whether somebody can change what is in a directory, and could not if it had all that.

        Args:
            there: its status.
            acl: its access ACL.
        """
        if there.st_uid not in {0, os.geteuid(), self.uid}:
            return True
        before = writers(there.st_mode, there.st_gid, acl)
        return bool(before) and before != writers(self.mode_shown, self.gid, self.access_acl)

    def give(self, dir_fd: int) -> bool:
        """Give the directory all that.

        Returns:
            Whether that has shut somebody out.

        Raises:
            OSError: not all.
        """
        status = os.stat(b".", dir_fd=dir_fd)
        if (status.st_uid, status.st_gid) != (self.uid, self.gid):
            os.chown(b".", self.uid, self.gid, dir_fd=dir_fd)
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            if read_acl(descriptor, DEFAULT) != self.default_acl:
                write_acl(descriptor, DEFAULT, self.default_acl)
            acl = read_acl(descriptor, ACCESS)
            if acl != self.access_acl:
                # Nothing but base entries: they take the place of the list and of the mode in one step.
                write_acl(descriptor, ACCESS, self.access_acl or encode_acl(self.mode, ()))
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != self.mode_shown:
                os.fchmod(descriptor, self.mode_shown)
            # A file system without owners takes them, and keeps its own.
            return self.shuts_out(status, acl) and self.is_met_by(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def changed(self, attributes: Attributes) -> WantedDirectory:
        """With what `permissions` gives to it."""
        mode = self.mode if attributes.mode is None else attributes.mode
        access, default = self.access_acl, self.default_acl
        if attributes.mode is not None and access is not None:
            access = acl_after_chmod(access, mode)
        if attributes.access_acl or attributes.default_acl:
            access = encode_acl(mode, attributes.access_acl) if attributes.access_acl else None
            default = encode_acl(mode, attributes.default_acl) if attributes.default_acl else None
        return WantedDirectory(
            uid=self.uid if attributes.uid is None else attributes.uid,
            gid=self.gid if attributes.gid is None else attributes.gid,
            mode=mode,
            access_acl=access,
            default_acl=default,
        )


class FreshDirectories:
    """What directories of ours would get, and hand down, if they and those of ours above them were made now.

    Attributes:
        differing: real paths of directories of ours that hand down something else until this Install is done: to what
            is made in them meanwhile, it has to be given.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self.differing: set[bytes] = set()
        self._made: dict[bytes, _Made] = {}
        self._handed_down: dict[bytes, HandedDown] = {}
        self._uid = os.geteuid()

    def of(self, directory: Directory) -> WantedDirectory:
        """For this directory.

        Raises:
            OSError: what is above can't be looked at.
        """
        return self._made_beside(directory).wanted

    def made_with(self, directory: Directory) -> int:
        """The mode to make this directory with, where the umask is 0.

        Raises:
            OSError: as `of`.
        """
        return _MODE if self.of(directory).default_acl is None else _MODE_BELOW_DEFAULT_ACL

    def handed_down(self, directory: Directory) -> HandedDown:
        """What this directory will hand down, wherever it stands: a new one, one of ours, or one of others.

        Raises:
            OSError: it, or what is above it, can't be looked at.
        """
        if directory.standing is not Standing.USED_BY_OTHERS:
            return self._made_beside(directory).handed_down
        known = self._handed_down.get(directory.real)
        if known is None:
            known = self._handed_down[directory.real] = handed_down_at(self._places.of(directory.real))
        return known

    def _made_beside(self, directory: Directory) -> _Made:
        """What this directory would get, and hand down; it is the same for all beside it."""
        parent = directory.parent
        if parent is None:
            raise ValueError("nobody makes the root directory")
        known = self._made.get(parent.real)
        if known is None:
            known = self._made[parent.real] = self._made_in(parent)
        return known

    def _made_in(self, parent: Directory) -> _Made:
        above = self.handed_down(parent)
        mode, access = _MODE, None
        if above.default_acl is not None:
            mode, access = mode_without(above.default_acl), or_none(above.default_acl)
        mode |= above.setgid
        wanted = WantedDirectory(self._uid, above.gid, mode, access, above.default_acl)
        return _Made(wanted, handed_down(mode, above.gid, above.default_acl))


class _Made(NamedTuple):
    """What a directory would get that is made now, and what it would hand down."""

    wanted: WantedDirectory
    handed_down: HandedDown

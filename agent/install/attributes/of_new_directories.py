"""What a directory gets that is made here: other agents make theirs anew with each Install."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.install.model.directory import Standing
from agent.install.posix.acl import DEFAULT, acl_after_chmod, encode_acl, inherited_acl, read_acl

if TYPE_CHECKING:
    from agent.install.model.attributes import Attributes
    from agent.install.model.directory import Directory
    from agent.install.posix.places import Places

CREATED_DIRECTORY_MODE = 0o755


class WantedDirectory(NamedTuple):
    """Owner, mode and ACLs of a directory of ours. With an access ACL, the bits of the group are its mask."""

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

    def is_met_by(self, there: os.stat_result) -> bool:
        """Whether a directory has all that, as far as a status tells."""
        differing = stat.S_IMODE(there.st_mode) ^ self.mode
        if self.access_acl is not None:
            differing &= ~0o777
        return not differing and (there.st_uid, there.st_gid) == (self.uid, self.gid)

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
    """What directories of ours would get if they and those of ours above them were made now."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._known: dict[bytes, WantedDirectory] = {}
        self._uid, self._gid = os.geteuid(), os.getegid()

    def of(self, directory: Directory) -> WantedDirectory:
        """For this directory.

        Raises:
            OSError: what is above can't be looked at.
        """
        parent = directory.parent
        if parent is None:
            return WantedDirectory(self._uid, self._gid, CREATED_DIRECTORY_MODE, None, None)
        known = self._known.get(parent.real)
        if known is None:
            known = self._known[parent.real] = self._made_in(parent)
        return known

    def _made_in(self, parent: Directory) -> WantedDirectory:
        if parent.standing is Standing.FOREIGN:
            place = self._places.of(parent.real)
            status = os.stat(b".", dir_fd=place)
            above = WantedDirectory(0, status.st_gid, status.st_mode, None, read_acl(parent.real, DEFAULT))
        else:
            above = self.of(parent)
        passes_on_group = above.mode & stat.S_ISGID
        default = above.default_acl
        return WantedDirectory(
            uid=self._uid,
            gid=above.gid if passes_on_group else self._gid,
            mode=CREATED_DIRECTORY_MODE | passes_on_group,
            access_acl=None if default is None else inherited_acl(default, CREATED_DIRECTORY_MODE),
            default_acl=default,
        )

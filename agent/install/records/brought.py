"""Which recorded directories are others by now, that somebody may have moved there who may not write to them.

A user may move a directory of root's that lies in one of the user's own. Where the last Install has worked, root would
then replace and remove what is in it by name, and give it away: things that the user can only move, as a whole. So what
counts there as left by that Install is what proves to be that, and the directory itself is nobody's of ours (I4).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from agent.install.posix.births import born_ns
from agent.install.records.manifest import inode_in_state
from agent.logs import get_logger

if TYPE_CHECKING:
    from agent.install.posix.places import Places, Resolved

log = get_logger()

_OTHERS_WRITE = (
    stat.S_IWGRP | stat.S_IWOTH
)  # with an access control list, the bits of the group are all that it lets in


class BroughtDirectories:
    """Tells them by their inodes.

    Args:
        states: of the directories that records name, as the manifest has them, by their paths.
        written_ns: when that was written: what has got the number of one of them since is younger.
        places: of this Install.
    """

    def __init__(self, states: dict[bytes, bytes], written_ns: int, places: Places) -> None:
        self._states = states
        self._written_ns = written_ns
        self._places = places
        self._same: dict[bytes, os.stat_result] = {}

    def has(self, path: bytes, found: Resolved, status: os.stat_result | None) -> bool:
        """Whether what is there now is one. To be asked about each directory after the one that it lies in.

        Args:
            path: as the last Install has spelled it.
            found: the directory that is there, and not behind a link.
            status: of it; None when it is to be looked at.

        Raises:
            OSError: it can't be looked at.
        """
        inode = inode_in_state(self._states.get(path, b""))
        if not inode:
            return False
        status = status or self._places.status(found.real)
        above = self._same.get(path.rpartition(b"/")[0])
        is_same = inode == status.st_ino and (
            (above is not None and _only_owner_writes(above, status))
            or born_ns(self._places.of(found.real)) <= self._written_ns
        )
        # Who may write where is asked last: it may be a question to a directory service.
        why = "" if is_same else self._places.brought(found.real, is_above_known=above is not None)
        if why:
            log.info("recorded_directory_replaced", path=os.fsdecode(path), not_trusted=why)
        elif inode == status.st_ino:
            self._same[path] = status
        return bool(why)


def _only_owner_writes(above: os.stat_result, status: os.stat_result) -> bool:
    """Whether what is in a directory can only be changed by the owner of both; this is by far the most usual."""
    return above.st_uid == status.st_uid and not above.st_mode & _OTHERS_WRITE

"""New directories that have taken the place of something else, when an Install is undone."""

from __future__ import annotations

import errno
import os
from functools import cached_property
from typing import TYPE_CHECKING

from agent.install.journal.entries import NewDirectory, Replacement
from agent.install.journal.names import kept_name, new_name, old_name
from agent.install.model.moments import Moment
from agent.install.posix.renames import Renames, exists, inode_of, name_beside
from agent.logs import get_logger

if TYPE_CHECKING:
    from agent.install.journal.entries import Change
    from agent.install.journal.journal import Journal
    from agent.install.model.moments import Observer
    from agent.install.posix.places import Places

log = get_logger()


class DisplacingDirectories:
    """They give way to what was there before, and what others have put into them meanwhile is kept beside it.

    Args:
        journal: of the Install, whose lines are undone the last one first: what is in such a directory, then the line
            about what it has replaced, and then the one about the directory itself.
        places: of the directories that it names.
        observer: told before each change.
    """

    def __init__(self, journal: Journal, places: Places, observer: Observer) -> None:
        self._journal = journal
        self._places = places
        self._observe = observer
        self._renames = Renames()
        self._not_emptied: list[bytes] = []

    @cached_property
    def _changes(self) -> dict[bytes, Replacement]:
        """What each of them has replaced, by their paths."""
        inodes = {entry.inode for entry in self._journal.entries(NewDirectory)}
        entries = self._journal.entries(Replacement)
        return {entry.path: entry for entry in entries if entry.inode in inodes}

    def is_not_emptied(self, path: bytes) -> None:
        """Something that Install has made in this directory, which is one of them or below, can't be removed now."""
        self._not_emptied.append(path + b"/")

    def have_given_way_above(self, path: bytes) -> bool:
        """Whether what was there before has the name of this directory, or of one that it lies in."""
        while path:
            change = self._changes.get(path)
            if change is not None:
                return inode_of(self._places.of(change.directory), change.name) == change.old_inode
            path = path.rpartition(b"/")[0]
        return False

    def is_to_give_way(self, path: bytes) -> bool:
        """Whether what was there before this directory still has a hidden name."""
        change = self._changes.get(path)
        if change is None:
            return False
        dir_fd, token = self._places.of(change.directory), self._journal.token
        names = (new_name(token, change.number), old_name(token, change.number))
        return any(exists(dir_fd, name) for name in names)

    def give_way(self, change: Change, dir_fd: int) -> None:
        """Take the new one's name away from it: the name is free then, or, where names can be exchanged, the old one has it.

        Args:
            change: the line about what it has replaced.
            dir_fd: of the directory where that is.

        Raises:
            OSError: something that Install has made is still in it, or the system refuses.
        """
        if any(path.startswith(change.path + b"/") for path in self._not_emptied):
            raise OSError(errno.ENOTEMPTY, "what this Install has made in it could not be removed")
        descriptor = self._places.opened(change.path)
        try:
            is_empty = not os.listdir(descriptor)
        finally:
            os.close(descriptor)
        self._places.forget(change.path)
        name, hidden = change.name, new_name(self._journal.token, change.number)
        if is_empty and exists(dir_fd, hidden):
            self._observe(Moment.RESTORE_OLD, change.path)
            if self._renames.exchange(dir_fd, hidden, name):
                name = hidden
        self._observe(Moment.REMOVE_NEW, change.path)
        try:
            os.rmdir(name, dir_fd=dir_fd)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            self.keep_beside(change, dir_fd, name, reason="others have put files there")

    def keep_beside(self, change: Change, dir_fd: int, name: bytes, *, reason: str) -> None:
        """Give a directory a name beside the one that it can't have, and say so.

        Args:
            change: the line about what has, or was to have, that name.
            dir_fd: of the directory where it is.
            name: that it has now.
            reason: why it can't have its own, as a clause.

        Raises:
            OSError: the system refuses.
        """
        kept = name_beside(self._renames, dir_fd, name, kept_name(self._journal.token, change.name))
        log.warning(
            "replaced_directory_kept",
            path=os.fsdecode(change.path),
            now=os.fsdecode(change.directory.rstrip(b"/") + b"/" + kept),
            reason=reason,
        )

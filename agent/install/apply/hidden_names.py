"""The hidden names that an Install has made, and the file systems that it has changed."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from agent.install.journal.entries import FirstOnDisk, NewDirectory, Touched
from agent.install.journal.names import hidden_prefix
from agent.install.model.moments import Moment
from agent.install.posix.births import born_ns, may_be_same
from agent.install.posix.disks import Disks
from agent.install.posix.open_directories import PlaceChanged
from agent.install.posix.trees import NotOurs, remove_tree
from agent.logs import get_logger

if TYPE_CHECKING:
    from agent.install.journal.journal import Journal
    from agent.install.model.moments import Observer
    from agent.install.posix.places import Places

log = get_logger()

GONE = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.ELOOP})
"""Errors that say that there is nothing to be removed any more, or that somebody needs it."""


class HiddenRemoval(NamedTuple):
    """What came of removing the hidden names in a directory.

    Attributes:
        stuck: paths that can't be removed.
        displaced: names of directories that have given way to a file, which were left.
    """

    stuck: list[bytes]
    displaced: list[bytes]

    def remove(self, name: bytes, directory: bytes, dir_fd: int, observer: Observer) -> bool:
        """Remove the file or link with this hidden name, or note why not. False when there is none."""
        path = directory.rstrip(b"/") + b"/" + name
        try:
            observer(Moment.REMOVE_HIDDEN, path)
            os.unlink(name, dir_fd=dir_fd)
        except IsADirectoryError:
            self.displaced.append(name)
        except FileNotFoundError:
            return False
        except OSError as error:
            self.refuse(path, error)
        return True

    def miss(self, directory: bytes, error: OSError) -> None:
        """The directory can't be reached. Another one in its place is none of ours, and will not become it."""
        if isinstance(error, PlaceChanged):
            log.warning("directory_replaced_not_cleaned", path=os.fsdecode(directory))
        elif error.errno not in GONE:
            self.refuse(directory, error)

    def refuse(self, path: bytes, error: OSError) -> None:
        """The system refuses to remove this."""
        log_stuck(path, error)
        self.stuck.append(path)


class HiddenNames:
    """The hidden names of one Install."""

    def __init__(self, journal: Journal, places: Places, observer: Observer) -> None:
        self._journal = journal
        self._prefix = hidden_prefix(journal.token)
        self._places = places
        self._observe = observer

    def discard(self, directory: bytes) -> None:
        """Remove all that have one in this directory.

        Raises:
            OSError: one can't be removed.
        """
        dir_fd = self._places.of(directory)
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            names = self._hidden_in(descriptor)
        finally:
            os.close(descriptor)
        for name in names:
            self._observe(Moment.DISCARD, directory + b"/" + name)
            self.remove(directory, name)

    def remove(self, directory: bytes, name: bytes) -> None:
        """Remove what has this one, with all that is in it.

        Where others may write to the directory, they can give the name to another one. So a directory that is not empty
        must be known by its inode there, and by the time when that was made; after a power failure, it may not be, and is
        left. So is what others have brought into it, if only root could remove that.

        Raises:
            OSError: something can't be removed.
        """
        try:
            remove_tree(
                self._places.of(directory),
                name,
                lambda descriptor: (
                    self.has_made(directory, descriptor)
                    or not any(self._places.changers(directory, os.fstat(descriptor)))
                ),
            )
        except NotOurs:
            try:
                os.rmdir(name, dir_fd=self._places.of(directory))
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
            else:
                return
            log.warning(
                "hidden_directory_kept",
                path=os.fsdecode(directory.rstrip(b"/") + b"/" + name),
                reason="others may write there, and nothing tells that all of it is what this Install has made",
            )

    def has_made(self, directory: bytes, descriptor: int) -> bool:
        """Whether this open directory is one that the Install has made there, in a directory that was there before."""
        inode, born = os.fstat(descriptor).st_ino, born_ns(descriptor)
        return any(
            made.inode == inode and may_be_same(made.born_ns, born) for made in self._made.get(directory, ())
        )

    @cached_property
    def _made(self) -> dict[bytes, list[NewDirectory]]:
        """The directories that the Install has made, by the one that they lie in."""
        made: dict[bytes, list[NewDirectory]] = {}
        for entry in self._journal.entries(NewDirectory):
            made.setdefault(entry.path.rpartition(b"/")[0] or b"/", []).append(entry)
        return made

    def remove_files(self, directory: bytes) -> HiddenRemoval:
        """Remove the files and links that have one in this directory."""
        removal = HiddenRemoval([], [])
        try:
            descriptor = self._places.opened(directory)
        except OSError as error:
            removal.miss(directory, error)
            return removal
        try:
            for name in self._hidden_in(descriptor):
                removal.remove(name, directory, descriptor, self._observe)
        except OSError as error:
            removal.refuse(directory, error)
        finally:
            os.close(descriptor)
        return removal

    def _hidden_in(self, descriptor: int) -> list[bytes]:
        """All in this open directory."""
        prefix = os.fsdecode(self._prefix)
        return [os.fsencode(name) for name in os.listdir(descriptor) if name.startswith(prefix)]


def sync_changes(journal: Journal, places: Places) -> None:
    """Wait until all that was changed at the destinations is on the disk.

    Raises:
        OSError: the disk does not take it.
    """
    with closing(Disks()) as disks:
        if not all(_add(disks, entry.path, places) for entry in journal.entries(FirstOnDisk)):
            for entry in journal.entries(Touched):
                _add(disks, entry.path, places)
        disks.sync()


def _add(disks: Disks, directory: bytes, places: Places) -> bool:
    """Add the file system of this directory. False when the directory is out of reach."""
    try:
        dir_fd = places.of(directory)
    except (FileNotFoundError, NotADirectoryError, PlaceChanged):
        return False
    device = os.stat(b".", dir_fd=dir_fd).st_dev
    if device not in disks:
        disks.add(device, dir_fd)
    return True


def log_stuck(path: bytes, error: OSError) -> None:
    """The Install has succeeded; what stays behind does not change that."""
    log.warning("leftover_not_removed", path=os.fsdecode(path), error=error.strerror or str(error))

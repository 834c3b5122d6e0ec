"""The hidden names that an Install has made, and the file systems that it has changed."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from agent.install.journal.entries import hidden_prefix, path_of
from agent.install.posix.disks import Disks
from agent.install.posix.trees import remove_tree
from agent.logs import get_logger

if TYPE_CHECKING:
    from agent.install.journal.journal import Journal
    from agent.install.model.request import Observer
    from agent.install.posix.places import Places

log = get_logger()

GONE = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.ELOOP})
"""Errors that say that there is nothing to be removed any more, or that somebody needs it."""


class Forgotten(NamedTuple):
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
            observer("forget", path)
            os.unlink(name, dir_fd=dir_fd)
        except IsADirectoryError:
            self.displaced.append(name)
        except FileNotFoundError:
            return False
        except OSError as error:
            self.refuse(path, error)
        return True

    def refuse(self, path: bytes, error: OSError) -> None:
        """The system refuses to remove this."""
        log_stuck(path, error)
        self.stuck.append(path)


class HiddenNames:
    """The hidden names of one Install."""

    def __init__(self, token: bytes, places: Places, observer: Observer) -> None:
        self._prefix = hidden_prefix(token)
        self._places = places
        self._observe = observer

    def discard(self, directory: bytes, dir_fd: int) -> None:
        """Afterwards there are none in this directory.

        Raises:
            OSError: one can't be removed.
        """
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            names = self._hidden_in(descriptor)
        finally:
            os.close(descriptor)
        for name in names:
            self._observe("discard", directory + b"/" + name)
            remove_tree(dir_fd, name)

    def forget(self, directory: bytes) -> Forgotten:
        """Remove the files and links among them."""
        forgotten = Forgotten([], [])
        try:
            descriptor = self._places.opened(directory)
        except OSError as error:
            if error.errno not in GONE:
                forgotten.refuse(directory, error)
            return forgotten
        try:
            for name in self._hidden_in(descriptor):
                forgotten.remove(name, directory, descriptor, self._observe)
        except OSError as error:
            forgotten.refuse(directory, error)
        finally:
            os.close(descriptor)
        return forgotten

    def _hidden_in(self, descriptor: int) -> list[bytes]:
        """All in this open directory."""
        prefix = os.fsdecode(self._prefix)
        return [os.fsencode(name) for name in os.listdir(descriptor) if name.startswith(prefix)]


def sync_changes(journal: Journal, places: Places) -> None:
    """Afterwards all that was changed at the destinations is on the disk.

    Raises:
        OSError: the disk does not take it.
    """
    with closing(Disks()) as disks:
        if not all(_add(disks, path_of(entry), places) for entry in journal.entries(b"y")):
            for entry in journal.entries(b"t"):
                _add(disks, path_of(entry), places)
        disks.sync()


def _add(disks: Disks, directory: bytes, places: Places) -> bool:
    """Add the file system of this directory. False when the directory is not there any more."""
    try:
        dir_fd = places.of(directory)
    except (FileNotFoundError, NotADirectoryError):
        return False
    device = os.stat(b".", dir_fd=dir_fd).st_dev
    if device not in disks:
        disks.add(device, dir_fd)
    return True


def log_stuck(path: bytes, error: OSError) -> None:
    """The Install has succeeded; what stays behind does not change that."""
    log.warning("leftover_not_removed", path=os.fsdecode(path), error=error.strerror or str(error))

"""The hidden names that an Install has made, and the file systems that it has changed."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from agent.install.descriptors import remove_tree, sync_file_systems
from agent.install.entries import hidden_prefix, path_of
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.install.descriptors import Descriptors
    from agent.install.journal import Journal
    from agent.install.request import Observer

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


class HiddenNames:
    """The hidden names of one Install."""

    def __init__(self, token: bytes, descriptors: Descriptors, observer: Observer) -> None:
        self._prefix = hidden_prefix(token)
        self._descriptors = descriptors
        self._observe = observer

    def discard(self, directory: bytes, dir_fd: int) -> None:
        """Afterwards there are none in this directory.

        Raises:
            OSError: one can't be removed.
        """
        for name, _is_directory in self._names_in(dir_fd):
            self._observe("discard", directory + b"/" + name)
            remove_tree(dir_fd, name)

    def forget(self, directory: bytes) -> Forgotten:
        """Remove the files and links among them."""
        forgotten = Forgotten([], [])
        try:
            dir_fd = self._descriptors.of(directory)
            names = self._names_in(dir_fd)
        except OSError as error:
            if error.errno not in GONE:
                log_stuck(directory, error)
                forgotten.stuck.append(directory)
            return forgotten
        for name, is_directory in names:
            if is_directory:
                forgotten.displaced.append(name)
                continue
            try:
                self._observe("forget", directory + b"/" + name)
                remove_tree(dir_fd, name)
            except OSError as error:
                log_stuck(directory + b"/" + name, error)
                forgotten.stuck.append(directory + b"/" + name)
        return forgotten

    def _names_in(self, dir_fd: int) -> list[tuple[bytes, bool]]:
        """All in this directory, and whether each is a directory itself."""
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            with os.scandir(descriptor) as entries:
                return [
                    (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False))
                    for entry in entries
                    if os.fsencode(entry.name).startswith(self._prefix)
                ]
        finally:
            os.close(descriptor)


def sync_changes(journal: Journal, descriptors: Descriptors) -> None:
    """Afterwards all that was changed at the destinations is on the disk.

    Raises:
        OSError: the disk does not take it.
    """
    sync_file_systems(_places(journal, descriptors))


def log_stuck(path: bytes, error: OSError) -> None:
    """The Install has succeeded; what stays behind does not change that."""
    log.warning("leftover_not_removed", path=os.fsdecode(path), error=error.strerror or str(error))


def _places(journal: Journal, descriptors: Descriptors) -> Iterator[int]:
    """One directory on each file system with changes."""
    seen: set[int] = set()
    for entry in journal.entries(b"t"):
        with suppress(FileNotFoundError, NotADirectoryError):
            dir_fd = descriptors.of(path_of(entry))
            device = os.stat(b".", dir_fd=dir_fd).st_dev
            if device not in seen:
                seen.add(device)
                yield dir_fd

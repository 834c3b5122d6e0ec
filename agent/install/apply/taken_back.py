"""Directories in which somebody else could change names until this Install gave them other attributes.

What he has put in the place of something in the last moment would be trusted from then on like the revision itself, and
he could still write to what has inherited a list from the directory that lets him. So all that is to be there is looked at
once more as soon as nobody else can change it any more.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from agent.install.model.failures import StepFailed, failed_step
from agent.install.posix.acl import ACCESS, DEFAULT, place_acl, read_acl
from agent.install.records.manifest import decode_record, is_untouched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.install.attributes.of_new_directories import WantedDirectory
    from agent.install.model.steps import PlannedDirectory, PlannedFiles
    from agent.install.posix.places import Places

_CHANGED = "it was changed while Install was running"


class TakenBack:
    """Such directories of one Install, and those of ours below them.

    Args:
        places: of the directories of the host.
        wanted: what a directory of ours is to have.
    """

    def __init__(self, places: Places, wanted: Callable[[PlannedDirectory], WantedDirectory]) -> None:
        self._places = places
        self._wanted = wanted
        self._reals: set[bytes] = set()

    def add(self, real: bytes) -> None:
        """Somebody else could change what is in this directory, and can't any more."""
        self._reals.add(real)

    def check(
        self,
        directories: Iterable[PlannedDirectory],
        files: list[PlannedFiles],
        lines_of: Callable[[int], list[bytes]],
    ) -> None:
        """All that is planned there is what it was when it had its place.

        Args:
            directories: all, each after the one that it lies in.
            files: all.
            lines_of: gives for their names the fields of the manifest lines, by their index.

        Raises:
            StepFailed: something is not; planned anew, it may be.
        """
        if not self._reals:
            return
        affected, firm = set(self._reals), set(self._reals)
        for step in directories:
            directory = step.directory
            try:
                if directory.parent is not None and directory.parent.real in firm:
                    self._check_directory(step)
                    affected.add(directory.real)
                if directory.real in affected and self._wanted(step).is_only_ours:
                    firm.add(directory.real)
            except OSError as error:
                raise StepFailed(directory.path, error) from error
        for index, item in enumerate(files):
            if item.directory.real in affected:
                self._check_files(item, lines_of(index))

    def _check_directory(self, step: PlannedDirectory) -> None:
        above, _slash, name = step.directory.real.rpartition(b"/")
        there = os.stat(name, dir_fd=self._places.of(above or b"/"), follow_symlinks=False)
        expected = self._places.status(step.directory.real)
        wanted, place = self._wanted(step), self._places.of(step.directory.real)
        if there.st_ino != expected.st_ino or not wanted.is_met_by(there):
            raise OSError(errno.EAGAIN, _CHANGED)
        if wanted.acls != (place_acl(place, ACCESS), place_acl(place, DEFAULT)):
            raise OSError(errno.EAGAIN, _CHANGED)

    def _check_files(self, files: PlannedFiles, lines: list[bytes]) -> None:
        position = 0
        try:
            dir_fd = self._places.of(files.directory.real)
            for position, name in enumerate(files.names):
                status, record = (
                    os.stat(name, dir_fd=dir_fd, follow_symlinks=False),
                    decode_record(lines[position]),
                )
                if not is_untouched(record, status):
                    raise OSError(errno.EAGAIN, _CHANGED)
                if not record.is_link and not record.has_acl and _has_acl(dir_fd, name):
                    raise OSError(errno.EAGAIN, _CHANGED)
        except OSError as error:
            raise failed_step(files, position, error) from error


def _has_acl(dir_fd: int, name: bytes) -> bool:
    """Whether a file in a directory has an access list; nobody else can exchange it."""
    return read_acl(b"/proc/self/fd/%d/%b" % (dir_fd, name), ACCESS) is not None

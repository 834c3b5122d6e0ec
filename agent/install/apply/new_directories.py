"""The directories that an Install makes.

One that is made in a directory that was there has a hidden name until the switch; those below it have their own at once.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.install.journal.entries import Hiding, NewDirectory, Replacement, encode
from agent.install.journal.names import new_name
from agent.install.model.directory import Standing
from agent.install.model.failures import StepFailed
from agent.install.model.moments import Moment
from agent.install.posix.births import UNKNOWN, born_ns
from agent.install.posix.two_processes import SharedNumbers
from agent.install.records.manifest import lasting_state
from agent.listings import clock_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agent.install.attributes.of_new_directories import FreshDirectories
    from agent.install.model.directory import Directory
    from agent.install.model.moments import Observer
    from agent.install.model.steps import PlannedDirectory
    from agent.install.posix.places import Places

_UNTIL_GIVEN = 0o700


class NewDirectories:
    """Makes them. The umask of the process must be 0 meanwhile.

    Args:
        steps: those that are to be made, each after the one that it lies in.
        token: what the hidden names have in common.
        places: learn the hidden names.
        fresh: knows what new directories get.
        observer: told before each is made.
        note: writes lines about those that get hidden names, as soon as they are made.

    Attributes:
        outer: those that get hidden names.
        inner: the others.
    """

    def __init__(
        self,
        steps: Iterable[PlannedDirectory],
        token: bytes,
        places: Places,
        *,
        fresh: FreshDirectories,
        observer: Observer,
        note: Callable[[Iterable[bytes]], None],
    ) -> None:
        self.outer: list[PlannedDirectory] = []
        self.inner: list[PlannedDirectory] = []
        self._token = token
        self._places = places
        self._fresh = fresh
        self._observe = observer
        self._note = note
        self._inodes: dict[bytes, int] = {}
        self._born_ns: dict[bytes, int] = {}
        for step in steps:
            real = step.directory.real
            if _is_inner(step.directory):
                self.inner.append(step)
            else:
                self.outer.append(step)
                places.name_is(real, new_name(token, step.number))
        # Whoever makes inner ones writes to those outer ones that were made first, and to no others.
        self._outer_inodes = SharedNumbers(len(self.outer))
        self._knows_outer = False

    def __len__(self) -> int:
        return len(self.outer) + len(self.inner)

    def make_outer(self) -> None:
        """Make those that get hidden names.

        Raises:
            StepFailed: the rest was not tried.
        """
        for number, step in enumerate(self.outer):
            directory = step.directory
            self._make(directory, new_name(self._token, step.number), is_shared=False)
            try:
                self._outer_inodes[number] = self.inode_of(directory)
                self._note([self.journal_of(step)])
            except OSError as error:
                raise StepFailed(directory.path, error) from error

    def make_inner(self, directory: Directory) -> None:
        """Make one of the others, and those that it lies in; some of them another process may have made already.

        Raises:
            StepFailed: that is impossible.
        """
        if not self._knows_outer:
            self._knows_outer = True
            for step, inode in zip(self.outer, self._outer_inodes, strict=True):
                self._places.expect(step.directory.real, inode)
        if directory.real in self._inodes or directory.parent is None or not _is_inner(directory):
            return
        self.make_inner(directory.parent)
        self._make(directory, directory.real.rpartition(b"/")[2], is_shared=True)

    def inode_of(self, directory: Directory) -> int:
        """The inode of one that is made.

        Raises:
            StepFailed: it can't be looked at.
        """
        real = directory.real
        if real not in self._inodes:
            try:
                self._inodes[real] = os.stat(b".", dir_fd=self._places.of(real)).st_ino
            except OSError as error:
                raise StepFailed(directory.path, error) from error
        return self._inodes[real]

    def journal_of_outer(self) -> Iterator[bytes]:
        """What else there is to say about those that get hidden names: `make_outer` has noted which they are."""
        for step in self.outer:
            real = step.directory.real
            parent, _slash, name = real.rpartition(b"/")
            yield encode(Hiding(parent or b"/"))
            if step.directory.replaces:
                there = os.stat(name, dir_fd=self._places.of(parent or b"/"), follow_symlinks=False)
                inode = self._inodes[real]
                yield encode(Replacement(step.number, inode, there.st_ino, parent or b"/", name))

    def journal_of(self, step: PlannedDirectory) -> bytes:
        """The line about any of them.

        Raises:
            StepFailed: it can't be looked at.
        """
        real = step.directory.real
        return encode(NewDirectory(self.inode_of(step.directory), self._born_ns.get(real, UNKNOWN), real))

    def state_of(self, step: PlannedDirectory) -> bytes:
        """The state of an inner one while it is below a hidden name, where nobody else puts anything.

        To be asked when nothing is put there any more; empty where it may look the same after another change.
        """
        looked_ns = clock_ns()
        with suppress(OSError):
            return lasting_state(self._places.status(step.directory.real), looked_ns)
        return b""

    def _make(self, directory: Directory, name: bytes, *, is_shared: bool) -> None:
        self._observe(Moment.MKDIR, directory.path)
        try:
            parent = directory.real.rpartition(b"/")[0] or b"/"
            differs = parent in self._fresh.differing
            mode = _UNTIL_GIVEN if differs else self._fresh.made_with(directory)
            dir_fd = self._places.of(parent)
            try:
                os.mkdir(name, mode, dir_fd=dir_fd)
            except FileExistsError:
                if not is_shared:
                    raise
            status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            self._places.is_made(directory.real, status)
            self._inodes[directory.real] = status.st_ino
            if not is_shared:
                self._look_at_outer(directory.real)
            if differs:
                self._fresh.of(directory).give(self._places.of(directory.real))
        except OSError as error:
            raise StepFailed(directory.path, error) from error

    def _look_at_outer(self, real: bytes) -> None:
        """It lies where others may be able to write: it must be the one that was made, and be known again."""
        descriptor = self._places.opened(real)
        try:
            if os.listdir(descriptor):
                raise OSError(errno.ESTALE, "another directory has taken its place")
            self._born_ns[real] = born_ns(descriptor)
        finally:
            os.close(descriptor)


def _is_inner(directory: Directory) -> bool:
    """Whether this new directory lies in another one."""
    return directory.parent is not None and directory.parent.standing is Standing.NEW

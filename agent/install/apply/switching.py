"""Letting what is ready take its place, and removing what was there before."""

from __future__ import annotations

import errno
import os
from array import array
from typing import TYPE_CHECKING

from agent.install.apply.hidden_names import HiddenRemoval
from agent.install.attributes.of_files import wanted_of
from agent.install.compare.findings import NewFiles
from agent.install.journal.names import new_name, old_name
from agent.install.model.failures import StepFailed, failed_step
from agent.install.model.moments import Moment, unobserved
from agent.install.posix import batched
from agent.install.posix.copying import READ
from agent.install.posix.renames import Renames, has_two_names
from agent.install.records.manifest import file_fields, link_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.install.attributes.of_new_directories import FreshDirectories
    from agent.install.compare.findings import Adjusted, Findings, NewFile
    from agent.install.model.moments import Observer
    from agent.install.model.steps import PlannedDirectory, PlannedFiles
    from agent.install.posix.batched import Library
    from agent.install.posix.places import Places

_ADJUST, _RENAME = Moment.ADJUST, Moment.RENAME  # looked up once: there may be 100,000 files
_CHANGED = "it was changed while Install was running"


class Switcher:
    """Gives files and directories of one Install their places.

    Args:
        token: what the hidden names have in common.
        places: of the directories of the host.
        fresh: knows what they hand down.
        observer: told before each change.
    """

    def __init__(self, token: bytes, places: Places, fresh: FreshDirectories, observer: Observer) -> None:
        self._token = token
        self._places = places
        self._fresh = fresh
        self._observe = observer
        self._renames = Renames()
        # Whoever is told of each change is told before it.
        self._library = batched.library() if observer is unobserved else None
        self._is_root = os.geteuid() == 0

    def switch_directory(self, step: PlannedDirectory) -> None:
        """Let a new directory take its place.

        Raises:
            StepFailed: that is impossible.
        """
        directory = step.directory
        parent, _slash, name = directory.real.rpartition(b"/")
        try:
            self._observe(_RENAME, directory.path)
            dir_fd = self._places.of(parent or b"/")
            self._take_place(dir_fd, name, step.number, replaces=directory.replaces, is_file=False)
            self._places.name_is(directory.real, None)
        except OSError as error:
            raise StepFailed(directory.path, error) from error

    def switch_files(self, files: PlannedFiles, findings: Findings) -> None:
        """Let these files take their places; the fields of all their manifest lines are known then.

        Raises:
            StepFailed: the rest was not tried.
        """
        position, prefix = 0, files.prefix
        try:
            dir_fd = self._places.of(files.directory.real)
            new_files: Iterable[NewFile] = findings.new
            if self._library is not None and findings.new:
                new_files = self._left_by(self._library, dir_fd, files, findings)
            for new in new_files:
                position = new.position
                name = files.names[position]
                self._observe(_RENAME, prefix + name)
                self._take_place(dir_fd, name, files.number + position, replaces=bool(new.old_inode))
                findings.lines[position] = _line_of(dir_fd, name, new)
            for adjusted in findings.adjusted:
                position = adjusted.position
                self._adjust(dir_fd, files, findings, adjusted)
        except OSError as error:
            raise failed_step(files, position, error) from error

    def _left_by(
        self, library: Library, dir_fd: int, files: PlannedFiles, findings: Findings
    ) -> Iterator[NewFile]:
        """Those of the new files that the library leaves, because one was not to be found as it was left, or is no file.

        Raises:
            OSError: something else has the place of one now, or it can't be looked at.
        """
        new_files = list(findings.new)
        if any(new.is_link for new in new_files):
            yield from new_files
            return
        names = [files.names[new.position] for new in new_files]
        hidden = [new_name(self._token, files.number + new.position) for new in new_files]
        inodes = array("Q", [number for new in new_files for number in (new.inode, new.old_inode)])
        made, is_unclear = library.switched(dir_fd, hidden, names, inodes)
        for new, now in zip(new_files, made, strict=False):
            acl = b"a" if new.has_acl else b"-"
            findings.lines[new.position] = b"f %d %d %d %d %b %b" % (
                *now,
                new.digest or b"-",
                acl,
            )  # as `file_fields` has it
        left = iter(new_files[len(made) :])
        if is_unclear:
            new = next(left)
            findings.lines[new.position] = _line_of(dir_fd, files.names[new.position], new)
        yield from left

    def remove_replaced(self, files: PlannedFiles, findings: Findings) -> HiddenRemoval:
        """Remove what these files have replaced."""
        removal = HiddenRemoval([], [])
        directory = files.directory.real
        new = findings.new.numbers() if isinstance(findings.new, NewFiles) else ()
        numbers = [files.number + position for position, _inode, old_inode in new if old_inode]
        if not numbers:
            return removal
        try:
            dir_fd = self._places.of(directory)
        except OSError as error:
            removal.miss(directory, error)
            return removal
        for number in numbers:
            for name in (new_name(self._token, number), old_name(self._token, number)):
                if removal.remove(name, directory, dir_fd, self._observe):
                    break
        return removal

    def _take_place(
        self, dir_fd: int, name: bytes, number: int, *, replaces: bool, is_file: bool = True
    ) -> None:
        hidden = new_name(self._token, number)
        if replaces:
            try:
                if not self._renames.exchange(dir_fd, hidden, name):
                    self._replace(dir_fd, hidden, name, old_name(self._token, number), is_file=is_file)
            except FileNotFoundError:
                pass  # what was to be replaced has gone meanwhile
            else:
                return
        try:
            self._renames.place(dir_fd, hidden, name)
        except FileExistsError as error:
            raise OSError(errno.EEXIST, "it appeared while Install was running") from error

    def _replace(self, dir_fd: int, hidden: bytes, name: bytes, kept: bytes, *, is_file: bool) -> None:
        """Let a hidden name take a place in two steps, without an exchange; what was there has the name `kept` then."""
        # Two names, so that one is there at every moment; but a directory can't replace a file.
        if not is_file or not has_two_names(dir_fd, name, kept):
            os.rename(name, kept, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        os.rename(hidden, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def _adjust(self, dir_fd: int, files: PlannedFiles, findings: Findings, adjusted: Adjusted) -> None:
        name = files.names[adjusted.position]
        self._observe(_ADJUST, files.prefix + name)
        source = os.stat(files.source_directory + b"/" + name, follow_symlinks=False)
        handed_down = self._fresh.handed_down(files.directory)
        wanted = wanted_of(source, files.attributes.get(name), handed_down, is_root=self._is_root)
        descriptor = os.open(name, READ, dir_fd=dir_fd)
        try:
            status = os.fstat(descriptor)
            if not adjusted.is_still(status):
                raise OSError(errno.EAGAIN, _CHANGED)
            wanted.give(descriptor, status, adjusted.was.access_acl)
            has_acl = wanted.access_acl is not None
            line = file_fields(os.fstat(descriptor), adjusted.digest, has_acl=has_acl)
        finally:
            os.close(descriptor)
        findings.lines[adjusted.position] = line


def _line_of(dir_fd: int, name: bytes, new: NewFile) -> bytes:
    status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if status.st_ino != new.inode:
        raise OSError(errno.EAGAIN, _CHANGED)
    if new.is_link:
        return link_fields(status, new.digest)
    return file_fields(status, new.digest, has_acl=new.has_acl)

"""Making files ready: copies wait under hidden names."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from agent.install.apply.copies import Copies, StopCopies
from agent.install.apply.hard_links import HardLinks
from agent.install.apply.waiting import WaitingFiles
from agent.install.model.failures import failed_step
from agent.install.model.moments import unobserved
from agent.install.posix import batched
from agent.install.posix.copying import READ

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.install.attributes.of_new_directories import FreshDirectories
    from agent.install.compare.comparer import Comparer
    from agent.install.compare.findings import Findings
    from agent.install.model.moments import Observer
    from agent.install.model.steps import PlannedFiles
    from agent.install.posix.batched import Library
    from agent.install.posix.places import Places

_AT_ONCE = 256  # so that each name is put together at most so many times


class Stager:
    """Stages planned files, one directory of them at a time. The umask of the process must be 0.

    Args:
        comparer: knows what is there.
        token: what the hidden names have in common.
        places: of the directories of the host.
        fresh: knows what they hand down.
        observer: told before each change.
    """

    def __init__(
        self,
        comparer: Comparer,
        token: bytes,
        places: Places,
        fresh: FreshDirectories,
        observer: Observer,
    ) -> None:
        self._comparer = comparer
        self._token = token
        self._places = places
        self._fresh = fresh
        self._observe = observer
        self._hard_links = HardLinks(places)
        # Whoever is told of each change is told before it.
        self._library = batched.library() if observer is unobserved else None

    def stage(self, files: PlannedFiles, findings: Findings) -> Findings:
        """Make what is to be done ready under hidden names, and change nothing else.

        Names of files that have several are left to `stage_hard_links`, and noted.

        Args:
            files: what is planned.
            findings: what `compare` has found.

        Raises:
            StepFailed: the rest was not tried.
        """
        pending = (
            ((number, 0) for number in range(len(files.names)))
            if findings.pending is None
            else findings.pending
        )
        work: _Staging | None = None
        try:
            with self._waiting(files, findings) as waiting:
                work = _Staging(waiting, Copies(waiting, self._observe), self._library)
                work.stage(pending)
        except OSError as error:
            raise failed_step(files, 0 if work is None else work.position, error) from error
        return findings

    def stage_hard_links(self, files: PlannedFiles, findings: Findings) -> None:
        """Stage what `stage` has left: files with several names in the archive have several names again.

        Raises:
            StepFailed: the rest was not tried.
        """
        position = 0
        try:
            with self._waiting(files, findings) as waiting:
                copies = Copies(waiting, self._observe)
                for position in findings.hard_links:
                    self._hard_links.stage(position, waiting, copies)
        except OSError as error:
            raise failed_step(files, position, error) from error

    def _waiting(self, files: PlannedFiles, findings: Findings) -> WaitingFiles:
        comparison = self._comparer.begin(files, findings)
        return WaitingFiles(
            files, findings, comparison, token=self._token, places=self._places, fresh=self._fresh
        )


class _Staging:
    """The files of one directory being staged.

    Args:
        waiting: they wait there.
        copies: makes them.
        library: makes most of them at once.

    Attributes:
        position: of the name that `stage` is at.
    """

    def __init__(self, waiting: WaitingFiles, copies: Copies, library: Library | None) -> None:
        self._waiting = waiting
        self._copies = copies
        self._library = library
        self.position = 0

    def stage(self, pending: Iterable[tuple[int, int]]) -> None:
        """Stage these names: position, and inode of what it replaces, of each."""
        waiting, copies = self._waiting, self._copies
        names, links, source_fd = waiting.files.names, waiting.files.links, waiting.comparison.source_fd
        is_plain = waiting.is_plain and not waiting.files.attributes
        if is_plain and self._library is not None:
            pending = self._left_by(self._library, list(pending))
        for position, old_inode in pending:
            self.position = position
            name = names[position]
            if name in links:
                copies.copy_link(position, old_inode)
                continue
            descriptor = os.open(name, READ, dir_fd=source_fd)
            try:
                source = os.fstat(descriptor)
                plain = copies.content_if_plain(name, descriptor, source) if is_plain else None
                if plain is None:
                    self._stage_file(position, name, descriptor, source, old_inode)
                else:
                    content, digest = plain
                    copies.copy(position, descriptor, source, old_inode, digest, plain=content)
            finally:
                os.close(descriptor)

    def _left_by(self, library: Library, pending: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Those of the files that the library does not copy, each before the next ones are."""
        start = 0
        while start < len(pending):
            some = pending[start : start + _AT_ONCE]
            try:
                done = self._copies.copy_at_once(library, some)
            except StopCopies as error:
                self.position = some[error.count][0]
                raise
            if done < len(some):
                yield some[done]
            start += done + 1 if done < len(some) else done

    def _stage_file(
        self, position: int, name: bytes, descriptor: int, source: os.stat_result, old_inode: int
    ) -> None:
        """Stage an open file, or note that it has other names."""
        waiting = self._waiting
        findings, comparison = waiting.findings, waiting.comparison
        if not stat.S_ISREG(source.st_mode):
            raise OSError(errno.EINVAL, "it is no longer a file in the archive")
        if source.st_nlink > 1:
            findings.hard_links.append(position)
            return
        digest = comparison.digest_of_source(name, source)
        if digest is None and old_inode and findings.trusts_index:
            # Somebody has changed it in the archive: it may be like what is there now.
            there = comparison.status(name)
            if there is not None and comparison.is_there(position, name, there):
                return
        self._copies.copy(position, descriptor, source, old_inode, digest)

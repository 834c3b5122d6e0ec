"""Where the copies of one directory's files wait, and what is noted of those that do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.install.journal.names import new_names
from agent.install.model.directory import Standing
from agent.install.records.manifest import file_fields, link_fields

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from agent.install.attributes.of_new_directories import FreshDirectories
    from agent.install.compare.comparer import DirectoryComparison
    from agent.install.compare.findings import Findings
    from agent.install.model.steps import PlannedFiles
    from agent.install.posix.batched import Made
    from agent.install.posix.places import Places


class WaitingFiles:
    """The planned files of one directory, as far as they wait for the switch. A context.

    Args:
        files: what is planned.
        findings: takes what has become of them.
        comparison: of these files; it is closed with this.
        token: what the hidden names have in common.
        places: of the directories of the host.
        fresh: knows what they hand down.

    Attributes:
        dir_fd: of the directory.
        handed_down: what new files get from it.
        is_plain: whether new files have, by the directory, just what they are made with.
        place_of: position → the name under which that one waits.
    """

    def __init__(
        self,
        files: PlannedFiles,
        findings: Findings,
        comparison: DirectoryComparison,
        *,
        token: bytes,
        places: Places,
        fresh: FreshDirectories,
    ) -> None:
        self.files = files
        self.findings = findings
        self.comparison = comparison
        self.real = files.directory.real
        self.dir_fd = places.of(self.real)
        self.handed_down = fresh.handed_down(files.directory)
        self.is_plain = self.handed_down.default_acl is None and self.real not in fresh.differing
        self._places = places
        # Then the directory, or one above it, has a hidden name, and what is in it needs none.
        self._is_new = files.directory.standing is Standing.NEW
        self.place_of = files.names.__getitem__ if self._is_new else new_names(token, files.number)

    def __enter__(self) -> WaitingFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        self.comparison.__exit__(*exception)

    def note(
        self,
        position: int,
        old_inode: int,
        status: os.stat_result,
        digest: bytes,
        *,
        is_link: bool = False,
        has_acl: bool = False,
    ) -> None:
        """Note that this one waits.

        Args:
            position: in the planned files.
            old_inode: of what it replaces; 0 = nothing is there.
            status: its own.
            digest: of its content, empty when not known; the target of a link.
            is_link: it is a symbolic link.
            has_acl: it has an access ACL.
        """
        findings = self.findings
        if old_inode:
            findings.replaced += 1
        else:
            findings.created += 1
        if not self._is_new:
            findings.note_new(position, status.st_ino, old_inode, digest, is_link=is_link, has_acl=has_acl)
        elif is_link:
            findings.lines[position] = link_fields(status, digest)
        else:
            findings.lines[position] = file_fields(status, digest, has_acl=has_acl)

    def note_copies(self, pending: Sequence[tuple[int, int]], made: list[Made], digests: list[bytes]) -> None:
        """Note that plain copies wait, all of them without an ACL.

        Args:
            pending: position and inode of what it replaces, of each.
            made: each of them.
            digests: of their contents.
        """
        findings = self.findings
        replaced = sum(1 for _position, old_inode in pending if old_inode)
        findings.replaced += replaced
        findings.created += len(made) - replaced
        findings.copied_bytes += sum(copy.size for copy in made)
        if self._is_new:
            for (position, _), copy, digest in zip(pending, made, digests, strict=True):
                findings.lines[position] = b"f %d %d %d %d %b -" % (*copy, digest)  # as `file_fields` has it
            return
        for (position, old_inode), copy, digest in zip(pending, made, digests, strict=True):
            findings.note_new(position, copy.inode, old_inode, digest, is_link=False, has_acl=False)

    def open_again(self) -> None:
        """Get descriptors anew, since other directories have been opened meanwhile, which may have closed them."""
        self.dir_fd = self.comparison.dir_fd = self._places.of(self.real)

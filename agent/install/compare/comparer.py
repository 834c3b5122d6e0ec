"""Finding out which planned files are there already; nothing is changed."""

from __future__ import annotations

import errno
import os
import stat
from array import array
from typing import TYPE_CHECKING

from agent.archive_index import ArchiveIndex, digest_in, identity_of
from agent.install.attributes.of_files import has_capabilities, may_give_group, wanted_of
from agent.install.compare.findings import AdjustedFiles, Findings, KeptHardLink, PendingNames
from agent.install.compare.survey import UNCHANGED, UNKNOWN, Survey, look_in, names_of, states_in
from agent.install.model.failures import failed_step
from agent.install.posix.acl import ACCESS, read_acl
from agent.install.posix.copying import READ, SMALL_BYTES, read_as_long
from agent.install.records.manifest import (
    decode_record,
    digest_if_untouched,
    file_fields,
    is_as_left,
    link_fields,
)
from agent.listings import content_digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.install.attributes.of_files import Wanted
    from agent.install.attributes.of_new_directories import FreshDirectories, HandedDown
    from agent.install.compare.survey import Found
    from agent.install.model.directory import Directory
    from agent.install.model.steps import PlannedFiles
    from agent.install.posix.places import Places
    from agent.install.records.installed import PreviousFiles


class Comparer:
    """Compares planned files with what is there, one directory of them at a time.

    Args:
        previous: the files of the last Install.
        index: what is known of the archive.
        places: of the directories of the host.
        fresh: knows what they hand down.
        for_other_user: somebody else will install, so that nobody knows which group new files get.
        has_looked: the survey has seen all of the planned files, which may be a part of those in their directories, and none of
            which is as it is to be.
    """

    def __init__(
        self,
        previous: PreviousFiles,
        index: ArchiveIndex,
        places: Places,
        fresh: FreshDirectories,
        *,
        for_other_user: bool = False,
        has_looked: bool = False,
    ) -> None:
        self._previous = previous
        self._index = index
        self._places = places
        self._fresh = fresh
        self._knows_group = not for_other_user
        self._has_looked = has_looked
        self._is_root = os.geteuid() == 0

    def recognise(self, files: PlannedFiles, survey: Survey | None = None) -> tuple[Findings, list[int]]:
        """What can be told at once, and the positions of the names that `compare` has to look at.

        Args:
            files: what is planned.
            survey: may have seen it.
        """
        findings = Findings([b""] * len(files.names))
        if not files.replaces:
            return findings, []
        findings.pending = ()
        source, real = files.source_directory, files.directory.real
        if self._has_looked and survey is not None:
            return self._recognised(findings, files.names, {}, survey.of(source, real))
        known, entries = self._previous.of(real), self._index.of(source)
        if not known or not entries or not self._hands_nothing_down(files.directory):
            return findings, list(range(len(files.names)))
        if survey is not None and survey.has(source, real):
            found = survey.of(source, real)
        else:
            found = look_in(source, real, entries, known, is_root=self._is_root)
        names = names_of(entries)
        if names == files.names and not files.attributes:
            return self._recognised(findings, names, known, found)
        state_of = (
            dict.fromkeys(names, UNCHANGED)
            if found is None
            else dict(zip(names, states_in(found), strict=True))
        )
        unknown = []
        for position, name in enumerate(files.names):
            state = state_of.get(name, UNKNOWN)
            if state == UNKNOWN or name in files.attributes:
                unknown.append(position)
            elif state == UNCHANGED:
                findings.lines[position] = known[name]
                findings.unchanged += 1
            else:
                findings.note_pending(position, state)
                findings.trusts_index = True
        return findings, unknown

    def _entries_of(self, files: PlannedFiles) -> dict[bytes, bytes]:
        """Name → fields of the archive's index, of these files, and perhaps of others in their directory."""
        if self._has_looked:
            return self._index.some_of(files.source_directory, files.names)
        return self._index.of(files.source_directory)

    @staticmethod
    def _recognised(
        findings: Findings, names: list[bytes], known: dict[bytes, bytes], found: Found
    ) -> tuple[Findings, list[int]]:
        """The same where the names are those of the archive, and `permissions` gives nothing to them: in most directories."""
        if found is None:
            findings.lines = [known[name] for name in names]
            findings.unchanged = len(names)
            return findings, []
        states = states_in(found)
        unknown = [position for position, state in enumerate(states) if state == UNKNOWN]
        findings.unchanged = states.count(UNCHANGED)
        if findings.unchanged:
            findings.lines = [
                known[name] if state == UNCHANGED else b"" for name, state in zip(names, states, strict=True)
            ]
            states = array("Q", [0 if state == UNCHANGED else state for state in states])
        findings.trusts_index = len(unknown) + findings.unchanged < len(names)
        if findings.trusts_index:
            findings.pending = PendingNames(states)
        return findings, unknown

    def _hands_nothing_down(self, directory: Directory) -> bool:
        """Whether new files get no ACL there, and no other group than anywhere: then a status tells all about one."""
        try:
            handed_down = self._fresh.handed_down(directory)
        except OSError:
            return False  # a closer look will say why
        return handed_down.default_acl is None and (self._is_root or handed_down.gid == os.getegid())

    def compare(self, files: PlannedFiles, findings: Findings, unknown: Iterable[int]) -> Findings:
        """What is there already of these, and what is still to be done; nothing is changed.

        Raises:
            StepFailed: something can't be read.
        """
        position = 0
        try:
            with self.begin(files, findings) as work:
                for position in unknown:
                    work.compare(position)
        except OSError as error:
            raise failed_step(files, position, error) from error
        return findings

    def begin(self, files: PlannedFiles, findings: Findings) -> DirectoryComparison:
        """A closer look at these files; a context.

        Raises:
            OSError: one of the two directories can't be opened.
        """
        real = files.directory.real
        return DirectoryComparison(
            files,
            findings,
            known=self._previous.of(real) if files.replaces else {},
            entries=self._entries_of(files),
            handed_down=self._fresh.handed_down(files.directory),
            dir_fd=self._places.of(real),
            is_root=self._is_root,
            knows_group=self._knows_group,
        )


class DirectoryComparison:
    """The files of one directory being compared, while its descriptor is good. A context.

    Args:
        files: what is planned.
        findings: takes what is found out.
        known: name → fields of the manifest line, of what the last Install has left there.
        entries: name → fields of the archive's index.
        handed_down: what new files get from the directory where they go.
        dir_fd: of the directory where they go.
        is_root: whether owners matter.
        knows_group: whether groups matter.

    Attributes:
        entries: as above.
        source_fd: of the directory of the archive.
        dir_fd: as above; to be set anew by whoever has made it another one.
    """

    def __init__(
        self,
        files: PlannedFiles,
        findings: Findings,
        *,
        known: dict[bytes, bytes],
        entries: dict[bytes, bytes],
        handed_down: HandedDown,
        dir_fd: int,
        is_root: bool,
        knows_group: bool,
    ) -> None:
        self._files = files
        self._findings = findings
        self._known = known
        self.entries = entries
        self._handed_down = handed_down
        self.dir_fd = dir_fd
        self._is_root = is_root
        self._knows_group = knows_group
        self.source_fd = os.open(files.source_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> DirectoryComparison:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self.source_fd)

    def wanted(self, name: bytes, source: os.stat_result) -> Wanted:
        """What the file or link is to have; `source` is its status in the archive."""
        attributes = self._files.attributes.get(name)
        wanted = wanted_of(source, attributes, self._handed_down, is_root=self._is_root)
        return wanted if self._knows_group else wanted._replace(gid=None)

    def digest_of_source(self, name: bytes, source: os.stat_result) -> bytes | None:
        """Digest of a file of the archive, if it is untouched since the archive was made."""
        return digest_in(self.entries.get(name), identity_of(source))

    def compare(self, position: int) -> None:
        """Find out about one name."""
        name = self._files.names[position]
        there = self.status(name) if self._files.may_replace(name) else None
        if there is None:
            self._findings.note_pending(position, 0)
            return
        if self.is_there(position, name, there):
            return
        if stat.S_ISDIR(there.st_mode) and name in self._known:
            raise OSError(errno.EISDIR, "somebody has put a directory in the place of this file")
        if self._is_changed(name, there):
            self._findings.overwritten.append(position)
        self._findings.note_pending(position, there.st_ino)

    def _is_changed(self, name: bytes, there: os.stat_result) -> bool:
        """Whether somebody has changed what the previous Install has left there."""
        fields = self._known.get(name, b"")
        if not fields or digest_if_untouched(fields, there):
            return False
        try:
            return not is_as_left(name, there, decode_record(fields), dir_fd=self.dir_fd)
        except OSError:
            return True

    def is_there(self, position: int, name: bytes, there: os.stat_result) -> bool:
        """Whether the file or link is there already; only its attributes may have to be adjusted."""
        source = os.stat(name, dir_fd=self.source_fd, follow_symlinks=False)
        if name in self._files.links:
            return self._is_same_link(position, name, source, there)
        is_same = self._is_same(position, name, source, there)
        if is_same and source.st_nlink > 1:
            kept = KeptHardLink(position, source.st_ino, source.st_nlink, there.st_ino)
            self._findings.kept_hard_links.append(kept)
        return is_same

    def _is_same(self, position: int, name: bytes, source: os.stat_result, there: os.stat_result) -> bool:
        """Whether the file is there already; only its attributes may have to be adjusted."""
        fields = self._known.get(name, b"")
        wanted = self.wanted(name, source)
        digest = self.digest_of_source(name, source)
        may_have_acl = wanted.access_acl is not None or not fields.endswith(b" -")
        if (
            digest
            and not may_have_acl
            and wanted.is_met_by(there)
            and there.st_nlink == source.st_nlink
            and digest == digest_if_untouched(fields, there)
        ):
            # The usual case: nothing has been read.
            self._findings.lines[position] = fields
            self._findings.unchanged += 1
            return True
        if (
            not stat.S_ISREG(there.st_mode)
            or not stat.S_ISREG(source.st_mode)
            or there.st_size != source.st_size
            # Which names are one file must be as in the archive: as soon as somebody writes to one, it shows.
            or there.st_nlink != source.st_nlink
        ):
            return False
        try:
            same = self._same_digest(name, source.st_size, fields, there, digest)
        except PermissionError:
            return False  # what can't be read can still be replaced
        if same is None:
            return False
        return self._keep(position, name, there, wanted, same)

    def _same_digest(
        self, name: bytes, size: int, fields: bytes, there: os.stat_result, digest: bytes | None
    ) -> bytes | None:
        """The digest of both contents if they are the same, empty when they are large; None if they are not."""
        known = digest_if_untouched(fields, there)
        if known and (digest or size <= SMALL_BYTES):
            return known if known == (digest or _digest_of(name, size, self.source_fd)) else None
        if size <= SMALL_BYTES:
            mine = digest or _digest_of(name, size, self.source_fd)
            return mine if _digest_of(name, size, self.dir_fd) == mine else None
        return (digest or b"") if _are_equal(name, self.source_fd, self.dir_fd) else None

    def _keep(self, position: int, name: bytes, there: os.stat_result, wanted: Wanted, digest: bytes) -> bool:
        """Leave the file, and note what has to be adjusted. False when that is not possible in place."""
        try:
            descriptor = os.open(name, READ, dir_fd=self.dir_fd)
        except PermissionError:
            return False
        try:
            acl = read_acl(descriptor, ACCESS)
            if acl == wanted.access_acl and wanted.is_met_by(there):
                self._findings.unchanged += 1
                self._findings.lines[position] = file_fields(there, digest, has_acl=acl is not None)
                return True
            if there.st_nlink > 1:
                return False  # its other names are none of our business
            if not wanted.can_adjust(there, acl):
                return False
            if wanted.changes_group(there) and (
                has_capabilities(descriptor) or not may_give_group(wanted.gid)
            ):
                return False  # they would go, and could not be put back; a fresh file has the group already
        finally:
            os.close(descriptor)
        self._findings.unchanged += 1
        adjusted = self._findings.adjusted
        if not isinstance(adjusted, AdjustedFiles):
            adjusted = self._findings.adjusted = AdjustedFiles(self._files.directory.real, self._files.names)
        adjusted.append(position, there, acl, digest, new_mtime_ns=wanted.mtime_ns)
        return True

    def _is_same_link(
        self, position: int, name: bytes, source: os.stat_result, there: os.stat_result
    ) -> bool:
        wanted = self.wanted(name, source)
        if not stat.S_ISLNK(there.st_mode) or not wanted.is_met_by_link(there):
            return False
        target = os.readlink(name, dir_fd=self.source_fd)
        if os.readlink(name, dir_fd=self.dir_fd) != target:
            return False
        self._findings.lines[position] = link_fields(there, target)
        self._findings.unchanged += 1
        return True

    def status(self, name: bytes) -> os.stat_result | None:
        """Of what is there now; None when nothing is."""
        try:
            return os.stat(name, dir_fd=self.dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None  # it has gone since it was planned for


def _digest_of(name: bytes, size: int, dir_fd: int) -> bytes:
    """Digest of a small file that has had this size."""
    descriptor = os.open(name, READ, dir_fd=dir_fd)
    try:
        return content_digest(read_as_long(descriptor, size))
    finally:
        os.close(descriptor)


def _are_equal(name: bytes, one_fd: int, other_fd: int) -> bool:
    """Whether the files of this name in two directories, which are of the same size, have the same content."""
    with (
        open(os.open(name, READ, dir_fd=one_fd), "rb", buffering=0) as one,
        open(os.open(name, READ, dir_fd=other_fd), "rb", buffering=0) as other,
    ):
        while piece := one.read(SMALL_BYTES):
            if other.read(SMALL_BYTES) != piece:
                return False
    return True

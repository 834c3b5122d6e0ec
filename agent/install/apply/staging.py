"""Making files ready: copies wait under hidden names."""

from __future__ import annotations

import errno
import os
import stat
from stat import S_IFREG
from typing import TYPE_CHECKING, NamedTuple

from agent.files import write_all
from agent.install.attributes.of_files import BITS, copy_link
from agent.install.journal.names import new_name
from agent.install.model.directory import Standing
from agent.install.model.failures import failed_step
from agent.install.model.moments import Moment
from agent.install.posix.acl import ACCESS, read_acl
from agent.install.posix.copying import CREATE, PAGE_BYTES, READ, SMALL_BYTES, copy_content, has_holes
from agent.install.records.manifest import file_fields, link_fields
from agent.listings import stream_digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.install.attributes.of_new_directories import FreshDirectories, HandedDown
    from agent.install.compare.comparer import Comparer, DirectoryComparison
    from agent.install.compare.findings import Findings
    from agent.install.model.attributes import Attributes
    from agent.install.model.moments import Observer
    from agent.install.model.steps import PlannedFiles
    from agent.install.posix.places import Places


_PLAINEST = S_IFREG | 0o777
_ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_COPY, _LINK = Moment.COPY, Moment.LINK  # looked up once: there may be 100,000 files


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
        self._is_root = os.geteuid() == 0

    def stage(self, files: PlannedFiles, findings: Findings) -> Findings:
        """Make what is to be done ready under hidden names, and change nothing else.

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
            with self._begin(files, findings) as work:
                work.stage(pending)
        except OSError as error:
            raise failed_step(files, 0 if work is None else work.position, error) from error
        return findings

    def stage_hard_links(self, files: PlannedFiles, findings: Findings, links: HardLinks) -> None:
        """Stage what `stage` has left: files with several names in the archive have several names again.

        Raises:
            StepFailed: the rest was not tried.
        """
        position = 0
        try:
            with self._begin(files, findings) as work:
                for position in findings.hard_links:
                    work.stage_hard_links(position, links)
        except OSError as error:
            raise failed_step(files, position, error) from error

    def _begin(self, files: PlannedFiles, findings: Findings) -> _Staging:
        return _Staging(
            files,
            findings,
            self._comparer.begin(files, findings),
            token=self._token,
            places=self._places,
            fresh=self._fresh,
            observer=self._observe,
            is_root=self._is_root,
        )


class _FirstName(NamedTuple):
    """Where the first of several names of a file is, and what is known of it."""

    real: bytes
    name: bytes
    inode: int
    attributes: Attributes | None
    handed_down: HandedDown
    digest: bytes
    has_acl: bool


class HardLinks:
    """The files of the archive that have several names, as far as they are staged."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], _FirstName] = {}

    def first(self, source: os.stat_result) -> _FirstName | None:
        return self._first.get((source.st_dev, source.st_ino))

    def enter(self, source: os.stat_result, first: _FirstName) -> None:
        self._first.setdefault((source.st_dev, source.st_ino), first)


class _Staging:
    """The files of one directory being staged. A context.

    Attributes:
        position: of the name that `stage` is at.
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
        observer: Observer,
        is_root: bool,
    ) -> None:
        self._files = files
        self._findings = findings
        self._comparison = comparison
        self._source_fd = comparison.source_fd
        self._real, self._prefix = files.directory.real, files.prefix
        self._places = places
        self._dir_fd = places.of(self._real)
        self._token = token
        self._observe = observer
        self._is_root = is_root
        self._handed_down = fresh.handed_down(files.directory)
        # Whether new files have just what they are made with.
        self._is_plain = self._handed_down.default_acl is None and self._real not in fresh.differing
        self._is_new = files.directory.standing is Standing.NEW
        self._entries = comparison.entries
        self._owner = 0, self._handed_down.gid  # that root makes new files with
        self.position = 0

    def __enter__(self) -> _Staging:
        return self

    def __exit__(self, *exception: object) -> None:
        self._comparison.__exit__(*exception)

    def stage(self, pending: Iterable[tuple[int, int]]) -> None:
        """Stage these names: position, and inode of what it replaces, of each. Of those that have others, it is noted."""
        names, links, source_fd, open_file = self._files.names, self._files.links, self._source_fd, os.open
        is_plain = self._is_plain and not self._files.attributes
        for position, inode in pending:
            self.position = position
            name = names[position]
            if name in links:
                self._stage_link(position, name, inode)
                continue
            descriptor = open_file(name, READ, dir_fd=source_fd)
            try:
                if not is_plain or not self._copy_plain(position, name, descriptor, inode):
                    self._stage_file(position, name, descriptor, inode)
            finally:
                os.close(descriptor)

    def _copy_plain(self, position: int, name: bytes, descriptor: int, inode: int) -> bool:
        """Copy the open file if it is a small one, as it was when it was unpacked, and gets no mode, owner or ACL from elsewhere.

        Nearly all are, and there may be 100,000: so nothing is called or made here that need not be. False when it is
        another one; then nothing was done.
        """
        source = os.fstat(descriptor)
        size, mode, mtime_ns = source.st_size, source.st_mode, source.st_mtime_ns
        identity = b"%d %d %d %d " % (source.st_ino, size, mtime_ns, source.st_ctime_ns)
        fields = self._entries.get(name, b"")
        if (
            not fields.startswith(identity)
            or not S_IFREG <= mode <= _PLAINEST
            or source.st_nlink > 1
            or size > SMALL_BYTES
            or (size > PAGE_BYTES and has_holes(source))
        ):
            return False
        content = os.read(descriptor, size + 1)
        if len(content) != size:
            os.lseek(descriptor, 0, os.SEEK_SET)
            return False
        self._observe(Moment.COPY, self._prefix + name)
        place = name if self._is_new else new_name(self._token, self._files.number + position)
        target = os.open(place, CREATE, mode & 0o777, dir_fd=self._dir_fd)
        try:
            write_all(target, content)
            os.utime(target, ns=(source.st_atime_ns, mtime_ns))
            written = self._given_owner(target, source)
        finally:
            os.close(target)
        self._findings.copied_bytes += size
        self._note(position, inode, written, fields[len(identity) :], has_acl=False)
        return True

    def _stage_file(self, position: int, name: bytes, descriptor: int, inode: int) -> None:
        """Stage an open file, or note that it has other names."""
        source = os.fstat(descriptor)
        if not stat.S_ISREG(source.st_mode):
            raise OSError(errno.EINVAL, "it is no longer a file in the archive")
        if source.st_nlink > 1:
            self._findings.hard_links.append(position)
            return
        digest = self._comparison.digest_of_source(name, source)
        if (
            digest is None
            and inode
            and self._findings.trusts_index
            and self._is_there_after_all(position, name)
        ):
            return
        self._copy(position, name, descriptor, source, inode, digest=digest)

    def _is_there_after_all(self, position: int, name: bytes) -> bool:
        """Whether a file that somebody has changed in the archive is like what is there now."""
        there = self._comparison.status(name)
        return there is not None and self._comparison.is_there(position, name, there)

    def _copy(
        self,
        position: int,
        name: bytes,
        descriptor: int,
        source: os.stat_result,
        inode: int,
        *,
        digest: bytes | None,
    ) -> tuple[int, bytes, bool]:
        """Copy the open file; the inode of the copy, its digest, and whether it has an ACL."""
        self._observe(_COPY, self._prefix + name)
        attributes = self._files.attributes.get(name)
        mode = source.st_mode & BITS
        place = name if self._is_new else new_name(self._token, self._files.number + position)
        is_plain = self._is_plain and attributes is None
        # Nobody else may open it before owner and mode are right.
        target = os.open(place, CREATE, mode & 0o777 if is_plain else 0o600, dir_fd=self._dir_fd)
        try:
            digest = copy_content(descriptor, source, target, digest)
            os.utime(target, ns=(source.st_atime_ns, source.st_mtime_ns))
            if is_plain and mode <= 0o777:
                has_acl = False
                status = self._given_owner(target, source)
            else:
                has_acl = self._give(target, name, source)
                status = os.fstat(target)
        finally:
            os.close(target)
        self._findings.copied_bytes += source.st_size
        self._note(position, inode, status, digest, has_acl=has_acl)
        return status.st_ino, digest, has_acl

    def _given_owner(self, target: int, source: os.stat_result) -> os.stat_result:
        """Give a fresh copy the owner and group that it has in the archive; its status then."""
        if not self._is_root:
            return os.fstat(target)
        owner = source.st_uid, source.st_gid
        if owner != self._owner:
            os.fchown(target, *owner)
        status = os.fstat(target)
        if (status.st_uid, status.st_gid) == owner:
            return status
        # Some file systems give the directory's group to each new file.
        os.fchown(target, *owner)
        return os.fstat(target)

    def _give(self, target: int, name: bytes, source: os.stat_result) -> bool:
        """Give a fresh copy what it lacks; whether it has an ACL now."""
        wanted = self._comparison.wanted(name, source)
        wanted.give(target, os.fstat(target), None if self._is_plain else read_acl(target, ACCESS))
        return wanted.access_acl is not None

    def _note(
        self, position: int, old_inode: int, written: os.stat_result, digest: bytes, *, has_acl: bool
    ) -> None:
        """Note that a file is ready."""
        findings = self._findings
        if old_inode:
            findings.replaced += 1
        else:
            findings.created += 1
        if self._is_new:
            findings.lines[position] = file_fields(written, digest, has_acl=has_acl)
        else:
            findings.note_new(position, written.st_ino, old_inode, digest, is_link=False, has_acl=has_acl)

    def _stage_link(self, position: int, name: bytes, inode: int) -> None:
        source = os.stat(name, dir_fd=self._source_fd, follow_symlinks=False)
        target = os.readlink(name, dir_fd=self._source_fd)
        wanted = self._comparison.wanted(name, source)
        self._observe(_LINK, self._prefix + name)
        place = name if self._is_new else new_name(self._token, self._files.number + position)
        status = copy_link(target, place, self._dir_fd, wanted)
        if inode:
            self._findings.replaced += 1
        else:
            self._findings.created += 1
        if self._is_new:
            self._findings.lines[position] = link_fields(status, target)
        else:
            self._findings.note_new(position, status.st_ino, inode, target, is_link=True, has_acl=False)

    def stage_hard_links(self, position: int, links: HardLinks) -> None:
        """Stage a name of a file that has several: the first is copied, the others are linked to it."""
        name = self._files.names[position]
        there = self._comparison.status(name) if self._files.may_replace(name) else None
        inode = 0 if there is None else there.st_ino
        attributes = self._files.attributes.get(name)
        place = name if self._is_new else new_name(self._token, self._files.number + position)
        descriptor = os.open(name, READ, dir_fd=self._source_fd)
        try:
            source = os.fstat(descriptor)
            first = links.first(source)
            if (
                first is None
                or first.attributes is not attributes
                or first.handed_down != self._handed_down
                or not self._linked(first, place)
            ):
                known = self._comparison.digest_of_source(name, source)
                if known is None and source.st_size > SMALL_BYTES:
                    # The end of one name changes the others' ctime: without a digest, they would not count as ours.
                    known = _digest_of_all(descriptor)
                inode_of_copy, digest, has_acl = self._copy(
                    position, name, descriptor, source, inode, digest=known
                )
                first = _FirstName(
                    self._real, place, inode_of_copy, attributes, self._handed_down, digest, has_acl
                )
                links.enter(source, first)
                return
        finally:
            os.close(descriptor)
        status = os.stat(place, dir_fd=self._dir_fd, follow_symlinks=False)
        self._note(position, inode, status, first.digest, has_acl=first.has_acl)

    def _linked(self, first: _FirstName, place: bytes) -> bool:
        """Give the first one's file another name; False where that is impossible, or would trust others.

        Whoever may write to the first one's directory may have put another file there. So it only gets a name where the
        same users may write, and by a descriptor that has been looked at.
        """
        # The descriptor of this directory must outlive the look-up of the other one.
        target_fd = os.dup(self._dir_fd)
        try:
            if self._places.writers(first.real) != self._places.writers(self._real):
                return False
            file_fd = os.open(first.name, _ITSELF, dir_fd=self._places.of(first.real))
            try:
                if os.fstat(file_fd).st_ino != first.inode:
                    return False
                os.link(f"/proc/self/fd/{file_fd}", place, dst_dir_fd=target_fd, follow_symlinks=True)
            finally:
                os.close(file_fd)
        except OSError as error:
            if error.errno in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOENT}:
                return False
            raise
        finally:
            os.close(target_fd)
            self._dir_fd = self._comparison.dir_fd = self._places.of(self._real)
        return True


def _digest_of_all(descriptor: int) -> bytes:
    """Digest of the content of an open file, which is read from its beginning again afterwards."""
    with open(descriptor, "rb", buffering=0, closefd=False) as stream:
        digest = stream_digest(stream)
        stream.seek(0)
    return digest

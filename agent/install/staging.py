"""Making files ready: those that are there already are found out, the others copied under hidden names."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.archive_index import digest_in, identity_of
from agent.install.acl import ACCESS, read_acl
from agent.install.copying import CREATE, READ, SMALL_BYTES, copy_content, copy_link, read_small
from agent.install.destinations import Standing
from agent.install.entries import new_name
from agent.install.records import decode_record, digest_if_untouched, file_fields, link_fields
from agent.install.removals import is_as_left
from agent.install.staged import AdjustedFiles, LinkedName, Staged, Todo, failed_step
from agent.install.survey import UNCHANGED, UNKNOWN, look_in, names_of, states_in
from agent.install.wanted import BITS, Wanted, has_capabilities, wanted_of
from agent.listings import content_digest, stream_digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.archive_index import ArchiveIndex
    from agent.install.attributes import Attributes
    from agent.install.descriptors import Descriptors
    from agent.install.planned import PlannedFiles
    from agent.install.previous import PreviousFiles
    from agent.install.request import Observer
    from agent.install.survey import Survey


class Stager:
    """Stages planned files, one directory of them at a time. The umask of the process must be 0."""

    def __init__(
        self,
        previous: PreviousFiles,
        index: ArchiveIndex,
        token: bytes,
        descriptors: Descriptors,
        observer: Observer,
    ) -> None:
        self._previous = previous
        self._index = index
        self._token = token
        self._descriptors = descriptors
        self._observe = observer
        self._is_root = os.geteuid() == 0

    def recognise(self, files: PlannedFiles, survey: Survey | None = None) -> tuple[Staged, list[int]]:
        """What can be told at once, and the positions of the names that `compare` has to look at.

        Args:
            files: what is planned.
            survey: may have seen it.
        """
        staged = Staged([b""] * len(files.names))
        if not files.replaces:
            return staged, []
        staged.todo = ()
        source, real = files.source_directory, files.directory.real
        known, entries = self._previous.of(real), self._index.of(source)
        if not known or not entries:
            return staged, list(range(len(files.names)))
        if survey is not None and survey.has(source, real):
            found = survey.of(source, real)
        else:
            found = look_in(source, real, entries, known, is_root=self._is_root)
        names, attributes = names_of(entries), files.attributes
        if found is None and names == files.names and not attributes:
            staged.lines = [known[name] for name in names]
            staged.unchanged = len(names)
            return staged, []
        if found is not None and names == files.names and not attributes:
            states = states_in(found)
            if not (states.count(UNKNOWN) or states.count(UNCHANGED)):
                staged.todo, staged.is_guess = Todo(states), True
                return staged, []
        state_of = (
            dict.fromkeys(names, UNCHANGED)
            if found is None
            else dict(zip(names, states_in(found), strict=True))
        )
        unknown = []
        for position, name in enumerate(files.names):
            state = state_of.get(name, UNKNOWN)
            if state == UNKNOWN or name in attributes:
                unknown.append(position)
            elif state == UNCHANGED:
                staged.lines[position] = known[name]
                staged.unchanged += 1
            else:
                staged.note_todo(position, state)
                staged.is_guess = True
        return staged, unknown

    def compare(self, files: PlannedFiles, staged: Staged, unknown: Iterable[int]) -> Staged:
        """What is there already of these, and what is still to be done; nothing is changed.

        Raises:
            StepFailed: something can't be read.
        """
        position = 0
        try:
            with _Directory(self, files, staged) as work:
                for position in unknown:
                    work.compare(position)
        except OSError as error:
            raise failed_step(files, position, error) from error
        return staged

    def stage(self, files: PlannedFiles, staged: Staged) -> Staged:
        """Afterwards what is to be done waits under hidden names, and nothing else has changed.

        Args:
            files: what is planned.
            staged: what `compare` has found.

        Raises:
            StepFailed: the rest was not tried.
        """
        position = 0
        todo = ((number, 0) for number in range(len(files.names))) if staged.todo is None else staged.todo
        try:
            with _Directory(self, files, staged) as work:
                for position, inode in todo:
                    work.stage(position, inode)
        except OSError as error:
            raise failed_step(files, position, error) from error
        return staged

    def stage_linked(self, files: PlannedFiles, staged: Staged, links: Links) -> None:
        """Stage what `stage` has left: files with several names in the archive have several names again.

        Raises:
            StepFailed: the rest was not tried.
        """
        position = 0
        try:
            with _Directory(self, files, staged) as work:
                for position in staged.linked:
                    work.stage_linked(position, links)
        except OSError as error:
            raise failed_step(files, position, error) from error


class _FirstName(NamedTuple):
    """Where the first of several names of a file is, and what is known of it."""

    real: bytes
    name: bytes
    attributes: Attributes | None
    digest: bytes


class Links:
    """The files of the archive that have several names, as far as they are staged."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], _FirstName] = {}

    def first(self, source: os.stat_result) -> _FirstName | None:
        return self._first.get((source.st_dev, source.st_ino))

    def enter(self, source: os.stat_result, first: _FirstName) -> None:
        self._first.setdefault((source.st_dev, source.st_ino), first)


class _Directory:
    """The files of one directory being staged."""

    def __init__(self, stager: Stager, files: PlannedFiles, staged: Staged) -> None:
        self._files = files
        self._staged = staged
        self._real, self._prefix = files.directory.real, files.prefix
        self._descriptors = stager._descriptors  # noqa: SLF001 - one class in two parts
        self._dir_fd = self._descriptors.of(self._real)
        self._token = stager._token  # noqa: SLF001
        self._observe = stager._observe  # noqa: SLF001
        self._is_root = stager._is_root  # noqa: SLF001
        self._is_new = files.directory.standing is Standing.NEW
        self._known = stager._previous.of(self._real) if files.replaces else {}  # noqa: SLF001
        self._entries = stager._index.of(files.source_directory)  # noqa: SLF001
        self._owner: tuple[int, int] | None = None
        self._source_fd = os.open(files.source_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> _Directory:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._source_fd)

    def compare(self, position: int) -> None:
        """Find out about one name."""
        name = self._files.names[position]
        there = self._status(name) if self._files.may_replace(name) else None
        if there is None:
            self._staged.note_todo(position, 0)
            return
        if self._is_there(position, name, there):
            return
        if stat.S_ISDIR(there.st_mode) and name in self._known:
            raise OSError(errno.EISDIR, "somebody has put a directory in the place of this file")
        if self._is_changed(name, there):
            self._staged.overwritten.append(position)
        self._staged.note_todo(position, there.st_ino)

    def _is_changed(self, name: bytes, there: os.stat_result) -> bool:
        """Whether somebody has changed what the previous Install has left there."""
        fields = self._known.get(name, b"")
        if not fields or digest_if_untouched(fields, there):
            return False
        try:
            return not is_as_left(name, there, decode_record(fields), dir_fd=self._dir_fd)
        except OSError:
            return True

    def stage(self, position: int, inode: int) -> None:
        """Stage one name, or note that it has others; `inode` of what it replaces."""
        name = self._files.names[position]
        if name in self._files.links:
            self._stage_link(position, name, inode)
        else:
            self._stage_file(position, name, inode)

    def _is_there(self, position: int, name: bytes, there: os.stat_result) -> bool:
        """Whether the file or link is there already; only its attributes may have to be adjusted."""
        source = os.stat(name, dir_fd=self._source_fd, follow_symlinks=False)
        if name in self._files.links:
            return self._is_same_link(position, name, source, there)
        is_same = self._is_same(position, name, source, there)
        if is_same and source.st_nlink > 1:
            linked = LinkedName(position, source.st_ino, source.st_nlink, there.st_ino)
            self._staged.kept_links.append(linked)
        return is_same

    def _is_same(self, position: int, name: bytes, source: os.stat_result, there: os.stat_result) -> bool:
        """Whether the file is there already; only its attributes may have to be adjusted."""
        fields = self._known.get(name, b"")
        wanted = wanted_of(source, self._files.attributes.get(name), is_root=self._is_root)
        digest = digest_in(self._entries.get(name), identity_of(source))
        has_acl = bool(wanted.access_acl) or not fields.endswith(b" -")
        if (
            digest
            and not has_acl
            and wanted.is_met_by(there)
            and there.st_nlink == source.st_nlink
            and digest == digest_if_untouched(fields, there)
        ):
            # The usual case: nothing has been read.
            self._staged.lines[position] = fields
            self._staged.unchanged += 1
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
        # An ACL that we have not given, such as one inherited from the directory, is none of our business.
        return self._keep(position, name, there, wanted, same, has_own_acl=fields.endswith(b" a"))

    def _same_digest(
        self, name: bytes, size: int, fields: bytes, there: os.stat_result, digest: bytes | None
    ) -> bytes | None:
        """The digest of both contents if they are the same, empty when they are large; None if they are not."""
        known = digest_if_untouched(fields, there)
        if known and (digest or size <= SMALL_BYTES):
            return known if known == (digest or self._digest_of(name, self._source_fd)) else None
        if size <= SMALL_BYTES:
            mine = digest or self._digest_of(name, self._source_fd)
            return mine if self._digest_of(name, self._dir_fd) == mine else None
        return (digest or b"") if self._are_equal(name) else None

    def _digest_of(self, name: bytes, dir_fd: int) -> bytes:
        descriptor = os.open(name, READ, dir_fd=dir_fd)
        try:
            return content_digest(read_small(descriptor, os.fstat(descriptor).st_size))
        finally:
            os.close(descriptor)

    def _are_equal(self, name: bytes) -> bool:
        with (
            open(os.open(name, READ, dir_fd=self._source_fd), "rb", buffering=0) as one,
            open(os.open(name, READ, dir_fd=self._dir_fd), "rb", buffering=0) as other,
        ):
            while piece := one.read(SMALL_BYTES):
                if other.read(SMALL_BYTES) != piece:
                    return False
        return True

    def _keep(
        self,
        position: int,
        name: bytes,
        there: os.stat_result,
        wanted: Wanted,
        digest: bytes,
        *,
        has_own_acl: bool,
    ) -> bool:
        """Leave the file, and note what has to be adjusted. False when that is not possible in place."""
        try:
            descriptor = os.open(name, READ, dir_fd=self._dir_fd)
        except PermissionError:
            return False
        try:
            acl = read_acl(descriptor, ACCESS)
            if has_own_acl or wanted.access_acl:
                is_met = acl == wanted.access_acl and wanted.is_met_by(there)
            else:
                is_met = wanted._replace(access_acl=acl).is_met_by(there)
            if is_met:
                self._staged.unchanged += 1
                self._staged.lines[position] = file_fields(
                    there, digest, has_acl=wanted.access_acl is not None
                )
                return True
            if there.st_nlink > 1:
                return False  # its other names are none of our business
            if wanted.changes_owner(there) and has_capabilities(descriptor):
                return False  # they would go, and could not be put back
        finally:
            os.close(descriptor)
        self._staged.unchanged += 1
        adjusted = self._staged.adjusted
        if not isinstance(adjusted, AdjustedFiles):
            adjusted = self._staged.adjusted = AdjustedFiles(self._real, self._files.names)
        adjusted.append(position, there, acl, digest, has_own_acl=has_own_acl)
        return True

    def _stage_file(self, position: int, name: bytes, inode: int) -> None:
        descriptor = os.open(name, READ, dir_fd=self._source_fd)
        try:
            source = os.fstat(descriptor)
            if not stat.S_ISREG(source.st_mode):
                raise OSError(errno.EINVAL, "it is no longer a file in the archive")
            if source.st_nlink > 1:
                self._staged.linked.append(position)
                return
            digest = digest_in(self._entries.get(name), identity_of(source))
            if (
                digest is None
                and inode
                and self._staged.is_guess
                and self._is_there_after_all(position, name)
            ):
                return
            self._copy(position, name, descriptor, source, inode, digest=digest)
        finally:
            os.close(descriptor)

    def _is_there_after_all(self, position: int, name: bytes) -> bool:
        """Whether a file that somebody has changed in the archive is like what is there now."""
        there = self._status(name)
        return there is not None and self._is_there(position, name, there)

    def _copy(
        self,
        position: int,
        name: bytes,
        descriptor: int,
        source: os.stat_result,
        inode: int,
        *,
        digest: bytes | None,
    ) -> bytes:
        """Copy the open file; its digest."""
        self._observe("copy", self._prefix + name)
        attributes = self._files.attributes.get(name)
        mode = source.st_mode & BITS
        place = name if self._is_new else new_name(self._token, self._files.number + position)
        # Nobody else may open it before owner and mode are right.
        target = os.open(place, CREATE, 0o600 if attributes else mode & 0o777, dir_fd=self._dir_fd)
        try:
            digest = copy_content(descriptor, source, target, digest)
            os.utime(target, ns=(source.st_atime_ns, source.st_mtime_ns))
            has_acl = self._give(target, source, attributes, mode)
            status = os.fstat(target)
            if attributes is None and status.st_mode & BITS != mode:
                # The directory has a default ACL.
                os.fchmod(target, mode)
                status = os.fstat(target)
        finally:
            os.close(target)
        if self._is_new:
            self._staged.lines[position] = file_fields(status, digest, has_acl=has_acl)
        self._staged.copied_bytes += source.st_size
        self._count(position, status.st_ino, inode, digest, has_acl=has_acl)
        return digest

    def _give(self, target: int, source: os.stat_result, attributes: Attributes | None, mode: int) -> bool:
        """Give a fresh copy what it lacks; whether it has an ACL now."""
        if self._owner is None:
            status = os.fstat(target)
            self._owner = (status.st_uid, status.st_gid)
        if attributes is None and mode <= 0o777:
            if self._is_root and (source.st_uid, source.st_gid) != self._owner:
                os.fchown(target, source.st_uid, source.st_gid)
            return False
        wanted = wanted_of(source, attributes, is_root=self._is_root)
        wanted.give(target, os.fstat(target), None)
        return wanted.access_acl is not None

    def _count(self, position: int, inode: int, old_inode: int, digest: bytes, *, has_acl: bool) -> None:
        if old_inode:
            self._staged.replaced += 1
        else:
            self._staged.created += 1
        if not self._is_new:
            self._staged.note_new(position, inode, old_inode, digest, is_link=False, has_acl=has_acl)

    def _stage_link(self, position: int, name: bytes, inode: int) -> None:
        source = os.stat(name, dir_fd=self._source_fd, follow_symlinks=False)
        target = os.readlink(name, dir_fd=self._source_fd)
        wanted = wanted_of(source, self._files.attributes.get(name), is_root=self._is_root)
        self._observe("link", self._prefix + name)
        place = name if self._is_new else new_name(self._token, self._files.number + position)
        status = copy_link(target, place, self._dir_fd, wanted)
        if inode:
            self._staged.replaced += 1
        else:
            self._staged.created += 1
        if self._is_new:
            self._staged.lines[position] = link_fields(status, target)
        else:
            self._staged.note_new(position, status.st_ino, inode, target, is_link=True, has_acl=False)

    def _is_same_link(
        self, position: int, name: bytes, source: os.stat_result, there: os.stat_result
    ) -> bool:
        wanted = wanted_of(source, self._files.attributes.get(name), is_root=self._is_root)
        if not stat.S_ISLNK(there.st_mode) or not wanted.is_met_by_link(there):
            return False
        target = os.readlink(name, dir_fd=self._source_fd)
        if os.readlink(name, dir_fd=self._dir_fd) != target:
            return False
        self._staged.lines[position] = link_fields(there, target)
        self._staged.unchanged += 1
        return True

    def _status(self, name: bytes) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None  # it has gone since it was planned for

    def stage_linked(self, position: int, links: Links) -> None:
        """Stage a name of a file that has several: the first is copied, the others are linked to it."""
        name = self._files.names[position]
        there = self._status(name) if self._files.may_replace(name) else None
        inode = 0 if there is None else there.st_ino
        attributes = self._files.attributes.get(name)
        place = name if self._is_new else new_name(self._token, self._files.number + position)
        descriptor = os.open(name, READ, dir_fd=self._source_fd)
        try:
            source = os.fstat(descriptor)
            first = links.first(source)
            if first is None or first.attributes is not attributes or not self._linked(first, place):
                known = digest_in(self._entries.get(name), identity_of(source))
                if known is None and source.st_size > SMALL_BYTES:
                    # The end of one name changes the others' ctime: without a digest, they would not count as ours.
                    known = _digest_of_all(descriptor)
                digest = self._copy(position, name, descriptor, source, inode, digest=known)
                links.enter(source, _FirstName(self._real, place, attributes, digest))
                return
        finally:
            os.close(descriptor)
        has_acl = attributes is not None and bool(attributes.access_acl)
        status = os.stat(place, dir_fd=self._dir_fd, follow_symlinks=False)
        self._count(position, status.st_ino, inode, first.digest, has_acl=has_acl)
        if self._is_new:
            self._staged.lines[position] = file_fields(status, first.digest, has_acl=has_acl)

    def _linked(self, first: _FirstName, place: bytes) -> bool:
        """Give the first one's file another name; False where the file system can't."""
        # The descriptor of this directory must outlive the look-up of the other one.
        target_fd = os.dup(self._dir_fd)
        try:
            source_fd = self._descriptors.of(first.real)
            os.link(first.name, place, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}:
                return False
            raise
        finally:
            os.close(target_fd)
            self._dir_fd = self._descriptors.of(self._real)
        return True


def _digest_of_all(descriptor: int) -> bytes:
    """Digest of the content of an open file, which is read from its beginning again afterwards."""
    with open(descriptor, "rb", buffering=0, closefd=False) as stream:
        digest = stream_digest(stream)
        stream.seek(0)
    return digest

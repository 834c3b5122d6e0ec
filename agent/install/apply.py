"""Carrying out a plan: everything is made ready under hidden names first, then takes its place."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from agent.archive_index import ArchiveIndex
from agent.install.acl import ACCESS, DEFAULT, encode_acl, read_acl, write_acl
from agent.install.copying import READ
from agent.install.descriptors import sync_file_systems
from agent.install.destinations import Directory, Standing
from agent.install.journal import (
    Adjustment,
    Change,
    Hiding,
    Label,
    Leftover,
    LeftoverDirectory,
    LeftoverLabel,
    Touched,
    encode,
    encode_changes,
    new_name,
    old_name,
)
from agent.install.lanes import MIN_FILES, do_all
from agent.install.plan import PlannedDirectory, PlannedFiles
from agent.install.records import decode_record, file_fields, link_fields
from agent.install.renames import Renames
from agent.install.selinux import add_label
from agent.install.staging import Links, NewFiles, Staged, Stager, StepFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.install.attributes import Attributes
    from agent.install.descriptors import Descriptors
    from agent.install.journal import Entry
    from agent.install.plan import InstallPlan
    from agent.install.request import InstallRequest, Observer
    from agent.install.staging import Adjusted, NewFile

CREATED_DIRECTORY_MODE = 0o755
_NO_HARD_LINK = frozenset({errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})


class Application:
    """One plan being carried out, for one use.

    Attributes:
        staged: what has become of each of the planned files.
        directories_created: number of directories.
    """

    def __init__(
        self,
        plan: InstallPlan,
        request: InstallRequest,
        token: bytes,
        descriptors: Descriptors,
        observer: Observer,
    ) -> None:
        self.plan = plan
        self.staged: list[Staged] = []
        self.directories_created = 0
        self._token = token
        self._descriptors = descriptors
        self._observe = observer
        self._files = [step for step in plan.steps if isinstance(step, PlannedFiles)]
        self._directories = [step for step in plan.steps if isinstance(step, PlannedDirectory)]
        self._renames = Renames()
        self._stager: Stager | None = None
        self._to_give: list[PlannedDirectory] = []
        self._devices: dict[int, Directory] = {}
        self._parents: dict[bytes, os.stat_result] = {}
        self._archive = request.archive
        self._processes = request.options.processes if plan.file_count >= MIN_FILES else 1

    def compare(self) -> None:
        """Afterwards it is known what is there already; nothing has changed.

        Raises:
            StepFailed: something can't be read.
        """
        planned = self._files
        self._stager = Stager(
            self.plan.previous.files.taken(),
            ArchiveIndex(self._archive),
            self._token,
            self._descriptors,
            self._observe,
        )
        stager = self._stager
        self.staged = do_all(
            lambda number: stager.compare(planned[number]), len(planned), processes=self._processes
        )
        self._to_give = [step for step in self._directories if self._is_to_give(step)]

    def touched(self) -> Iterator[Touched]:
        """What the journal has to say before anything is staged: the directories that will change."""
        for directory in self._changing_directories():
            touched = self._touched(directory)
            self._devices.setdefault(
                os.stat(b".", dir_fd=self._descriptors.of(directory.real)).st_dev, directory
            )
            yield touched

    def stage(self) -> None:
        """Afterwards all new content exists under hidden names, and nothing else has changed.

        Raises:
            StepFailed: the rest was not tried.
        """
        previous_umask = os.umask(0)
        try:
            for step in self._directories:
                self._stage_directory(step)
            self._stage_files()
            for step in reversed(self._directories):
                if step.attributes is not None and step.directory.standing is Standing.NEW:
                    self._give_attributes(step)
        finally:
            os.umask(previous_umask)

    def _stage_files(self) -> None:
        stager = self._stager
        if stager is None:
            return
        # What was listed of the previous revision and of the archive goes with it: that is large.
        self._stager = None
        numbers = [number for number, staged in enumerate(self.staged) if staged.todo is None or staged.todo]
        answers = do_all(
            lambda index: stager.stage(self._files[numbers[index]], self.staged[numbers[index]]),
            len(numbers),
            processes=self._processes,
        )
        for number, staged in zip(numbers, answers, strict=True):
            self.staged[number] = staged
        links = Links()
        for files, staged in zip(self._files, self.staged, strict=True):
            if staged.linked:
                stager.stage_linked(files, staged, links)

    def changes(self) -> Iterator[bytes]:
        """What the journal has to say before anything takes its place, as lines."""
        for step in self._directories:
            if _is_hidden(step):
                change = self._directory_change(step)
                yield encode(Hiding(change.directory)) + encode(change)
        for files, staged in zip(self._files, self.staged, strict=True):
            real, names = files.directory.real, files.names
            yield from encode_changes(files.number, real, names, staged.new)
            for adjusted in staged.adjusted:
                yield encode(_adjustment(real, names[adjusted.position], adjusted))
        yield from map(encode, self._rest())

    def _rest(self) -> Iterator[Entry]:
        """What is about other things than files that are installed."""
        labelled = {
            path
            for path, attributes, _ in self.plan.attributes()
            if attributes.permission.context is not None
        }
        yield from (Label(path) for path in labelled)
        for removal in self.plan.removals:
            record = decode_record(removal.record) if removal.record else None
            yield Leftover(removal.directory, removal.name, record)
        yield from (LeftoverDirectory(path) for path in self.plan.leftover_directories)
        yield from (LeftoverLabel(path) for path in self.plan.previous.labels if path not in labelled)

    def switch(self) -> None:
        """Afterwards everything new has its place, and what was there a hidden name.

        Raises:
            StepFailed: the rest was not tried.
        """
        for step in self._directories:
            if _is_hidden(step):
                self._switch_directory(step)
        changing = [
            (files, staged)
            for files, staged in zip(self._files, self.staged, strict=True)
            if staged.new or staged.adjusted
        ]
        count = sum(len(staged.new) + len(staged.adjusted) for _, staged in changing)
        answers = do_all(
            lambda number: self._switch_files(*changing[number]),
            len(changing),
            processes=self._processes if count >= MIN_FILES else 1,
        )
        for (_, staged), lines in zip(changing, answers, strict=True):
            staged.lines = lines
            staged.new = NewFiles()
        for files, staged in zip(self._files, self.staged, strict=True):
            if staged.linked:
                self._look_again(files, staged)
        for step in reversed(self._to_give):
            self._give_attributes(step)
        for path, attributes, _ in self.plan.attributes():
            self._give_label(path, attributes)

    def sync(self) -> None:
        """Afterwards all that was written at the destinations is on the disk."""
        sync_file_systems(self._descriptors.of(directory.real) for directory in self._devices.values())

    def _changing_directories(self) -> Iterator[Directory]:
        """Directories that are there and will change, each once."""
        seen: set[bytes] = set()
        for directory in self._changes_of_directories():
            if directory.standing is Standing.NEW or directory.real in seen:
                continue
            seen.add(directory.real)
            yield directory

    def _changes_of_directories(self) -> Iterator[Directory]:
        for step in self._directories:
            if _is_hidden(step) and step.directory.parent is not None:
                yield step.directory.parent
        for step in self._to_give:
            yield step.directory
        for files, staged in zip(self._files, self.staged, strict=True):
            if staged.todo is None or staged.todo or staged.adjusted:
                yield files.directory

    def _is_to_give(self, step: PlannedDirectory) -> bool:
        """Whether a directory that is ours has other attributes than it should."""
        if step.directory.standing is not Standing.OURS:
            return False
        real, attributes = step.directory.real, step.attributes
        try:
            status = os.lstat(real)
            wanted = self._wanted(step.directory, attributes)
            acls = () if attributes is None else (attributes.access_acl, attributes.default_acl)
            return (
                any(acls)
                or wanted != (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
                or any(name in (ACCESS, DEFAULT) for name in os.listxattr(real, follow_symlinks=False))
            )
        except OSError:
            return True  # and giving them will say why

    def _stage_directory(self, step: PlannedDirectory) -> None:
        directory = step.directory
        if directory.standing is not Standing.NEW or directory.parent is None:
            return
        name = directory.real.rpartition(b"/")[2]
        if _is_hidden(step):
            name = new_name(self._token, step.number)
            self._descriptors.name_is(directory.real, name)
        self.directories_created += 1
        self._observe("mkdir", directory.path)
        try:
            os.mkdir(name, CREATED_DIRECTORY_MODE, dir_fd=self._descriptors.of(directory.parent.real))
        except OSError as error:
            raise StepFailed(directory.path, error) from error

    def _directory_change(self, step: PlannedDirectory) -> Change:
        parent, _slash, name = step.directory.real.rpartition(b"/")
        inode = 0
        if step.directory.replaces:
            status = os.stat(name, dir_fd=self._descriptors.of(parent or b"/"), follow_symlinks=False)
            inode = status.st_ino
        return Change(step.number, inode, parent or b"/", name)

    def _switch_directory(self, step: PlannedDirectory) -> None:
        directory = step.directory
        parent, _slash, name = directory.real.rpartition(b"/")
        try:
            self._observe("rename", directory.path)
            self._take_place(
                self._descriptors.of(parent or b"/"), name, step.number, replaces=directory.replaces
            )
            self._descriptors.name_is(directory.real, None)
        except OSError as error:
            raise StepFailed(directory.path, error) from error

    def _switch_files(self, files: PlannedFiles, staged: Staged) -> list[bytes]:
        """Let these files take their places; the fields of all manifest lines of this directory."""
        position = 0
        try:
            dir_fd = self._descriptors.of(files.directory.real)
            for new in staged.new:
                position = new.position
                name = files.names[position]
                self._observe("rename", files.prefix + name)
                self._take_place(dir_fd, name, files.number + position, replaces=bool(new.inode))
                staged.lines[position] = _line_of(dir_fd, name, new)
            for adjusted in staged.adjusted:
                position = adjusted.position
                self._adjust(dir_fd, files, staged, adjusted)
        except OSError as error:
            raise StepFailed(files.prefix + files.names[position], error) from error
        return staged.lines

    def _take_place(self, dir_fd: int, name: bytes, number: int, *, replaces: bool) -> None:
        hidden = new_name(self._token, number)
        if replaces:
            try:
                if self._renames.exchange(dir_fd, hidden, name):
                    return
            except FileNotFoundError:
                pass  # what was to be replaced has gone meanwhile
            else:
                _keep_old(dir_fd, name, old_name(self._token, number))
                os.rename(hidden, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
                return
        try:
            self._renames.place(dir_fd, hidden, name)
        except FileExistsError as error:
            raise OSError(errno.EEXIST, "it appeared while Install was running") from error

    def _adjust(self, dir_fd: int, files: PlannedFiles, staged: Staged, adjusted: Adjusted) -> None:
        name = files.names[adjusted.position]
        self._observe("adjust", files.prefix + name)
        descriptor = os.open(name, READ, dir_fd=dir_fd)
        try:
            status = os.fstat(descriptor)
            if status.st_ino != adjusted.was.st_ino:
                raise OSError(errno.ESTALE, "it was replaced while Install was running")
            adjusted.wanted.give(descriptor, status, adjusted.was_acl)
            has_acl = adjusted.wanted.access_acl is not None
            line = file_fields(os.fstat(descriptor), adjusted.digest, has_acl=has_acl)
        finally:
            os.close(descriptor)
        staged.lines[adjusted.position] = line

    def _look_again(self, files: PlannedFiles, staged: Staged) -> None:
        """What has several names changes whenever one of them does."""
        dir_fd = self._descriptors.of(files.directory.real)
        for position in staged.linked:
            status = os.stat(files.names[position], dir_fd=dir_fd, follow_symlinks=False)
            record = decode_record(staged.lines[position])
            staged.lines[position] = file_fields(status, record.digest, has_acl=record.has_acl)

    def _give_attributes(self, step: PlannedDirectory) -> None:
        """Mode, owner and ACL of a directory that is ours; those of a fresh one, if nothing says otherwise."""
        try:
            self._observe("attributes", step.directory.path)
            self._give(step.directory, step.attributes)
        except OSError as error:
            raise StepFailed(step.directory.path, error) from error

    def _give(self, directory: Directory, attributes: Attributes | None) -> None:
        dir_fd = self._descriptors.of(directory.real)
        status = os.stat(b".", dir_fd=dir_fd)
        uid, gid, mode = self._wanted(directory, attributes)
        acls = () if attributes is None else (attributes.access_acl, attributes.default_acl)
        if (status.st_uid, status.st_gid) != (uid, gid):
            os.chown(b".", uid, gid, dir_fd=dir_fd)
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            for name, entries in zip((ACCESS, DEFAULT), acls or ((), ()), strict=True):
                wanted = encode_acl(mode, entries) if entries else None
                if read_acl(descriptor, name) != wanted:
                    write_acl(descriptor, name, wanted)
            if not (acls and acls[0]) and stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
                os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def _wanted(self, directory: Directory, attributes: Attributes | None) -> tuple[int, int, int]:
        """Owner, group and mode of a directory of ours."""
        if attributes is None:
            return os.geteuid(), self._fresh_group(directory), CREATED_DIRECTORY_MODE
        return (
            os.geteuid() if attributes.uid is None else attributes.uid,
            self._fresh_group(directory) if attributes.gid is None else attributes.gid,
            CREATED_DIRECTORY_MODE if attributes.mode is None else attributes.mode,
        )

    def _fresh_group(self, directory: Directory) -> int:
        """The group that a directory created here gets: ours, or the parent's where that is passed on."""
        if directory.parent is None:
            return os.getegid()
        status = self._parents.get(directory.parent.real)
        if status is None:
            status = os.stat(b".", dir_fd=self._descriptors.of(directory.parent.real))
            self._parents = {directory.parent.real: status}
        return status.st_gid if status.st_mode & stat.S_ISGID else os.getegid()

    def _give_label(self, path: bytes, attributes: Attributes) -> None:
        context = attributes.permission.context
        if context is None:
            return
        self._observe("label", path)
        try:
            add_label(path, context, is_known=path in self.plan.previous.labels)
        except OSError as error:
            raise StepFailed(path, error) from error

    def _touched(self, directory: Directory) -> Touched:
        dir_fd = self._descriptors.of(directory.real)
        status = os.stat(b".", dir_fd=dir_fd)
        access = default = None
        if directory.standing is Standing.OURS:
            descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
            try:
                access, default = read_acl(descriptor, ACCESS), read_acl(descriptor, DEFAULT)
            finally:
                os.close(descriptor)
        times = (status.st_atime_ns, status.st_mtime_ns)
        owner = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        return Touched(directory.real, *times, *owner, access, default, directory.standing is Standing.OURS)


def _is_hidden(step: PlannedDirectory) -> bool:
    """Whether the directory is made under a hidden name; one in a new directory has its own at once."""
    directory = step.directory
    return (
        directory.standing is Standing.NEW
        and directory.parent is not None
        and directory.parent.standing is not Standing.NEW
    )


def _adjustment(real: bytes, name: bytes, adjusted: Adjusted) -> Adjustment:
    was = adjusted.was
    owner = (stat.S_IMODE(was.st_mode), was.st_uid, was.st_gid)
    times = (was.st_atime_ns, was.st_mtime_ns)
    return Adjustment(was.st_ino, *times, *owner, adjusted.was_acl, real, name)


def _line_of(dir_fd: int, name: bytes, new: NewFile) -> bytes:
    status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if new.is_link:
        return link_fields(status, new.digest)
    return file_fields(status, new.digest, has_acl=new.has_acl)


def _keep_old(dir_fd: int, name: bytes, kept: bytes) -> None:
    """Afterwards what has this name has the other one, too, or only that where two are impossible.

    A file that has both is there at every moment.
    """
    try:
        os.link(name, kept, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
    except OSError as error:
        # Directories have one name only; so has everything on file systems without hard links.
        if error.errno not in _NO_HARD_LINK:
            raise
        os.rename(name, kept, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

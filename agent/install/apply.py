"""Carrying out a plan: everything is made ready under hidden names first, then takes its place."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.install.acl import ACCESS, DEFAULT, read_acl, write_acl
from agent.install.copying import READ
from agent.install.descriptors import is_mounted, is_volatile, mount_point
from agent.install.destinations import Directory, Standing
from agent.install.disks import Disks
from agent.install.entries import (
    Change,
    FirstOnDisk,
    Hiding,
    Label,
    Leftover,
    LeftoverDirectory,
    LeftoverLabel,
    MadeFiles,
    MountPoint,
    NewDirectory,
    Touched,
    encode,
    encode_changes,
    encode_new_files,
    new_name,
    old_name,
)
from agent.install.fresh_directories import CREATED_DIRECTORY_MODE, FreshDirectories
from agent.install.lanes import MIN_FILES, do_all, processes_for
from agent.install.planned import PlannedDirectory, PlannedFiles
from agent.install.protection import check_changeable
from agent.install.records import (
    attributes_in_state,
    decode_record,
    file_fields,
    lasting_state,
    link_fields,
)
from agent.install.renames import Renames, has_two_names
from agent.install.selinux import add_label
from agent.install.staged import NewFiles, Staged, StepFailed, stage_broken_links
from agent.install.staging import Links, Stager
from agent.install.wanted import wanted_of
from agent.listings import clock_ns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.install.attributes import Attributes
    from agent.install.descriptors import Descriptors
    from agent.install.entries import Entry
    from agent.install.fresh_directories import WantedDirectory
    from agent.install.planned import InstallPlan
    from agent.install.request import InstallRequest, Observer
    from agent.install.staged import Adjusted, NewFile
    from agent.install.survey import Survey


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
        *,
        descriptors: Descriptors,
        survey: Survey,
        observer: Observer,
    ) -> None:
        self.plan = plan
        self._survey = survey
        self.staged: list[Staged] = []
        self.directories_created = 0
        self._token = token
        self._descriptors = descriptors
        self._observe = observer
        self._files = [step for step in plan.steps if isinstance(step, PlannedFiles)]
        self._directories = [step for step in plan.steps if isinstance(step, PlannedDirectory)]
        self._new = [step for step in self._directories if step.directory.standing is Standing.NEW]
        self._renames = Renames()
        self._stager: Stager | None = None
        self._to_give: list[PlannedDirectory] = []
        self._inodes: dict[bytes, int] = {}  # of the new directories
        self._staged_paths: dict[bytes, bytes] = {}  # where they are until they have their places
        self._new_states: dict[bytes, bytes] = {}
        self._keeping = _keeping(plan)
        self._disks = Disks()
        self._is_durable = request.options.durable
        self._fresh = FreshDirectories(descriptors)
        self._is_root = os.geteuid() == 0
        self._processes = request.options.processes

    def compare(self) -> None:
        """Afterwards it is known what is there already; nothing has changed.

        Raises:
            StepFailed: something can't be read.
        """
        self._survey.complete()
        self._stager = stager = Stager(
            self.plan.previous.files.taken(),
            self.plan.index.taken(),
            self._token,
            self._descriptors,
            self._observe,
        )
        unknown: list[tuple[int, list[int]]] = []
        for number, files in enumerate(self._files):
            staged, positions = stager.recognise(files, self._survey)
            self.staged.append(staged)
            if positions:
                unknown.append((number, positions))
        count = sum(len(positions) for _, positions in unknown)

        def compare(index: int) -> Staged:
            number, positions = unknown[index]
            return stager.compare(self._files[number], self.staged[number], positions)

        answers = do_all(compare, len(unknown), processes=processes_for(count, self._processes))
        for (number, _), staged in zip(unknown, answers, strict=True):
            self.staged[number] = staged
        stage_broken_links(self.staged)
        self._compare_directories()

    def _compare_directories(self) -> None:
        """Find out which directories that are ours have other attributes than they should."""
        doubtful: list[PlannedDirectory] = []
        for step in self._directories:
            if step.directory.standing is not Standing.OURS:
                continue
            is_to_give = self._is_to_give_by_state(step)
            if is_to_give is None:
                doubtful.append(step)
            elif is_to_give:
                self._to_give.append(step)
        answers = do_all(
            lambda number: self._is_to_give(doubtful[number]),
            len(doubtful),
            processes=processes_for(len(doubtful), self._processes),
        )
        self._to_give += [step for step, is_to_give in zip(doubtful, answers, strict=True) if is_to_give]
        self._to_give.sort(key=lambda step: step.number)

    def touched(self) -> Iterator[bytes]:
        """What the journal has to say before anything is staged, as lines: the directories that will change, and where they lie.

        Raises:
            StepFailed: one can't be looked at.
        """
        directories = list(self._changing_directories())

        def look_at(number: int) -> tuple[int, bytes]:
            try:
                device, touched = self._touched(directories[number])
            except OSError as error:
                raise StepFailed(directories[number].path, error) from error
            return device, encode(touched)

        answers = do_all(
            look_at, len(directories), processes=processes_for(len(directories), self._processes)
        )
        for directory, (device, line) in zip(directories, answers, strict=True):
            if device not in self._disks:
                try:
                    self._disks.add(device, self._descriptors.of(directory.real))
                except OSError as error:
                    raise StepFailed(directory.path, error) from error
                yield encode(FirstOnDisk(directory.real))
                yield from map(encode, _mount_point_of(directory))
            yield line

    def stage(self) -> None:
        """Afterwards all new content exists under hidden names, and nothing else has changed.

        Raises:
            StepFailed: the rest was not tried.
        """
        previous_umask = os.umask(0)
        try:
            for step in self._new:
                self._stage_directory(step)
            self._stage_files()
            for step in reversed(self._new):
                if step.attributes is not None:
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
        count = sum(
            len(self._files[number].names if todo is None else todo)
            for number in numbers
            for todo in [self.staged[number].todo]
        )
        if self._is_durable and count >= MIN_FILES:
            self._disks.begin_writing()
        answers = do_all(
            lambda index: stager.stage(self._files[numbers[index]], self.staged[numbers[index]]),
            len(numbers),
            processes=processes_for(count, self._processes),
        )
        for number, staged in zip(numbers, answers, strict=True):
            self.staged[number] = staged
        links = Links()
        for files, staged in zip(self._files, self.staged, strict=True):
            if staged.linked:
                stager.stage_linked(files, staged, links)

    def changes(self) -> Iterator[bytes]:
        """What the journal has to say before anything takes its place, as lines."""
        for step in self._new:
            yield from self._new_directory(step)
        for files, staged in zip(self._files, self.staged, strict=True):
            if files.directory.standing is Standing.NEW:
                made = MadeFiles(self._inodes[files.directory.real], files.directory.real, {})
                yield encode(made) + encode_new_files(files.names, staged.lines)
                continue
            if isinstance(staged.new, NewFiles):
                yield encode_changes(files.number, files.directory.real, files.names, staged.new)
            yield from (encode(adjusted.was) for adjusted in staged.adjusted)
        yield from map(encode, self._rest())

    def _new_directory(self, step: PlannedDirectory) -> Iterator[bytes]:
        real = step.directory.real
        if _is_hidden(step):
            parent, _slash, name = real.rpartition(b"/")
            yield encode(Hiding(parent or b"/"))
            if step.directory.replaces:
                there = os.stat(name, dir_fd=self._descriptors.of(parent or b"/"), follow_symlinks=False)
                inode = self._inodes[real]
                yield encode(Change(step.number, inode, there.st_ino, parent or b"/", name))
        yield encode(NewDirectory(self._inodes[real], real))

    def _rest(self) -> Iterator[Entry]:
        """What is about other things than files that are installed."""
        known = self.plan.previous.labels
        labelled = {
            path
            for path, attributes, _ in self.plan.attributes()
            if attributes.permission.context is not None
        }
        yield from (Label(path, path in known, known.get(path)) for path in labelled)
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
        self._look_at_new_directories()
        for step in self._new:
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
            processes=processes_for(count, self._processes),
        )
        for (_, staged), lines in zip(changing, answers, strict=True):
            staged.lines = lines
            staged.new = ()
        for files, staged in zip(self._files, self.staged, strict=True):
            if staged.linked:
                self._look_again(files, staged)
        for step in reversed(self._to_give):
            self._give_attributes(step)
        for path, attributes, _ in self.plan.attributes():
            self._give_label(path, attributes)

    def state_to_record(self, step: PlannedDirectory) -> bytes:
        """The state that this directory is in while it holds just what is ours; empty when that can't be told.

        To be asked when everything has its place. Whatever this Install, or somebody else, has changed in a directory
        since it was looked at has given it another state, which is as good as none.
        """
        real = step.directory.real
        try:
            if self._wanted(step.directory, step.attributes).has_acls:
                return b""
        except OSError:
            return b""
        if step.directory.standing is Standing.OURS:
            return b"" if real in self._keeping else self.plan.states[real]
        return self._new_states.get(real, b"")

    def _look_at_new_directories(self) -> None:
        """Take the states of new directories, while they are below hidden names, where nobody else puts anything."""
        looked_ns = clock_ns()
        for step in self._new:
            if not _is_hidden(step):
                real = step.directory.real
                with suppress(OSError):
                    self._new_states[real] = lasting_state(os.lstat(self._staged_paths[real]), looked_ns)

    def overwritten(self) -> Iterator[bytes]:
        """Paths of files of ours that were replaced although somebody had changed them."""
        for files, staged in zip(self._files, self.staged, strict=True):
            yield from (files.prefix + files.names[position] for position in staged.overwritten)

    def has_changed(self, directory: Path) -> bool:
        """Whether it has changed something on the same file system."""
        return os.stat(directory).st_dev in self._disks

    def sync(self) -> None:
        """Afterwards all that was written at the destinations is on the disk.

        Raises:
            OSError: the disk does not take it.
        """
        self._disks.sync()

    def close(self) -> None:
        """Nothing is done any more."""
        self._disks.close()

    def _changing_directories(self) -> Iterator[Directory]:
        """Directories that are there and will change, each once."""
        seen: set[bytes] = set()
        for directory in self._changes_of_directories():
            if directory.standing is Standing.NEW or directory.real in seen:
                continue
            seen.add(directory.real)
            yield directory

    def _changes_of_directories(self) -> Iterator[Directory]:
        for step in self._new:
            if _is_hidden(step) and step.directory.parent is not None:
                yield step.directory.parent
        for step in self._to_give:
            yield step.directory
        for files, staged in zip(self._files, self.staged, strict=True):
            if staged.todo is None or staged.todo or staged.adjusted:
                yield files.directory

    def _is_to_give_by_state(self, step: PlannedDirectory) -> bool | None:
        """Whether a directory that is ours has other attributes than it should; None when that has to be looked at."""
        state = self.plan.previous.untouched.get(step.directory.real)
        if state is None:
            return None
        try:
            wanted = self._wanted(step.directory, step.attributes)
        except OSError:
            return True  # and giving them will say why
        if wanted.has_acls:
            return None
        return not state.endswith(attributes_in_state(wanted.mode, wanted.uid, wanted.gid))

    def _is_to_give(self, step: PlannedDirectory) -> bool:
        """The same, looking at it."""
        real = step.directory.real
        try:
            status = os.lstat(real)
            wanted = self._wanted(step.directory, step.attributes)
            if not wanted.is_met_by(status):
                return True
            if wanted.has_acls or any(
                name in (ACCESS, DEFAULT) for name in os.listxattr(real, follow_symlinks=False)
            ):
                return wanted.acls != (read_acl(real, ACCESS), read_acl(real, DEFAULT))
        except OSError:
            return True  # and giving them will say why
        return False

    def _stage_directory(self, step: PlannedDirectory) -> None:
        directory = step.directory
        if directory.parent is None:
            return
        name = directory.real.rpartition(b"/")[2]
        if _is_hidden(step):
            name = new_name(self._token, step.number)
            self._descriptors.name_is(directory.real, name)
        above = self._staged_paths.get(directory.parent.real, directory.parent.real)
        self._staged_paths[directory.real] = above.rstrip(b"/") + b"/" + name
        self.directories_created += 1
        self._observe("mkdir", directory.path)
        try:
            dir_fd = self._descriptors.of(directory.parent.real)
            os.mkdir(name, CREATED_DIRECTORY_MODE, dir_fd=dir_fd)
            self._inodes[directory.real] = os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_ino
        except OSError as error:
            raise StepFailed(directory.path, error) from error

    def _switch_directory(self, step: PlannedDirectory) -> None:
        directory = step.directory
        parent, _slash, name = directory.real.rpartition(b"/")
        try:
            self._observe("rename", directory.path)
            self._take_place(
                self._descriptors.of(parent or b"/"),
                name,
                step.number,
                replaces=directory.replaces,
                is_file=False,
            )
            self._descriptors.name_is(directory.real, None)
        except OSError as error:
            raise StepFailed(directory.path, error) from error

    def _switch_files(self, files: PlannedFiles, staged: Staged) -> list[bytes]:
        """Let these files take their places; the fields of all manifest lines of this directory."""
        position, prefix = 0, files.prefix
        try:
            dir_fd = self._descriptors.of(files.directory.real)
            for new in staged.new:
                position = new.position
                name = files.names[position]
                self._observe("rename", prefix + name)
                self._take_place(dir_fd, name, files.number + position, replaces=bool(new.old_inode))
                staged.lines[position] = _line_of(dir_fd, name, new)
            for adjusted in staged.adjusted:
                position = adjusted.position
                self._adjust(dir_fd, files, staged, adjusted)
        except OSError as error:
            raise StepFailed(files.prefix + files.names[position], error) from error
        return staged.lines

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
        """The same as an exchange, in two steps; what was there has the name `kept` then."""
        # Two names, so that one is there at every moment; but a directory can't replace a file.
        if not is_file or not has_two_names(dir_fd, name, kept):
            os.rename(name, kept, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        os.rename(hidden, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def _adjust(self, dir_fd: int, files: PlannedFiles, staged: Staged, adjusted: Adjusted) -> None:
        name = files.names[adjusted.position]
        self._observe("adjust", files.prefix + name)
        source = os.stat(files.source_directory + b"/" + name, follow_symlinks=False)
        wanted = wanted_of(source, files.attributes.get(name), is_root=self._is_root)
        descriptor = os.open(name, READ, dir_fd=dir_fd)
        try:
            status = os.fstat(descriptor)
            if status.st_ino != adjusted.was.inode:
                raise OSError(errno.ESTALE, "it was replaced while Install was running")
            wanted.give(descriptor, status, read_acl(descriptor, ACCESS) if adjusted.has_own_acl else None)
            has_acl = wanted.access_acl is not None
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
        wanted = self._wanted(directory, attributes)
        if (status.st_uid, status.st_gid) != (wanted.uid, wanted.gid):
            os.chown(b".", wanted.uid, wanted.gid, dir_fd=dir_fd)
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            for name, value in zip((ACCESS, DEFAULT), wanted.acls, strict=True):
                if read_acl(descriptor, name) != value:
                    write_acl(descriptor, name, value)
            if wanted.access_acl is None and stat.S_IMODE(os.fstat(descriptor).st_mode) != wanted.mode:
                os.fchmod(descriptor, wanted.mode)
        finally:
            os.close(descriptor)

    def _wanted(self, directory: Directory, attributes: Attributes | None) -> WantedDirectory:
        """What a directory of ours is to have: what a fresh one would get there, and what `permissions` gives to it."""
        fresh = self._fresh.of(directory)
        return fresh if attributes is None else fresh.changed(attributes)

    def _give_label(self, path: bytes, attributes: Attributes) -> None:
        context = attributes.permission.context
        if context is None:
            return
        self._observe("label", path)
        try:
            add_label(path, context, is_known=path in self.plan.previous.labels)
        except OSError as error:
            raise StepFailed(path, error) from error

    def _touched(self, directory: Directory) -> tuple[int, Touched]:
        """How a directory is that will change, and on which device."""
        is_ours = directory.standing is Standing.OURS
        # In the state that a manifest tells, a directory has no ACLs.
        has_acls = is_ours and directory.real not in self.plan.previous.untouched
        access = default = None
        try:
            descriptor = self._descriptors.opened(directory.real)
        except PermissionError:
            if has_acls:
                raise
            # It may be possible to write it all the same.
            status = os.stat(b".", dir_fd=self._descriptors.of(directory.real))
        else:
            try:
                # What must not be changed would also stop the undo.
                check_changeable(descriptor)
                status = os.fstat(descriptor)
                if has_acls:
                    access, default = read_acl(descriptor, ACCESS), read_acl(descriptor, DEFAULT)
            finally:
                os.close(descriptor)
        times = (status.st_atime_ns, status.st_mtime_ns)
        owner = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        return status.st_dev, Touched(directory.real, *times, *owner, access, default, is_ours)


def _keeping(plan: InstallPlan) -> set[bytes]:
    """Directories that may hold something afterwards that is not ours any more."""
    paths = [*plan.kept, *plan.given_up, *plan.leftover_directories]
    return {path.rpartition(b"/")[0] or b"/" for path in paths} | {item.directory for item in plan.removals}


def _is_hidden(step: PlannedDirectory) -> bool:
    """Whether this new directory is made under a hidden name; one in a new directory has its own at once."""
    directory = step.directory
    return directory.parent is not None and directory.parent.standing is not Standing.NEW


def _mount_point_of(directory: Directory) -> Iterator[MountPoint]:
    """Where its file system is mounted, when it may be there again after it was not."""
    place = mount_point(directory.real)
    if place != b"/" and is_mounted(place) and not is_volatile(place):
        yield MountPoint(place)


def _line_of(dir_fd: int, name: bytes, new: NewFile) -> bytes:
    status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if new.is_link:
        return link_fields(status, new.digest)
    return file_fields(status, new.digest, has_acl=new.has_acl)

"""Carrying out a plan: everything is made ready under hidden names first, then takes its place."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, TypeAlias

from agent.install.acl import ACCESS, DEFAULT, encode_acl, read_acl, write_acl
from agent.install.copying import READ, Spot, copy_file, copy_link, file_again, link_again
from agent.install.descriptors import sync_file_systems
from agent.install.destinations import Directory, Standing
from agent.install.journal import (
    Change,
    Label,
    Leftover,
    LeftoverDirectory,
    LeftoverLabel,
    Touched,
    new_name,
    old_name,
)
from agent.install.plan import Action
from agent.install.records import decode_record, encode_record, with_ctime
from agent.install.selinux import add_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.install.attributes import Attributes
    from agent.install.descriptors import Descriptors
    from agent.install.journal import Entry
    from agent.install.plan import InstallPlan, PlannedFile, Step
    from agent.install.records import Record

Observer: TypeAlias = "Callable[[str, bytes], None]"
"""Told before each change: what kind it is, and the path. It may raise to make that step fail."""

CREATED_DIRECTORY_MODE = 0o755
_NO_HARD_LINK = frozenset({errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})


class StepFailed(Exception):
    """A step of an Install failed on `path`; `error` says why."""

    def __init__(self, path: bytes, error: OSError) -> None:
        super().__init__(f"{os.fsdecode(path)}: {error.strerror or error}")
        self.path = path
        self.error = error


class Application:
    """One plan being carried out, for one use.

    Attributes:
        records: for each step how its file came out, as in the manifest; None for directories.
        created, replaced, unchanged: numbers of files and links.
        directories_created: number of directories.
        copied_bytes: content of the files that were written.
    """

    def __init__(self, plan: InstallPlan, token: bytes, descriptors: Descriptors, observer: Observer) -> None:
        self.records: list[bytes | None] = [None] * len(plan.steps)
        self.created = 0
        self.replaced = 0
        self.unchanged = 0
        self.copied_bytes = 0
        self.directories_created = 0
        self.plan = plan
        self._token = token
        self._descriptors = descriptors
        self._observe = observer
        self._staged: list[int] = []
        self._source: tuple[bytes, int] = (b"", -1)
        self._linked: dict[tuple[int, int], tuple[int, Attributes | None]] = {}

    def compare(self) -> None:
        """Afterwards `records` holds those files that are there already, just as they are to be.

        Raises:
            StepFailed: one can't be read.
        """
        step: Step | None = None
        try:
            for number, step in enumerate(self.plan.steps):
                if not isinstance(step, Directory) and step.action is Action.REPLACE:
                    self._compare(number, step)
        except OSError as error:
            raise StepFailed(b"" if step is None else step.path, error) from error
        finally:
            self._close_source()

    def journal_entries(self) -> Iterator[Entry]:
        """What the journal has to say about this plan."""
        for directory in _existing_directories(self.plan.steps):
            yield self._touched(directory)
        for number, step in enumerate(self.plan.steps):
            change = _change(number, step)
            if change is not None and self.records[number] is None:
                yield change
        for number, attributes in self.plan.attributes.items():
            if attributes.permission.context is not None:
                yield Label(self.plan.steps[number].path)
        for removal in self.plan.removals:
            yield Leftover(
                removal.directory, removal.name, decode_record(removal.record) if removal.record else None
            )
        yield from (LeftoverDirectory(path) for path in self.plan.leftover_directories)
        labelled = {
            self.plan.steps[number].path
            for number, attributes in self.plan.attributes.items()
            if attributes.permission.context is not None
        }
        yield from (LeftoverLabel(path) for path in self.plan.previous.labels if path not in labelled)

    def stage(self) -> None:
        """Afterwards all new content exists under hidden names, and nothing else has changed.

        Raises:
            StepFailed: the rest was not tried.
        """
        number = 0
        previous_umask = os.umask(0)
        try:
            for number, step in enumerate(self.plan.steps):
                if isinstance(step, Directory):
                    self._stage_directory(number, step)
                elif self.records[number] is None:
                    self._stage_file(number, step)
            for number in reversed(self.plan.attributes):
                step = self.plan.steps[number]
                if isinstance(step, Directory) and step.standing is Standing.NEW:
                    self._give_attributes(step, self.plan.attributes[number])
        except OSError as error:
            raise StepFailed(self.plan.steps[number].path, error) from error
        finally:
            os.umask(previous_umask)
            self._close_source()

    def switch(self) -> None:
        """Afterwards everything new has its place, and what was there a hidden name.

        Raises:
            StepFailed: the rest was not tried.
        """
        number = 0
        try:
            for number in self._staged:
                self._switch(number, self.plan.steps[number])
            for number in range(len(self.plan.steps) - 1, -1, -1):
                step = self.plan.steps[number]
                if isinstance(step, Directory) and step.standing is Standing.OURS:
                    self._give_attributes(step, self.plan.attributes.get(number))
            for number, attributes in self.plan.attributes.items():
                self._give_label(self.plan.steps[number], attributes)
        except OSError as error:
            raise StepFailed(self.plan.steps[number].path, error) from error

    def sync(self) -> None:
        """Afterwards all that was written at the destinations is on the disk."""
        places = (
            self._descriptors.of(directory.real) for directory in _existing_directories(self.plan.steps)
        )
        sync_file_systems(places)

    def _stage_directory(self, number: int, step: Directory) -> None:
        if step.standing is not Standing.NEW or step.parent is None:
            return
        name = step.real.rpartition(b"/")[2]
        if step.parent.standing is not Standing.NEW:
            name = new_name(self._token, number)
            self._staged.append(number)
            self._descriptors.name_is(step.real, name)
        self.directories_created += 1
        self._observe("mkdir", step.path)
        os.mkdir(name, CREATED_DIRECTORY_MODE, dir_fd=self._descriptors.of(step.parent.real))

    def _compare(self, number: int, step: PlannedFile) -> None:
        source = Spot(self._source_directory(step.source_directory), step.name)
        spot = Spot(self._descriptors.of(step.directory.real), step.name)
        attributes = self.plan.attributes.get(number)
        known = self.plan.previous.record(step.directory.real, step.name)
        same = None
        with contextlib.suppress(FileNotFoundError):  # it is gone since it was planned for
            again = link_again if step.is_link else file_again
            same = again(source, spot, attributes, known)
        if same is not None:
            self.unchanged += 1
            self.records[number] = encode_record(same)

    def _stage_file(self, number: int, step: PlannedFile) -> None:
        source = Spot(self._source_directory(step.source_directory), step.name)
        spot = self._new_spot(number, step)
        attributes = self.plan.attributes.get(number)
        if step.is_link:
            self._observe("link", step.path)
            record = copy_link(source, spot, attributes)
        else:
            self._observe("copy", step.path)
            descriptor = os.open(step.name, READ, dir_fd=source.dir_fd)
            try:
                record = self._stage_content(number, descriptor, spot, attributes)
            finally:
                os.close(descriptor)
        self.records[number] = encode_record(record)

    def _stage_content(
        self, number: int, descriptor: int, spot: Spot, attributes: Attributes | None
    ) -> Record:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no longer a file in the archive")
        if status.st_nlink > 1:
            linked = self._linked_again(number, status, spot, attributes)
            if linked is not None:
                return linked
        self.copied_bytes += status.st_size
        return copy_file(descriptor, status, spot, attributes)

    def _new_spot(self, number: int, step: PlannedFile) -> Spot:
        """Where the new file is made: in a directory that is new itself, it can have its name at once."""
        if step.action is Action.CREATE:
            self.created += 1
        else:
            self.replaced += 1
        dir_fd = self._descriptors.of(step.directory.real)
        if step.directory.standing is Standing.NEW:
            return Spot(dir_fd, step.name)
        self._staged.append(number)
        return Spot(dir_fd, new_name(self._token, number))

    def _linked_again(
        self, number: int, status: os.stat_result, target: Spot, attributes: Attributes | None
    ) -> Record | None:
        """Names of one file in the archive become names of one file again, unless they get different permissions."""
        identity = (status.st_dev, status.st_ino)
        first = self._linked.setdefault(identity, (number, attributes))
        if first[0] == number or first[1] is not attributes:
            return None
        step = self.plan.steps[first[0]]
        fields = self.records[first[0]]
        if isinstance(step, Directory) or fields is None:
            return None
        name = step.name if step.directory.standing is Standing.NEW else new_name(self._token, first[0])
        # The descriptor of the target's directory must outlive the look-up of the other one.
        target_fd = os.dup(target.dir_fd)
        try:
            source_fd = self._descriptors.of(step.directory.real)
            os.link(name, target.name, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}:
                return None
            raise
        finally:
            os.close(target_fd)
        return decode_record(fields)

    def _switch(self, number: int, step: Step) -> None:
        if isinstance(step, Directory):
            parent = step.parent.real if step.parent is not None else b"/"
            name, replaces = step.real.rpartition(b"/")[2], step.replaces
        else:
            parent, name, replaces = step.directory.real, step.name, step.action is Action.REPLACE
        dir_fd = self._descriptors.of(parent)
        if replaces:
            self._observe("keep", step.path)
            _keep_old(dir_fd, name, old_name(self._token, number), for_directory=isinstance(step, Directory))
        elif _exists(dir_fd, name):
            raise FileExistsError(errno.EEXIST, "it appeared while Install was running")
        self._observe("rename", step.path)
        os.rename(new_name(self._token, number), name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        if isinstance(step, Directory):
            self._descriptors.name_is(step.real, None)
        else:
            self._update_record(number, dir_fd, name)

    def _update_record(self, number: int, dir_fd: int, name: bytes) -> None:
        """A rename changes the file's ctime."""
        fields = self.records[number]
        if fields is not None:
            status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            self.records[number] = with_ctime(fields, status.st_ctime_ns)

    def _give_attributes(self, step: Directory, attributes: Attributes | None) -> None:
        """Mode, owner and ACL of a directory that is ours; those of a fresh one, if nothing says otherwise."""
        dir_fd = self._descriptors.of(step.real)
        status = os.stat(b".", dir_fd=dir_fd)
        uid = os.geteuid() if attributes is None or attributes.uid is None else attributes.uid
        gid = (
            _fresh_group(self._descriptors, step)
            if attributes is None or attributes.gid is None
            else attributes.gid
        )
        mode = CREATED_DIRECTORY_MODE if attributes is None or attributes.mode is None else attributes.mode
        self._observe("attributes", step.path)
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

    def _give_label(self, step: Step, attributes: Attributes) -> None:
        context = attributes.permission.context
        if context is None:
            return
        path = step.path
        self._observe("label", path)
        add_label(path, context, is_known=path in self.plan.previous.labels)

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

    def _source_directory(self, path: bytes) -> int:
        """Descriptor of the archive's directory; files of one directory come one after the other."""
        if self._source[0] != path or self._source[1] < 0:
            self._close_source()
            self._source = (path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        return self._source[1]

    def _close_source(self) -> None:
        if self._source[1] >= 0:
            os.close(self._source[1])
            self._source = (b"", -1)


def _existing_directories(steps: list[Step]) -> Iterator[Directory]:
    """Directories that are there and will change, each once."""
    seen: set[bytes] = set()
    for step in steps:
        directory: Directory | None
        if isinstance(step, Directory):
            directory = step.parent if step.standing is Standing.NEW else step
        else:
            directory = step.directory
        if directory is None or directory.standing is Standing.NEW or directory.real in seen:
            continue
        seen.add(directory.real)
        yield directory


def _change(number: int, step: Step) -> Change | None:
    """The journal's entry for a step; None for what is inside a directory that is new itself."""
    if isinstance(step, Directory):
        if step.standing is not Standing.NEW or step.parent is None or step.parent.standing is Standing.NEW:
            return None
        return Change(number, step.parent.real, step.real.rpartition(b"/")[2], step.replaces)
    if step.directory.standing is Standing.NEW:
        return None
    return Change(number, step.directory.real, step.name, step.action is Action.REPLACE)


def _exists(dir_fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _keep_old(dir_fd: int, name: bytes, kept: bytes, *, for_directory: bool) -> None:
    """Afterwards what has this name has the other one, too, or only that where two are impossible.

    A file that has both is there at every moment. A directory can't take the name of a file, though.
    """
    if for_directory:
        with contextlib.suppress(FileNotFoundError):
            os.rename(name, kept, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        return
    try:
        os.link(name, kept, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return  # it is gone by now, so there is nothing to keep
    except OSError as error:
        # Directories have one name only; so has everything on file systems without hard links.
        if error.errno not in _NO_HARD_LINK:
            raise
        os.rename(name, kept, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def _fresh_group(descriptors: Descriptors, step: Directory) -> int:
    """The group that a directory created here gets: ours, or the parent's where that is passed on."""
    if step.parent is None:
        return os.getegid()
    parent = os.stat(b".", dir_fd=descriptors.of(step.parent.real))
    return parent.st_gid if parent.st_mode & stat.S_ISGID else os.getegid()

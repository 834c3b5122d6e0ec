"""Carrying out a plan: everything is made ready under hidden names first, then takes its place."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from agent.install.apply.finishing import Replaced
from agent.install.apply.new_directories import NewDirectories
from agent.install.apply.staging import Stager
from agent.install.apply.switching import Switcher
from agent.install.apply.work_units import Parts, Tools
from agent.install.attributes.of_new_directories import FreshDirectories, handed_down_at
from agent.install.attributes.selinux import add_label
from agent.install.compare.comparer import Comparer
from agent.install.compare.findings import Findings, stage_broken_links
from agent.install.journal.entries import (
    FirstOnDisk,
    Label,
    Leftover,
    LeftoverDirectory,
    LeftoverLabel,
    Losing,
    MountPoint,
    Touched,
    encode,
)
from agent.install.model.directory import Directory, Standing
from agent.install.model.failures import StepFailed
from agent.install.model.steps import PlannedDirectory, PlannedFiles
from agent.install.posix.acl import ACCESS, DEFAULT, place_acl, read_acl
from agent.install.posix.disks import Disks
from agent.install.posix.mounts import lasting_mount_point
from agent.install.posix.protection import check_changeable
from agent.install.posix.two_processes import MIN_FILES, do_all, processes_for
from agent.install.records.manifest import attributes_in_state, decode_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from agent.install.attributes.of_new_directories import WantedDirectory
    from agent.install.compare.survey import Survey
    from agent.install.journal.entries import Entry
    from agent.install.model.attributes import Attributes
    from agent.install.model.request import InstallRequest, Observer
    from agent.install.plan.plan import InstallPlan
    from agent.install.posix.places import Places

T = TypeVar("T")


class Application:
    """One plan being carried out, for one use. Close it in the end.

    Args:
        plan: what to do.
        request: what it comes from.
        token: what the hidden names have in common.
        places: those of the plan.
        survey: begun for the plan.
        observer: told before each change.
        note: adds lines to the journal, between `touched` and `changes`.

    Attributes:
        findings: what has become of each of the planned files, as far as this process knows.
        directories_created: number of directories.
    """

    def __init__(
        self,
        plan: InstallPlan,
        request: InstallRequest,
        token: bytes,
        *,
        places: Places,
        survey: Survey,
        observer: Observer,
        note: Callable[[Iterable[bytes]], None],
    ) -> None:
        self.plan = plan
        self._survey = survey
        self.findings: list[Findings] = []
        self._token = token
        self._places = places
        self._observe = observer
        self._files = [step for step in plan.steps if isinstance(step, PlannedFiles)]
        self._directories = [step for step in plan.steps if isinstance(step, PlannedDirectory)]
        self._new = [step for step in self._directories if step.directory.standing is Standing.NEW]
        self._fresh = FreshDirectories(places)
        self._new_directories = NewDirectories(
            self._new, token, places, fresh=self._fresh, observer=observer, note=note
        )
        self.directories_created = len(self._new)
        self._switcher = Switcher(token, places, self._fresh, observer)
        self._stager: Stager | None = None
        self._parts: Parts | None = None
        self._to_give: list[PlannedDirectory] = []
        self._new_states: dict[bytes, bytes] = {}
        self._keeping = _keeping(plan)
        self._disks = Disks()
        self._is_durable = request.options.durable
        self._processes = request.options.processes

    def compare(self) -> None:
        """Afterwards it is known what is there already; nothing has changed.

        Raises:
            StepFailed: something can't be read.
        """
        self._survey.complete()
        plan, places = self.plan, self._places
        comparer = Comparer(plan.previous.files.taken(), plan.index.taken(), places, self._fresh)
        self._stager = Stager(comparer, self._token, places, self._fresh, self._observe)
        unknown: list[tuple[int, list[int]]] = []
        for number, files in enumerate(self._files):
            findings, positions = comparer.recognise(files, self._survey)
            self.findings.append(findings)
            if positions:
                unknown.append((number, positions))
        count = sum(len(positions) for _, positions in unknown)

        def compare(index: int) -> Findings:
            number, positions = unknown[index]
            return comparer.compare(self._files[number], self.findings[number], positions)

        answers = do_all(compare, len(unknown), processes=processes_for(count, self._processes))
        for (number, _), findings in zip(unknown, answers, strict=True):
            self.findings[number] = findings
        stage_broken_links(self.findings)
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
        changing = {step.number for step in self._to_give}
        for step in self._directories:
            if step.number in changing or (step.attributes and step.directory.standing is Standing.OURS):
                self._compare_handed_down(step.directory)

    def _compare_handed_down(self, directory: Directory) -> None:
        """Find out whether a directory that is ours hands down something else until everything has its place."""
        with suppress(OSError):  # whoever makes something there will say why
            if handed_down_at(self._places.of(directory.real)) != self._fresh.handed_down(directory):
                self._fresh.differing.add(directory.real)

    def touched(self) -> Iterator[bytes]:
        """What the journal has to say before anything is staged, as lines: the directories that will change, and where they lie.

        Raises:
            StepFailed: one can't be looked at.
        """
        stager, self._stager = self._stager, None
        if stager is None:
            return
        changing = list(self._changing_directories())
        tools = Tools(
            places=self._places,
            new=self._new_directories,
            switcher=self._switcher,
            look=self._look_at,
        )
        parts = self._parts = Parts(
            self.plan.steps, self.findings, changing, stager, tools, processes=self._processes
        )
        for directory, (device, line) in zip(changing, parts.look(), strict=True):
            try:
                yield from self._disk_of(device, directory.real)
            except OSError as error:
                raise StepFailed(directory.path, error) from error
            yield line
        for real in self._losing_directories():
            with suppress(OSError):  # then there is nothing to be removed
                status = self._places.status(real)
                yield from self._disk_of(status.st_dev, real)
                yield encode(Losing(real, status.st_ino))

    def _disk_of(self, device: int, real: bytes) -> Iterator[bytes]:
        """Where a directory lies that changes now, or loses something in the end; nothing when that disk is known."""
        if device not in self._disks:
            self._disks.add(device, self._places.of(real))
            yield encode(FirstOnDisk(real))
            point = lasting_mount_point(real)
            if point:
                yield encode(MountPoint(point))

    def _losing_directories(self) -> set[bytes]:
        """Directories from which something of the previous revision goes."""
        emptied = {path.rpartition(b"/")[0] or b"/" for path in self.plan.outdated_directories}
        return emptied | {removal.directory for removal in self.plan.removals}

    def _look_at(self, directory: Directory) -> tuple[int, bytes]:
        """The device that it is on, and what the journal says about it."""
        device, touched = self._touched(directory)
        return device, encode(touched)

    def stage(self, meanwhile: Callable[[], T]) -> T:
        """Afterwards all new content exists under hidden names, and nothing else has changed.

        Args:
            meanwhile: what this process does while another one may have begun already.

        Returns:
            What that has returned.

        Raises:
            StepFailed: the rest was not tried.
        """
        parts = self._shared()
        if self._is_durable and parts.pending >= MIN_FILES:
            self._disks.begin_writing()
        done = parts.stage(meanwhile)
        for step in reversed(self._new):
            if step.attributes is not None:
                self._give_attributes(step)
        return done

    def changes(self) -> Iterator[bytes]:
        """What the journal has to say before anything takes its place, as lines."""
        yield from self._new_directories.journal_of_outer()
        yield from self._shared().journal()
        yield from map(encode, self._rest())

    def _shared(self) -> Parts:
        """What is shared by two processes, once it is known which directories will change."""
        if self._parts is None:
            raise AssertionError("`touched` comes first")
        return self._parts

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
        yield from (LeftoverDirectory(path) for path in self.plan.outdated_directories)
        yield from (LeftoverLabel(path) for path in self.plan.previous.labels if path not in labelled)

    def switch(self, meanwhile: Callable[[], T]) -> T:
        """Afterwards everything new has its place, and what was there a hidden name.

        Args:
            meanwhile: as before.

        Returns:
            What that has returned.

        Raises:
            StepFailed: the rest was not tried.
        """
        parts = self._shared()
        self._new_states = parts.states()
        for step in self._new_directories.outer:
            self._switcher.switch_directory(step)
        done = parts.switch(meanwhile)
        for step in reversed(self._to_give):
            self._give_attributes(step)
        for path, attributes, _ in self.plan.attributes():
            self._give_label(path, attributes)
        return done

    def manifest_of(self, number: int) -> bytes:
        """The manifest lines of the planned files with this number, once everything has its place."""
        return self._shared().manifest_of(number)

    def forget(self) -> Replaced | None:
        """Remove the files that were replaced, once there is no way back. None when that is to be found out."""
        parts = self._shared()
        try:
            forgotten = parts.forget()
        except StepFailed:
            return None  # another process was killed, and has not done its part
        hiding = parts.hiding()
        return Replaced(
            # Where hidden names are looked for, what is left of these is found again.
            forgotten=[item for item in forgotten if item[0] not in hiding],
            hiding=hiding,
            is_any=any(item.replaced for item in self.findings)
            or any(step.directory.replaces for step in self._new),
            leaves_something=any(True for _entry in self._rest()),
        )

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

    def overwritten(self) -> Iterator[bytes]:
        """Paths of files of ours that were replaced although somebody had changed them."""
        for files, findings in zip(self._files, self.findings, strict=True):
            yield from (files.prefix + files.names[position] for position in findings.overwritten)

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
        """Nothing is done any more, in any process."""
        if self._parts is not None:
            self._parts.close()
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
        for step in self._new_directories.outer:
            if step.directory.parent is not None:
                yield step.directory.parent
        for step in self._to_give:
            yield step.directory
        for files, findings in zip(self._files, self.findings, strict=True):
            if findings.pending is None or findings.pending or findings.adjusted:
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
            wanted = self._wanted(step.directory, step.attributes)
            if not wanted.is_met_by(self._places.status(real)):
                return True
            dir_fd = self._places.of(real)
            return wanted.acls != (place_acl(dir_fd, ACCESS), place_acl(dir_fd, DEFAULT))
        except OSError:
            return True  # and giving them will say why

    def _give_attributes(self, step: PlannedDirectory) -> None:
        """Mode, owner and ACL of a directory that is ours; those of a fresh one, if nothing says otherwise."""
        try:
            self._observe("attributes", step.directory.path)
            wanted = self._wanted(step.directory, step.attributes)
            wanted.give(self._places.of(step.directory.real))
        except OSError as error:
            raise StepFailed(step.directory.path, error) from error

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
            descriptor = self._places.opened(directory.real)
        except PermissionError:
            if has_acls:
                raise
            # It may be possible to write it all the same.
            status = os.stat(b".", dir_fd=self._places.of(directory.real))
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
        return status.st_dev, Touched(directory.real, status.st_ino, *times, *owner, access, default, is_ours)


def _keeping(plan: InstallPlan) -> set[bytes]:
    """Directories that may hold something afterwards that is not ours any more."""
    paths = [*plan.edited, *plan.shared, *plan.outdated_directories]
    return {path.rpartition(b"/")[0] or b"/" for path in paths} | {item.directory for item in plan.removals}

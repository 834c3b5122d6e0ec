"""The work units of an Install, and what is done with each: new directories, and the files of one directory each.

Units are independent of each other: no two of them write the same names, and whoever needs a new directory makes those
that it lies in. Only files with several names in the archive may have them in several units; so these names are left
until all other ones of that phase are done.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeGuard

from agent.install.compare.findings import NewFiles
from agent.install.journal.batches import encode_changes, encode_new_files
from agent.install.journal.entries import MadeFiles, encode
from agent.install.model.directory import Standing
from agent.install.model.steps import PlannedDirectory, PlannedFiles
from agent.install.records.manifest import decode_record, encode_lines, file_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.install.apply.attempt import Attempt
    from agent.install.apply.hidden_names import HiddenRemoval
    from agent.install.apply.new_directories import NewDirectories
    from agent.install.apply.staging import Stager
    from agent.install.apply.switching import Switcher
    from agent.install.compare.findings import Findings
    from agent.install.model.steps import Step


class DirectoryUnit(NamedTuple):
    """A new directory that lies in another new one."""

    step: PlannedDirectory


class FilesUnit(NamedTuple):
    """What changes among the planned files of one directory; `number` is their place among all planned files."""

    number: int
    files: PlannedFiles

    @property
    def is_in_new_directory(self) -> bool:
        """Whether they are made in their places at once, since the directory, or one above it, has a hidden name."""
        return self.files.directory.standing is Standing.NEW


WorkUnit: TypeAlias = DirectoryUnit | FilesUnit


def work_units(
    steps: Iterable[Step], findings: list[Findings], inner: Iterable[PlannedDirectory]
) -> list[WorkUnit]:
    """The units of an Install, in the order of the plan.

    Args:
        steps: of the plan.
        findings: what has been found out about each of the planned files.
        inner: the new directories that lie in other new ones.
    """
    inner_numbers = {step.number for step in inner}
    units: list[WorkUnit] = []
    number = -1
    for step in steps:
        if isinstance(step, PlannedDirectory):
            if step.number in inner_numbers:
                units.append(DirectoryUnit(step))
            continue
        number += 1
        if pending_names(step, findings[number]) or findings[number].adjusted:
            units.append(FilesUnit(number, step))
    return units


def pending_names(files: PlannedFiles, findings: Findings) -> int:
    """Number of names that are to be staged."""
    return len(files.names) if findings.pending is None else len(findings.pending)


class UnitWork:
    """Does with one work unit what each phase does with all of them. The umask must be 0 while it stages.

    Args:
        attempt: whose units they are.
        new: makes directories.
        stager: makes files ready; it holds all that was listed of the previous revision and of the archive.
        switcher: lets them take their places.
    """

    def __init__(self, attempt: Attempt, new: NewDirectories, stager: Stager, switcher: Switcher) -> None:
        self._findings = attempt.findings
        self._places = attempt.places
        self._new = new
        self._stager: Stager | None = stager
        self._switcher = switcher

    def stage(self, unit: WorkUnit) -> None:
        """Make everything of it ready, but for the names of files that have several.

        Raises:
            StepFailed: the rest was not tried.
        """
        if isinstance(unit, DirectoryUnit):
            self._new.make_inner(unit.step.directory)
            return
        files, findings = unit.files, self._findings[unit.number]
        if unit.is_in_new_directory:
            self._new.make_inner(files.directory)
        if self._stager is not None and (findings.pending is None or findings.pending):
            self._stager.stage(files, findings)

    def stage_hard_links(self, unit: WorkUnit) -> None:
        """Make those ready, too, once that is done with all units.

        Raises:
            StepFailed: the rest was not tried.
        """
        if self._stager is not None and self.has_hard_links(unit):
            self._stager.stage_hard_links(unit.files, self._findings[unit.number])

    def end_staging(self) -> None:
        """Nothing is staged any more; what was listed of the previous revision and of the archive goes: that is large."""
        self._stager = None

    def has_hard_links(self, unit: WorkUnit) -> TypeGuard[FilesUnit]:
        """Whether names of files that have several are made ready apart from the rest."""
        return isinstance(unit, FilesUnit) and bool(self._findings[unit.number].hard_links)

    def journal_of(self, unit: WorkUnit) -> bytes:
        """The lines about what was staged.

        Raises:
            StepFailed: a new directory can't be looked at.
        """
        if isinstance(unit, DirectoryUnit):
            return self._new.journal_of(unit.step)
        files, findings = unit.files, self._findings[unit.number]
        real = files.directory.real
        if unit.is_in_new_directory:
            made = MadeFiles(self._new.inode_of(files.directory), real, {})
            return encode(made) + encode_new_files(files.names, findings.lines)
        if isinstance(findings.new, NewFiles):
            return encode_changes(files.number, real, files.names, findings.new.numbers())
        return b""

    def journal_of_adjusted(self, unit: WorkUnit) -> Iterator[bytes]:
        """The lines about files that only get other attributes, one by one: there may be 100,000."""
        if isinstance(unit, FilesUnit):
            yield from (encode(adjusted.was) for adjusted in self._findings[unit.number].adjusted)

    def state_of(self, unit: WorkUnit) -> bytes:
        """The state of a new directory when everything is staged; empty when it can't be told, and for files."""
        return self._new.state_of(unit.step) if isinstance(unit, DirectoryUnit) else b""

    def switch(self, unit: WorkUnit) -> None:
        """Let files take their places, if they have not got them yet.

        Raises:
            StepFailed: the rest was not tried.
        """
        if isinstance(unit, FilesUnit) and not unit.is_in_new_directory:
            self._switcher.switch_files(unit.files, self._findings[unit.number])

    def look_at_hard_links(self, unit: FilesUnit) -> None:
        """Find out how the files with several names are in the end: each changes whenever one of its names does.

        Raises:
            OSError: that can't be told.
        """
        findings = self._findings[unit.number]
        dir_fd = self._places.of(unit.files.directory.real)
        for position in findings.hard_links:
            status = os.stat(unit.files.names[position], dir_fd=dir_fd, follow_symlinks=False)
            record = decode_record(findings.lines[position])
            findings.lines[position] = file_fields(status, record.digest, has_acl=record.has_acl)

    def manifest_of(self, number: int, files: PlannedFiles) -> bytes:
        """The manifest lines of the planned files with this number, once they have their places."""
        return encode_lines(self._findings[number].lines, files.names)

    def remove_replaced(self, unit: WorkUnit) -> HiddenRemoval | None:
        """Remove what files have replaced. None where nothing is left, and for files with several names."""
        if isinstance(unit, DirectoryUnit) or self.has_hard_links(unit):
            return None
        removal = self._switcher.remove_replaced(unit.files, self._findings[unit.number])
        return removal if any(removal) else None

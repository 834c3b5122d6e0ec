"""The phases of an Install, each as a type that has only what the next one needs, so that no other order can be written.

Nothing has changed when it is `Compared`. From `Begun` to `Recorded`, an Install that is interrupted is undone from its
journal; once it is `Committed`, it is completed from it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from agent.install.apply.completion import Replaced
from agent.install.apply.ending import complete_install
from agent.install.apply.journalled import begin_lines, changing_directories, end_entries, look_at
from agent.install.apply.labels import give_label
from agent.install.apply.new_directories import NewDirectories
from agent.install.apply.own_directories import OwnDirectories, StatesToRecord
from agent.install.apply.publishing import (
    manifest_lines,
    stage_cleanup,
    stage_instructions,
    stage_manifest,
)
from agent.install.apply.sharing import SharedUnits
from agent.install.apply.staging import Stager
from agent.install.apply.switching import Switcher
from agent.install.apply.work_units import UnitWork
from agent.install.compare.comparer import Comparer
from agent.install.compare.findings import stage_broken_hard_links
from agent.install.journal.entries import encode
from agent.install.journal.journal import (
    complete_journal,
    mark_committed,
    note_in_journal,
    state_of_records,
    write_journal,
)
from agent.install.model.failures import StepFailed
from agent.install.model.moments import Moment
from agent.install.posix.two_processes import MIN_FILES, SecondProcessKilled, do_all, processes_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.install.apply.attempt import Attempt
    from agent.install.apply.completion import Completion
    from agent.install.apply.publishing import StagedRecord
    from agent.install.compare.findings import Findings
    from agent.install.compare.survey import Survey
    from agent.install.model.attributes import Attributes
    from agent.install.model.directory import Directory
    from agent.install.model.steps import PlannedDirectory


def compare(attempt: Attempt, survey: Survey) -> Compared:
    """Find out what is there already; nothing is changed.

    Args:
        attempt: gets the findings.
        survey: begun for its plan.

    Raises:
        StepFailed: something can't be read.
    """
    survey.complete()
    plan = attempt.plan
    comparer = Comparer(
        plan.previous.files.taken(),
        plan.index.taken(),
        attempt.places,
        attempt.fresh,
        has_looked=plan.repetition is not None,
    )
    _compare_files(attempt, comparer, survey)
    own = OwnDirectories(attempt)
    return Compared(attempt=attempt, comparer=comparer, own=own, differing=own.differing())


def _compare_files(attempt: Attempt, comparer: Comparer, survey: Survey) -> None:
    findings = attempt.findings
    unknown: list[tuple[int, list[int]]] = []
    for number, files in enumerate(attempt.files):
        found, positions = comparer.recognise(files, survey)
        findings.append(found)
        if positions:
            unknown.append((number, positions))
    count = sum(len(positions) for _, positions in unknown)

    def compare(index: int) -> Findings:
        number, positions = unknown[index]
        return comparer.compare(attempt.files[number], findings[number], positions)

    processes = processes_for(count, attempt.request.options.processes)
    answers = do_all(compare, len(unknown), processes=processes)
    for (number, _), found in zip(unknown, answers, strict=True):
        findings[number] = found
    stage_broken_hard_links(findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What is there already is known, and nothing has changed.

    Attributes:
        comparer: holds all that was listed of the previous revision and of the archive.
        own: knows what directories of ours are to have.
        differing: those that have something else.
    """

    attempt: Attempt
    comparer: Comparer
    own: OwnDirectories
    differing: list[PlannedDirectory]

    def begin(self) -> Begun:
        """Write the journal.

        Raises:
            StepFailed, OSError: that is not possible.
        """
        attempt, group = self.attempt, self.attempt.group
        token, fresh = attempt.token.encode(), attempt.fresh
        new = NewDirectories(
            attempt.new_directories,
            token,
            attempt.places,
            fresh=fresh,
            observer=attempt.observe,
            note=partial(note_in_journal, group.journal),
        )
        changing = changing_directories(attempt, new.outer, self.differing)
        stager = Stager(self.comparer, token, attempt.places, fresh, attempt.observe)
        switcher = Switcher(token, attempt.places, fresh, attempt.observe)
        units = SharedUnits(
            attempt,
            new,
            UnitWork(attempt, new, stager, switcher),
            changing=changing,
            look=partial(look_at, attempt),
        )
        attempt.resources.callback(units.close)
        group.directory.mkdir(parents=True, exist_ok=True)
        attempt.observe(Moment.JOURNAL, os.fsencode(group.journal))
        write_journal(group.journal, token, state_of_records(group), _begin_lines(attempt, changing, units))
        return Begun(
            attempt=attempt,
            units=units,
            new=new,
            switcher=switcher,
            own=self.own,
            differing=self.differing,
        )


def _begin_lines(attempt: Attempt, changing: list[Directory], units: SharedUnits) -> Iterator[bytes]:
    """What the journal begins with; the directories are looked at when its file is there already."""
    yield from begin_lines(attempt, zip(changing, units.look(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The journal says which directories will change, and how they are; in them, hidden names may be made."""

    attempt: Attempt
    units: SharedUnits
    new: NewDirectories
    switcher: Switcher
    own: OwnDirectories
    differing: list[PlannedDirectory]

    def stage(self) -> Staged:
        """Make everything ready.

        Raises:
            StepFailed, OSError: the rest was not tried.
        """
        attempt = self.attempt
        is_long = attempt.request.options.durable and self.units.pending >= MIN_FILES
        if is_long and attempt.disks.have_disk():
            # Nothing depends on it: all is synced in the end, and takes less time then.
            attempt.disks.begin_writing()
        instructions = self.units.stage(self._stage_instructions)
        for step in reversed(attempt.new_directories):
            if step.attributes is not None:
                self.own.give(step)
        return Staged(
            attempt=attempt,
            units=self.units,
            new=self.new,
            switcher=self.switcher,
            own=self.own,
            differing=self.differing,
            instructions=instructions,
        )

    def _stage_instructions(self) -> StagedRecord:
        attempt = self.attempt
        attempt.observe(Moment.INSTALL_JSON, os.fsencode(attempt.group.instructions))
        return stage_instructions(
            attempt.group, attempt.token, attempt.request, attempt.plan, syncs=attempt.syncs_records()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """Everything new is there, under hidden names, or in directories that have such names; nothing else has changed.

    Attributes:
        instructions: the new install.json, which waits beside its place.
    """

    attempt: Attempt
    units: SharedUnits
    new: NewDirectories
    switcher: Switcher
    own: OwnDirectories
    differing: list[PlannedDirectory]
    instructions: StagedRecord

    def switch(self) -> Switched:
        """Write the rest of the journal, and then let everything new take its place.

        Raises:
            StepFailed, OSError: the rest was not tried.
        """
        attempt, plan = self.attempt, self.attempt.plan
        attempt.observe(Moment.SWITCH, os.fsencode(attempt.group.journal))
        # I2: all of it is on the disk before the first name changes.
        complete_journal(attempt.group.journal, self._journal())
        states = self.units.states()
        for step in self.new.outer:
            self.switcher.switch_directory(step)
        cleanup = self.units.switch(self._stage_cleanup)
        for step in reversed(self.differing):
            self.own.give(step)
        self.own.check_taken_back(self.units.fields_of)
        for path, attributes, _ in plan.attributes():
            self._give_label(path, attributes)
        return Switched(
            attempt=attempt,
            units=self.units,
            states=StatesToRecord(attempt, self.own, states),
            instructions=self.instructions,
            cleanup=cleanup,
        )

    def _journal(self) -> Iterator[bytes]:
        yield from self.new.journal_of_outer()
        yield from self.units.journal()
        yield from map(encode, end_entries(self.attempt.plan))

    def _stage_cleanup(self) -> StagedRecord:
        attempt = self.attempt
        attempt.observe(Moment.CLEANUP_FILE, os.fsencode(attempt.group.cleanup))
        return stage_cleanup(attempt.group, attempt.token, attempt.plan, syncs=attempt.syncs_records())

    def _give_label(self, path: bytes, attributes: Attributes) -> None:
        context = attributes.permission.context
        if context is None:
            return
        self.attempt.observe(Moment.LABEL, path)
        try:
            is_known = path in self.attempt.plan.previous.labels
            give_label(path, context, self.attempt.places, is_known=is_known)
        except OSError as error:
            raise StepFailed(path, error) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """Everything new has its place, and what it replaces a hidden name.

    Attributes:
        states: what the manifest tells of directories.
        instructions: the new install.json, which waits beside its place.
        cleanup: the new cleanup file, which waits beside its place.
    """

    attempt: Attempt
    units: SharedUnits
    states: StatesToRecord
    instructions: StagedRecord
    cleanup: StagedRecord

    def record(self) -> Recorded:
        """Write the manifest beside its place, and wait for the disks.

        Raises:
            OSError: a disk does not take it.
        """
        attempt, plan = self.attempt, self.attempt.plan
        attempt.observe(Moment.MANIFEST, os.fsencode(attempt.group.manifest))
        stage_manifest(
            attempt.group,
            attempt.token,
            attempt.request,
            plan,
            manifest_lines(plan, self.units.manifest_of, self.states),
            cleanup=self.cleanup,
            instructions=self.instructions,
            syncs=attempt.syncs_records(),
        )
        if attempt.request.options.durable:
            attempt.disks.sync()
        return Recorded(attempt=attempt, units=self.units)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The new records wait beside their places, and everything is on the disk."""

    attempt: Attempt
    units: SharedUnits

    def commit(self) -> Committed:
        """From now on there is no way back.

        Raises:
            OSError: the journal can't be renamed, or the disk does not take that.
        """
        attempt, group = self.attempt, self.attempt.group
        attempt.observe(Moment.COMMIT, os.fsencode(group.journal))
        mark_committed(group.journal, group.committed_journal)
        return Committed(attempt=attempt, units=self.units)


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The Install has taken effect; what is left to do can be done by anybody, from the journal."""

    attempt: Attempt
    units: SharedUnits

    def complete(self) -> Completion:
        """Publish the records and remove the old files.

        Raises:
            CommandFailure: `install-not-completed`.
        """
        attempt = self.attempt
        return complete_install(attempt.group, attempt.observe, self, durable=attempt.request.options.durable)

    def remove_replaced(self) -> Replaced | None:
        """Remove the files that were replaced. None when it is not known what is left of them."""
        try:
            removals = self.units.remove_replaced()
        except SecondProcessKilled:
            return None  # it has not done its part
        attempt, hiding = self.attempt, self.units.hiding()
        return Replaced(
            # Where hidden names are looked for, what is left of these is found again.
            removals=[item for item in removals if item[0] not in hiding],
            hiding=hiding,
            is_any=any(item.replaced for item in attempt.findings)
            or any(step.directory.replaces for step in attempt.new_directories),
            leaves_something=any(True for _entry in end_entries(attempt.plan)),
        )

    def sync(self) -> None:
        """Wait until all that was changed is on the disk.

        Raises:
            OSError: the disk does not take it.
        """
        self.attempt.disks.sync()

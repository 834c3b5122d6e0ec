"""Two processes share the work units of an Install. What is done with a unit, `UnitWork` says, as if there were one.

Each shortcut rests on something:

- Any process may take any unit, at any time of a phase, because units are independent of each other.
- What is known of a unit stays in the process that has staged it, and only the journal's lines and a few numbers go to
  the first one, because that process also switches the unit and removes what it has replaced.
- Names of files that have several are the exception: the first process does them all, in every phase, after the rest.
  So it is told all about the units that have any; and about files that are found to need other attributes only when
  they are staged, which it has to write into the journal.
- That the second process has died before the commit fails the Install, which is undone from the journal alone. After
  the commit it does not matter: what it has not removed is found again by its hidden names.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from agent.install.apply.work_units import DirectoryUnit, FilesUnit, pending_names, work_units
from agent.install.posix.two_processes import Crew, processes_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.install.apply.attempt import Attempt
    from agent.install.apply.hidden_names import HiddenRemoval
    from agent.install.apply.new_directories import NewDirectories
    from agent.install.apply.work_units import UnitWork
    from agent.install.compare.findings import Findings
    from agent.install.model.directory import Directory

T = TypeVar("T")

_NOTHING = (0, 0, 0, 0)

_Told: TypeAlias = "tuple[bytes, tuple[int, int, int, int], Findings | None]"
"""What the first process is told of a unit that is staged: the journal's lines about what is new; numbers of files
created, replaced and unchanged, and of bytes copied; and all that is known, where it has to go on with it itself."""


class SharedUnits:
    """All work units of one Install. Close it in the end.

    Each phase raises StepFailed, or OSError when the other process has died; then there is nothing to be done but to
    close it.

    Args:
        attempt: whose units they are, as soon as its findings are complete.
        new: the directories that are to be made.
        work: does what is to be done with one unit.
        changing: the directories that are there and will change.
        look: looks at one of them.

    Attributes:
        pending: number of names that are to be staged.
    """

    def __init__(
        self,
        attempt: Attempt,
        new: NewDirectories,
        work: UnitWork,
        *,
        changing: list[Directory],
        look: Callable[[Directory], tuple[int, bytes]],
    ) -> None:
        findings, files = attempt.findings, attempt.files
        self.pending = sum(map(pending_names, files, findings))
        self._findings = findings
        self._files = files
        self._new = new
        self._work = work
        self._changing = changing
        self._look_at = look
        self._units = work_units(attempt.plan.steps, findings, new.inner)
        self._journal: list[bytes] = []
        self._lines: dict[int, bytes] = {}
        adjusted = sum(len(item.adjusted) for item in findings)
        count = max(len(changing), self.pending + adjusted + len(new))
        with _all_modes():
            self._crew = Crew(
                self._look,
                self._stage,
                self._state_of,
                self._switch,
                self._remove_replaced,
                processes=processes_for(count, attempt.request.options.processes),
            )

    def close(self) -> None:
        """Nothing is done any more, in either process."""
        self._crew.close()

    def look(self) -> list[tuple[int, bytes]]:
        """What `look` finds out about the directories that will change."""
        return self._crew.begin(self._look, len(self._changing))()

    def stage(self, meanwhile: Callable[[], T]) -> T:
        """Make everything new, under hidden names or in directories that have such names.

        Args:
            meanwhile: what this process does while the other one has begun already.

        Returns:
            What that has returned.
        """
        with _all_modes():
            self._new.make_outer()
        complete = self._crew.begin(self._stage, len(self._units))
        done = meanwhile()
        with _all_modes():
            for unit, (journal, counts, findings) in zip(self._units, complete(), strict=True):
                lines = journal
                if isinstance(unit, FilesUnit):
                    if findings is None:
                        self._findings[unit.number].count(*counts)
                    else:
                        self._findings[unit.number] = findings
                        self._work.stage_hard_links(unit)
                        lines = self._work.journal_of(unit)
                self._journal.append(lines)
            self._work.end_staging()
        return done

    def journal(self) -> Iterator[bytes]:
        """What the journal has to say about all units when they are staged, as lines.

        Where only attributes change, these are made one by one: there may be 100,000, which this process knows anyway.
        """
        taken, self._journal = self._journal, []
        for unit, lines in zip(self._units, taken, strict=True):
            yield lines
            yield from self._work.journal_of_adjusted(unit)

    def states(self) -> dict[bytes, bytes]:
        """The states of the new directories that have no hidden names, by their real path, when everything is staged."""
        if not self._new.inner:
            return {}
        states = self._crew.begin_again(self._state_of)()
        return {
            unit.step.directory.real: state
            for unit, state in zip(self._units, states, strict=True)
            if isinstance(unit, DirectoryUnit)
        }

    def switch(self, meanwhile: Callable[[], T]) -> T:
        """Let all files take their places; those in new directories have them already.

        Args:
            meanwhile: what this process does while the other one has begun already.

        Returns:
            What that has returned.
        """
        complete = self._crew.begin_again(self._switch)
        done = meanwhile()
        hard_linked: list[FilesUnit] = []
        for unit, lines in zip(self._units, complete(), strict=True):
            if self._work.has_hard_links(unit):
                self._work.switch(unit)
                hard_linked.append(unit)
            elif isinstance(unit, FilesUnit):
                self._lines[unit.number] = lines
        for unit in hard_linked:
            self._work.look_at_hard_links(unit)
        return done

    def manifest_of(self, number: int) -> bytes:
        """The manifest lines of these planned files, once they have their places; to be asked once."""
        lines = self._lines.pop(number, None)
        return self._work.manifest_of(number, self._files[number]) if lines is None else lines

    def fields_of(self, number: int) -> list[bytes]:
        """The same without the names, in their order; to be asked before."""
        lines = self._lines.get(number)
        if lines is None:
            return self._findings[number].lines
        return [line.rpartition(b" ")[0] for line in lines.split(b"\n")[:-1]]

    def remove_replaced(self) -> list[tuple[bytes, HiddenRemoval]]:
        """Remove what was replaced, but by files that have several names; what came of it, where that was something."""
        answers = self._crew.begin_again(self._remove_replaced)()
        return [
            (unit.files.directory.real, removal)
            for unit, removal in zip(self._units, answers, strict=True)
            if removal is not None and isinstance(unit, FilesUnit)
        ]

    def hiding(self) -> set[bytes]:
        """Directories that may still hold hidden names then."""
        outer = {step.directory.real.rpartition(b"/")[0] or b"/" for step in self._new.outer}
        hard_linked = {
            unit.files.directory.real
            for unit in self._units
            if self._work.has_hard_links(unit) and not unit.is_in_new_directory
        }
        return outer | hard_linked

    def _look(self, number: int) -> tuple[int, bytes]:
        return self._look_at(self._changing[number])

    def _stage(self, number: int) -> _Told:
        unit = self._units[number]
        if isinstance(unit, DirectoryUnit):
            self._work.stage(unit)
            return self._work.journal_of(unit), _NOTHING, None
        findings = self._findings[unit.number]
        adjusted_before = len(findings.adjusted)
        self._work.stage(unit)
        if findings.hard_links or len(findings.adjusted) > adjusted_before:
            return b"", _NOTHING, findings
        return self._work.journal_of(unit), findings.counts(), None

    def _state_of(self, number: int) -> bytes:
        return self._work.state_of(self._units[number])

    def _switch(self, number: int) -> bytes:
        unit = self._units[number]
        if isinstance(unit, DirectoryUnit) or self._work.has_hard_links(unit):
            return b""
        self._work.switch(unit)
        lines = self._work.manifest_of(unit.number, unit.files)
        self._findings[unit.number].lines = []
        return lines

    def _remove_replaced(self, number: int) -> HiddenRemoval | None:
        return self._work.remove_replaced(self._units[number])


@contextmanager
def _all_modes() -> Iterator[None]:
    """What is made meanwhile gets the very mode that it is made with."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)

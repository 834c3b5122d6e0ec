"""What an Install changes, in parts that two processes share: new directories, and the files of one directory each.

Whoever makes the files of a part ready also lets them take their places, and removes what they replace:
so most of what is known of them never leaves that process.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from agent.install.apply.staging import Links
from agent.install.compare.findings import NewFiles
from agent.install.journal.entries import MadeFiles, encode, encode_changes, encode_new_files
from agent.install.model.directory import Standing
from agent.install.model.failures import StepFailed
from agent.install.model.steps import PlannedDirectory, PlannedFiles
from agent.install.posix.two_processes import Crew, processes_for
from agent.install.records.manifest import decode_record, encode_lines, file_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agent.install.apply.hidden_names import Forgotten
    from agent.install.apply.new_directories import NewDirectories
    from agent.install.apply.staging import Stager
    from agent.install.apply.switching import Switcher
    from agent.install.compare.findings import Findings
    from agent.install.model.directory import Directory
    from agent.install.model.steps import Step
    from agent.install.posix.places import Places

T = TypeVar("T")

_NOTHING = (0, 0, 0, 0)


_Ready: TypeAlias = "tuple[bytes, tuple[int, int, int, int], Findings | None]"
"""A part that is staged: the journal's lines about what is new; numbers of files created, replaced and unchanged, and
of bytes copied; and all of it, where the first process has to know more: of files that have several names, or are
found to need other attributes only now."""


class Tools(NamedTuple):
    """Who does what is to be done, in either process."""

    places: Places
    new: NewDirectories
    switcher: Switcher
    look: Callable[[Directory], tuple[int, bytes]]


class Parts:
    """The parts of one Install. Close it in the end.

    The steps are to be done in order. Each raises StepFailed; then there is nothing to be done but to close it.

    Args:
        steps: of the plan.
        findings: what has been found out about each of the planned files, in the order of the plan.
        changing: the directories that are there and will change.
        stager: makes files ready.
        tools: do what else is to be done.
        processes: how many there may be, where there is much to be done.

    Attributes:
        pending: number of names that are to be made ready.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        findings: list[Findings],
        changing: list[Directory],
        stager: Stager,
        tools: Tools,
        *,
        processes: int,
    ) -> None:
        self.pending = 0
        self._files = [step for step in steps if isinstance(step, PlannedFiles)]
        self._findings = findings
        self._changing = changing
        self._stager: Stager | None = stager
        self._tools = tools
        self._parts: list[PlannedDirectory | int] = []  # of files, it is the number
        self._journal: list[bytes] = []
        self._lines: dict[int, bytes] = {}
        self._divide(steps)
        adjusted = sum(len(item.adjusted) for item in findings)
        count = max(len(changing), self.pending + adjusted + len(tools.new))
        with _all_modes():
            self._crew = Crew(
                self._look,
                self._stage,
                self._state_of,
                self._switch,
                self._forget,
                processes=processes_for(count, processes),
            )

    def close(self) -> None:
        """Nothing is done any more, in either process."""
        self._crew.close()

    def look(self) -> list[tuple[int, bytes]]:
        """What `tools` finds out about the directories that will change."""
        return self._crew.begin(self._look, len(self._changing))()

    def stage(self, meanwhile: Callable[[], T]) -> T:
        """Afterwards everything new exists, under hidden names or in directories that have such names.

        Args:
            meanwhile: what this process does while the other one has begun already.

        Returns:
            What that has returned.
        """
        with _all_modes():
            self._tools.new.make_outer()
        complete = self._crew.begin(self._stage, len(self._parts))
        done = meanwhile()
        with _all_modes():
            answers = complete()
            # What was listed of the previous revision and of the archive goes with it: that is large.
            stager, self._stager = self._stager, None
            links = Links()
            for part, (journal, counts, findings) in zip(self._parts, answers, strict=True):
                if isinstance(part, PlannedDirectory):
                    self._journal.append(journal)
                elif findings is None or stager is None:
                    self._journal.append(journal)
                    self._findings[part].count(*counts)
                else:
                    self._findings[part] = findings
                    if findings.linked:
                        stager.stage_linked(self._files[part], findings, links)
                    self._journal.append(self._journal_of(part))
        return done

    def journal(self) -> Iterator[bytes]:
        """What the journal has to say about all parts, as lines.

        Where only attributes change, these are made one by one: there may be 100,000, which this process knows anyway.
        """
        taken, self._journal = self._journal, []
        for part, lines in zip(self._parts, taken, strict=True):
            yield lines
            if not isinstance(part, PlannedDirectory):
                yield from (encode(adjusted.was) for adjusted in self._findings[part].adjusted)

    def states(self) -> dict[bytes, bytes]:
        """The states of the new directories that have no hidden names, by their real path."""
        if not self._tools.new.inner:
            return {}
        states = self._crew.begin_again(self._state_of)()
        return {
            part.directory.real: state
            for part, state in zip(self._parts, states, strict=True)
            if isinstance(part, PlannedDirectory)
        }

    def switch(self, meanwhile: Callable[[], T]) -> T:
        """Afterwards all files have their places; those in new directories have them already.

        Args:
            meanwhile: as before.

        Returns:
            What that has returned.
        """
        complete = self._crew.begin_again(self._switch)
        done = meanwhile()
        answers = complete()
        for part, lines in zip(self._parts, answers, strict=True):
            if isinstance(part, PlannedDirectory):
                continue
            files, findings = self._files[part], self._findings[part]
            if findings.linked:
                self._tools.switcher.switch_files(files, findings)
            else:
                self._lines[part] = lines
        # What has several names changes whenever one of them does.
        for part in self._parts:
            if not isinstance(part, PlannedDirectory) and self._findings[part].linked:
                self._look_again(self._files[part], self._findings[part])
        return done

    def manifest_of(self, number: int) -> bytes:
        """The manifest lines of these planned files, once they have their places."""
        lines = self._lines.pop(number, None)
        return (
            encode_lines(self._findings[number].lines, self._files[number].names) if lines is None else lines
        )

    def forget(self) -> list[tuple[bytes, Forgotten]]:
        """Remove what was replaced, but by files that have several names; what came of it, where that was something."""
        answers = self._crew.begin_again(self._forget)()
        return [
            (self._files[part].directory.real, forgotten)
            for part, forgotten in zip(self._parts, answers, strict=True)
            if forgotten is not None and not isinstance(part, PlannedDirectory)
        ]

    def hiding(self) -> set[bytes]:
        """Directories that may still hold hidden names then."""
        outer = {step.directory.real.rpartition(b"/")[0] or b"/" for step in self._tools.new.outer}
        linked = {
            files.directory.real
            for files, findings in zip(self._files, self._findings, strict=True)
            if findings.linked and files.directory.standing is not Standing.NEW
        }
        return outer | linked

    def _divide(self, steps: Sequence[Step]) -> None:
        inner = {step.number for step in self._tools.new.inner}
        number = -1
        for step in steps:
            if isinstance(step, PlannedDirectory):
                if step.number in inner:
                    self._parts.append(step)
                continue
            number += 1
            findings = self._findings[number]
            pending = len(step.names) if findings.pending is None else len(findings.pending)
            self.pending += pending
            if pending or findings.adjusted:
                self._parts.append(number)

    def _look(self, number: int) -> tuple[int, bytes]:
        directory = self._changing[number]
        try:
            return self._tools.look(directory)
        except OSError as error:
            raise StepFailed(directory.path, error) from error

    def _stage(self, number: int) -> _Ready:
        part, new = self._parts[number], self._tools.new
        if isinstance(part, PlannedDirectory):
            new.make_inner(part.directory)
            return new.journal_of(part), _NOTHING, None
        files, findings = self._files[part], self._findings[part]
        if files.directory.standing is Standing.NEW:
            new.make_inner(files.directory)
        adjusted_before = len(findings.adjusted)
        if self._stager is not None and (findings.pending is None or findings.pending):
            self._stager.stage(files, findings)
        if findings.linked or len(findings.adjusted) > adjusted_before:
            return b"", _NOTHING, findings
        return self._journal_of(part), findings.counts(), None

    def _journal_of(self, number: int) -> bytes:
        files, findings = self._files[number], self._findings[number]
        real = files.directory.real
        if files.directory.standing is Standing.NEW:
            made = MadeFiles(self._tools.new.inode_of(files.directory), real, {})
            return encode(made) + encode_new_files(files.names, findings.lines)
        if isinstance(findings.new, NewFiles):
            return encode_changes(files.number, real, files.names, findings.new.numbers())
        return b""

    def _state_of(self, number: int) -> bytes:
        part = self._parts[number]
        return self._tools.new.state_of(part) if isinstance(part, PlannedDirectory) else b""

    def _switch(self, number: int) -> bytes:
        part = self._parts[number]
        if isinstance(part, PlannedDirectory):
            return b""
        files, findings = self._files[part], self._findings[part]
        if findings.linked:
            return b""  # the first process knows it
        if files.directory.standing is not Standing.NEW:
            self._tools.switcher.switch_files(files, findings)
        lines, findings.lines = findings.lines, []
        return encode_lines(lines, files.names)

    def _forget(self, number: int) -> Forgotten | None:
        part = self._parts[number]
        if isinstance(part, PlannedDirectory) or self._findings[part].linked:
            return None
        forgotten = self._tools.switcher.forget_replaced(self._files[part], self._findings[part])
        return forgotten if any(forgotten) else None

    def _look_again(self, files: PlannedFiles, findings: Findings) -> None:
        dir_fd = self._tools.places.of(files.directory.real)
        for position in findings.linked:
            status = os.stat(files.names[position], dir_fd=dir_fd, follow_symlinks=False)
            record = decode_record(findings.lines[position])
            findings.lines[position] = file_fields(status, record.digest, has_acl=record.has_acl)


@contextmanager
def _all_modes() -> Iterator[None]:
    """What is made meanwhile gets the very mode that it is made with."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)

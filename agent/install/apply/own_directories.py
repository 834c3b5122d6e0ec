"""The directories that are ours: their attributes, and the states that the manifest tells of them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from agent.install.apply.taken_back import TakenBack
from agent.install.attributes.of_new_directories import handed_down_at
from agent.install.model.directory import Standing
from agent.install.model.failures import StepFailed
from agent.install.model.moments import Moment
from agent.install.model.steps import PlannedDirectory
from agent.install.posix.acl import ACCESS, DEFAULT, place_acl
from agent.install.posix.two_processes import do_all, processes_for
from agent.install.records.manifest import UNKNOWN_STATE, attributes_in_state, unknown_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.install.apply.attempt import Attempt
    from agent.install.attributes.of_new_directories import WantedDirectory
    from agent.install.model.attributes import Attributes
    from agent.install.model.directory import Directory


class OwnDirectories:
    """Attributes of the directories that earlier Installs have made, or that this one makes."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._plan = attempt.plan
        self._places = attempt.places
        self._fresh = attempt.fresh
        self._taken_back = TakenBack(
            attempt.places, lambda step: self.wanted(step.directory, step.attributes)
        )

    def wanted(self, directory: Directory, attributes: Attributes | None) -> WantedDirectory:
        """What one is to have: what a fresh one would get there, and what `permissions` gives to it.

        Raises:
            OSError: what is above it can't be looked at.
        """
        fresh = self._fresh.of(directory)
        return fresh if attributes is None else fresh.changed(attributes)

    def give(self, step: PlannedDirectory) -> None:
        """Give one what it is to have.

        Raises:
            StepFailed: the system refuses that.
        """
        try:
            self._attempt.observe(Moment.ATTRIBUTES, step.directory.path)
            wanted = self.wanted(step.directory, step.attributes)
            if wanted.give(self._places.of(step.directory.real)):
                self._taken_back.add(step.directory.real)
        except OSError as error:
            raise StepFailed(step.directory.path, error) from error

    def check_taken_back(self, lines_of: Callable[[int], list[bytes]]) -> None:
        """What is planned where giving that has shut somebody out, and below, is what it was when it had its place.

        Args:
            lines_of: gives the fields of the manifest lines of planned files, by their index.

        Raises:
            StepFailed: something is not.
        """
        steps = [step for step in self._plan.steps if isinstance(step, PlannedDirectory)]
        self._taken_back.check(steps, self._attempt.files, lines_of)

    def differing(self) -> list[PlannedDirectory]:
        """Those made by earlier Installs that have not what they are to have, in the order of the plan; nothing is changed.

        `FreshDirectories.differing` then has those that hand down something else until this Install is done.
        """
        steps = [step for step in self._plan.steps if isinstance(step, PlannedDirectory)]
        ours = [step for step in steps if step.directory.standing is Standing.OURS]
        differing: list[PlannedDirectory] = []
        doubtful: list[PlannedDirectory] = []
        for step in ours:
            differs = self._differs_by_state(step)
            if differs is None:
                doubtful.append(step)
            elif differs:
                differing.append(step)
        answers = do_all(
            lambda number: self._differs(doubtful[number]),
            len(doubtful),
            processes=processes_for(len(doubtful), self._attempt.request.options.processes),
        )
        differing += [step for step, differs in zip(doubtful, answers, strict=True) if differs]
        differing.sort(key=lambda step: step.number)
        numbers = {step.number for step in differing}
        for step in ours:
            if step.number in numbers or step.attributes:
                self._compare_handed_down(step.directory)
        return differing

    def _differs_by_state(self, step: PlannedDirectory) -> bool | None:
        """Whether a directory has other attributes than it is to have; None when that has to be looked at.

        A directory that is in the state that the manifest tells has not changed since that was written, which includes
        its mode, owner and group; and it had no ACLs then. So it need not be looked at.
        """
        state = self._plan.previous.untouched.get(step.directory.real)
        if state is None:
            return None
        try:
            wanted = self.wanted(step.directory, step.attributes)
        except OSError:
            return True  # and giving them will say why
        if wanted.has_acls:
            return None
        return not state.endswith(attributes_in_state(wanted.mode, wanted.uid, wanted.gid))

    def _differs(self, step: PlannedDirectory) -> bool:
        """Whether a directory that is looked at now has other attributes than it is to have."""
        real = step.directory.real
        try:
            wanted = self.wanted(step.directory, step.attributes)
            if not wanted.is_met_by(self._places.status(real)):
                return True
            dir_fd = self._places.of(real)
            return wanted.acls != (place_acl(dir_fd, ACCESS), place_acl(dir_fd, DEFAULT))
        except OSError:
            return True  # and giving them will say why

    def _compare_handed_down(self, directory: Directory) -> None:
        """Find out whether a directory hands down something else until everything has its place."""
        with suppress(OSError):  # whoever makes something there will say why
            if handed_down_at(self._places.of(directory.real)) != self._fresh.handed_down(directory):
                self._fresh.differing.add(directory.real)


class StatesToRecord:
    """The states that the manifest is to tell of directories. To be asked when everything has its place.

    Whatever this Install, or somebody else, has changed in a directory since it was looked at has given it another
    state, which is as good as none.

    Args:
        attempt: whose manifest it is.
        own: knows what they are to have.
        new: states of new directories, by the real path, as far as they are known.
    """

    def __init__(self, attempt: Attempt, own: OwnDirectories, new: dict[bytes, bytes]) -> None:
        plan = attempt.plan
        self._own = own
        self._places = attempt.places
        self._new = new
        self._old = plan.states
        paths = [*plan.edited, *plan.shared, *plan.outdated_directories]
        # They may hold something afterwards that is not ours any more.
        self._keeping = {path.rpartition(b"/")[0] or b"/" for path in paths}
        self._keeping.update(removal.directory for removal in plan.removals)

    def of(self, step: PlannedDirectory) -> bytes:
        """The state that this directory is in while it holds just what is ours; or, where that can't be told, which it is."""
        return self._known(step) or self.which(step.directory.real)

    def which(self, real: bytes) -> bytes:
        """Which directory this is, whatever state it is in."""
        try:
            return unknown_state(self._places.inode(real))
        except OSError:
            return UNKNOWN_STATE

    def _known(self, step: PlannedDirectory) -> bytes:
        real = step.directory.real
        try:
            if self._own.wanted(step.directory, step.attributes).has_acls:
                return b""
        except OSError:
            return b""
        if step.directory.standing is Standing.OURS:
            return b"" if real in self._keeping else self._old[real]
        return self._new.get(real, b"")

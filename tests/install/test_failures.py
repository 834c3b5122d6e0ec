"""I6: Install is all or nothing, whatever fails, and wherever."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

import pytest

from agent.errors import CommandFailure
from agent.install import install
from tests.install.children import before_each_change, in_child, killed_before
from tests.install.host import Host, failure_of
from tests.install.reinstall import Reinstall, moment_of_kill

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.install.model.moments import Moment
    from tests.install.reinstall import State

ERRORS = [errno.EIO, errno.ENOSPC, errno.EPERM]
IDS = {errno.EIO: "install-failed", errno.ENOSPC: "install-disk-full", errno.EPERM: "install-failed"}


class Stop(Exception):
    """What the observer raises: not an error that Install knows about."""


class Fault:
    """Counts changes, and raises at those with the given numbers."""

    def __init__(self) -> None:
        self.count = 0
        self._errors: dict[int, BaseException] = {}

    def arm(self, *numbers: int, error: BaseException) -> None:
        """From now on count anew, and raise at these."""
        self.count = 0
        self._errors = dict.fromkeys(numbers, error)

    def disarm(self) -> None:
        """From now on nothing is raised."""
        self._errors = {}

    def __call__(self, *_: object) -> None:
        """One change is about to happen."""
        self.count += 1
        error = self._errors.get(self.count)
        if error is not None:
            raise error


def test_a_failure_at_any_step_puts_everything_back(host: Host) -> None:
    """Half a revision is worse than the old one: whatever fails, the application must run as before."""
    reinstall, fault = Reinstall(host), Fault()
    outcomes: list[str] = []
    while True:
        before = reinstall.begin()
        number = len(outcomes) + 1
        code = ERRORS[number % 3]
        fault.arm(number, error=OSError(code, "a made-up error"))
        failure = failure_of(lambda: reinstall.install(fault))
        if failure is not None:
            outcomes.append(failure.error_id)
            assert failure.error_id in {IDS[code], "install-not-completed"}
            assert code == errno.ENOSPC or "a made-up error" in failure.message
        elif fault.count < number:
            break
        else:
            outcomes.append("none")  # what stays behind while old files go, fails no Install
        if outcomes[-1] == IDS[code]:
            assert "old" == reinstall.revision(before), f"step {number}"
        assert not host.recover()
        assert ("old" if outcomes[-1] == IDS[code] else "new") == whole(reinstall, before)
        reinstall.reset()
    assert len(outcomes) > 20
    assert {"install-failed", "install-disk-full"} < set(outcomes)


def whole(reinstall: Reinstall, before: State) -> str:
    """Which revision is there, but for old files that could not be removed."""
    if reinstall.state() == before:
        return "old"
    expected = reinstall.delivered.tree
    found = reinstall.state().as_delivered().tree
    assert expected == {name: found.get(name) for name in expected}
    return "new"


def test_a_failing_system_call_puts_everything_back(host: Host) -> None:
    """The same, for each single change of the file system that Install makes, with the errors of bad disks."""
    outcomes = in_child(lambda: outcomes_of_failing_changes(Reinstall(host)))

    assert {"install-failed", "install-disk-full"} <= outcomes
    assert outcomes <= {"install-failed", "install-disk-full", "install-not-completed", "done"}


@pytest.mark.parametrize("later", [1, 2, 3, 5, 8, 13, 21])
def test_an_undo_that_fails_is_completed_by_the_next_recovery(host: Host, later: int) -> None:
    """A disk that is full or sick fails the undo as well; the operator mends it, and the agent goes on."""
    outcomes = in_child(lambda: outcomes_of_failing_changes(Reinstall(host), later))

    assert "install-undo-incomplete" in outcomes
    assert outcomes <= {"install-failed", "install-undo-incomplete", "install-not-completed", "done"}


def outcomes_of_failing_changes(reinstall: Reinstall, *later: int) -> set[str]:
    """Let each change of a reinstall fail in turn, and those that come so much later; each time, recover.

    Returns:
        How these Installs ended. Fails when one left anything but one whole revision.
    """
    fault = Fault()
    before_each_change(fault)
    outcomes: set[str] = set()
    problems: list[str] = []
    number = 0
    while True:
        number += 1
        before = reinstall.begin()
        code = errno.EIO if later else ERRORS[number % 3]
        fault.arm(number, *(number + more for more in later), error=OSError(code, "a made-up error"))
        outcome = outcome_of(reinstall.install)
        count = fault.count
        fault.disarm()
        if outcome == "done" and count < number:
            assert not problems, "\n".join([f"{len(problems)} problems", *problems[:8], *problems[-4:]])
            return outcomes
        outcomes.add(outcome)
        reinstall.host.recover()
        revision, leftovers = whole(reinstall, before), reinstall.host.leftovers()
        expected = "new" if outcome in {"done", "install-not-completed"} else "old"
        if revision != expected or leftovers or outcome.startswith("untranslated"):
            problems.append(f"change {number}, {errno.errorcode[code]}: {outcome}, {revision}, {leftovers}")
        reinstall.reset()


@pytest.mark.parametrize("wanted", ["old", "new"])
def test_a_recovery_that_fails_says_so_and_can_be_repeated(host: Host, wanted: str) -> None:
    """The disk that stopped the Install stops its recovery as well, until the operator has mended it."""
    reinstall = Reinstall(host)
    moment = moment_of_kill(reinstall, wanted)

    def body() -> list[str]:
        fault = Fault()
        outcomes: list[str] = []
        before_each_change(fault)
        while True:
            before = reinstall.begin()
            assert killed_before(moment, reinstall.install)
            fault.arm(len(outcomes) + 1, error=OSError(errno.EIO, "a made-up error"))
            outcomes.append(outcome_of(host.recover))
            count = fault.count
            fault.disarm()
            host.recover()
            assert wanted == reinstall.revision(before), f"change {len(outcomes)}"
            reinstall.reset()
            if count < len(outcomes):
                return outcomes

    outcomes = in_child(body)

    expected = {"old": "install-undo-incomplete", "new": "install-not-completed"}[wanted]
    assert {expected, "done"} == set(outcomes)


def outcome_of(act: Callable[[], object]) -> str:
    """The id of the failure, or `done`."""
    try:
        failure = failure_of(act)
    except OSError as error:
        return f"untranslated {error!r}"
    return "done" if failure is None else failure.error_id


def test_an_undo_that_is_killed_can_be_repeated(host: Host) -> None:
    """Power may fail while a failed Install is being put back."""
    reinstall = Reinstall(host)
    steps = steps_until_commit(reinstall)
    fault, number = Fault(), steps // 2
    before = reinstall.begin()
    while killed_before(number, lambda _count: failing_install(reinstall, fault, steps)):
        number += 1
        host.recover()

        assert "old" == reinstall.revision(before)
    assert number > steps + 10


def failing_install(reinstall: Reinstall, fault: Fault, step: int) -> None:
    """An Install that fails at this step."""
    fault.arm(step, error=OSError(errno.EIO, "a made-up error"))
    with pytest.raises(CommandFailure, match="a made-up error"):
        reinstall.install(fault)


def steps_until_commit(reinstall: Reinstall) -> int:
    """How many steps are observed until a failure would no longer be undone."""
    fault, number = Fault(), 0
    while True:
        before = reinstall.begin()
        fault.arm(number + 1, error=OSError(errno.EIO, "a made-up error"))
        outcome_of(lambda: reinstall.install(fault))
        if reinstall.state() != before:
            reinstall.host.recover()
            reinstall.reset()
            return number
        number += 1


def test_an_interruption_puts_everything_back_as_well(host: Host) -> None:
    """When the worker is told to end in the middle, nobody translates that into an Install error."""
    reinstall, fault = Reinstall(host), Fault()
    before = reinstall.begin()
    for number in range(1, steps_until_commit(Reinstall(Host(host.base / "other"))) + 1):
        fault.arm(number, error=Stop())

        with pytest.raises(Stop):
            reinstall.install(fault)

        assert before == reinstall.state(), f"step {number}"


def test_after_a_failure_the_same_revision_can_be_installed(host: Host) -> None:
    """The second try must find the host as the first one did."""
    reinstall, fault = Reinstall(host), Fault()
    before = reinstall.begin()
    for number in range(1, 13):
        fault.arm(number, error=OSError(errno.EIO, "a made-up error"))
        assert "install-failed" == outcome_of(lambda: reinstall.install(fault))

    reinstall.install()

    assert "new" == reinstall.revision(before)


def test_a_file_that_appears_while_installing_is_not_overwritten(host: Host) -> None:
    """Between the plan and the last step another program may have made a file of that name."""
    theirs = host.dest / "app/new.txt"
    failed = succeeded = 0
    for number in range(1, 100):
        host.install({"app/a": "a"})
        was_made = False
        fault = Fault()

        def observe(_kind: Moment, _path: bytes, number: int = number, fault: Fault = fault) -> None:
            nonlocal was_made
            fault()
            if fault.count == number and not theirs.exists():
                theirs.write_text("somebody else's")
                was_made = True

        request = host.request({"app/a": "a", "app/new.txt": "ours"})
        failure = failure_of(partial(install, request, observer=observe))
        assert (was_made, "somebody else's" if was_made else "ours") == (
            failure is not None,
            theirs.read_text(),
        )
        if failure is None:
            succeeded += 1
        else:
            failed += 1
            assert "new.txt" in failure.message
            theirs.unlink()
        if fault.count < number:
            break
    assert failed > 2
    assert succeeded > 0


def test_a_full_disk_is_named_with_numbers(host: Host) -> None:
    """The operator has to know how much to free."""
    fault = Fault()
    fault.arm(3, error=OSError(errno.ENOSPC, "No space left on device"))

    with pytest.raises(CommandFailure) as caught:
        host.install({"app/a": "x" * 5000}, observer=fault)

    assert caught.value.error_id == "install-disk-full"
    assert "needs 5000 bytes" in caught.value.message
    assert "inodes" in caught.value.message
    assert not host.dest.exists()


def test_a_file_that_vanishes_while_installing_does_not_confuse_the_undo(host: Host) -> None:
    """Somebody removed by hand what was to be replaced, and then a later step failed."""
    host.install({"app/a": "1", "app/b": "1"})
    request = host.request({"app/a": "2", "app/b": "2"})
    total = Fault()
    install(request, observer=total)
    host.install({"app/a": "1", "app/b": "1"})
    for number in range(1, total.count):
        fault = Fault()
        fault.arm(number + 1, error=OSError(errno.EIO, "a made-up error"))

        def observe(_kind: Moment, _path: bytes, number: int = number, fault: Fault = fault) -> None:
            if fault.count == number - 1:
                (host.dest / "app/a").unlink(missing_ok=True)
            fault()

        outcome = outcome_of(partial(install, request, observer=observe))
        host.recover()

        kept = "1" if outcome == "install-failed" else "2"
        assert host.tree()["app/b"] == kept
        assert host.tree().get("app/a", kept) == kept
        assert [] == host.leftovers()
        host.install({"app/a": "1", "app/b": "1"})


def test_an_error_while_old_files_go_leaves_the_new_revision_and_can_be_completed(host: Host) -> None:
    """The switch has happened; what is left is tidying up."""
    fault = Fault()
    outcomes: list[str] = []
    first, second = host.request({"app/a": "1", "app/old": "o"}), host.request({"app/a": "2"})
    while True:
        install(first)
        fault.arm(len(outcomes) + 1, error=OSError(errno.EIO, "a made-up error"))
        outcomes.append(outcome_of(lambda: install(second, observer=fault)))
        if fault.count < len(outcomes):
            break
        assert not host.recover()
        if outcomes[-1] == "install-not-completed":
            assert {"app/": None, "app/a": "2"} == host.tree()
            assert ["@DEST@", "@DEST@/app", "@DEST@/app/a"] == host.cleanup()
        assert [] == host.leftovers()
    assert {"install-failed", "install-not-completed", "done"} == set(outcomes)


def test_an_old_file_that_could_not_be_removed_stays_ours(host: Host) -> None:
    """Otherwise the revision that brings it back is refused, because of a file that we put there."""
    for number in range(1, 100):
        host.install({"app/a": "1", "app/old": "o"})
        fault = Fault()
        fault.arm(number, error=OSError(errno.EIO, "a made-up error"))
        outcome_of(partial(host.install, {"app/a": "2"}, observer=fault))
        if fault.count < number:
            break

        host.install({"app/a": "3", "app/old": "again"})

        assert {"app/": None, "app/a": "3", "app/old": "again"} == host.tree()

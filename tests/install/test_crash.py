"""I1, I3, I8 and I9: the worker dies, whenever it likes: afterwards one revision is whole, and the next Install works."""

from __future__ import annotations

import os
import random
import resource
import signal
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from tests.install.children import killed_before, start
from tests.install.reinstall import BESIDE, Reinstall, moment_of_kill

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.install.host import Host
    from tests.install.reinstall import State


def test_a_kill_before_any_change_leaves_one_whole_revision(host: Host) -> None:
    """Half a revision is worse than the old one, and a later deployment must not stumble over the remains."""
    reinstall = Reinstall(host)
    outcomes: list[str] = []
    while True:
        number = len(outcomes) + 1
        before = reinstall.begin()
        if not killed_before(number, reinstall.install):
            break

        undone = host.recover()

        outcomes.append(reinstall.revision(before))
        assert outcomes[-1] == "old" or not undone
        check_what_follows(reinstall, outcomes[-1], by_hand=number % 2 == 0)
        reinstall.reset()
    assert {"old", "new"} == set(outcomes)
    assert outcomes == sorted(outcomes, reverse=True), "the new revision counts from one moment on"


def check_what_follows(reinstall: Reinstall, revision: str, *, by_hand: bool) -> None:
    """The records belong to the revision that is there, and everything else that a deployment needs works."""
    host = reinstall.host
    edited = host.dest / ("app/gone.txt" if revision == "old" else "app/newdir/deep/leaf")
    if by_hand:
        # Only a manifest of this very revision can tell that this file is not as Install left it.
        edited.write_text("edited by hand")
        assert (str(edited),) == reinstall.remove().left_behind
    else:
        summary = reinstall.install()
        assert (14, ()) == (summary.created + summary.replaced + summary.unchanged, summary.left_behind)
        assert (summary.unchanged > 10) == (revision == "new")
        assert () == reinstall.remove().left_behind
    foreign = {"app/foreign.txt"} if by_hand and revision == "old" else set()
    files = {name for name in host.tree() if not name.endswith("/")}
    expected = {"beside/y"} | foreign | ({edited.relative_to(host.dest).as_posix()} if by_hand else set())
    assert expected == files
    assert [] == host.leftovers()


@pytest.mark.parametrize("wanted", ["old", "new"])
def test_a_recovery_that_is_killed_before_any_change_can_be_repeated(host: Host, wanted: str) -> None:
    """Power may fail again while the host comes up."""
    reinstall = Reinstall(host)
    moment = moment_of_kill(reinstall, wanted)
    number = 0
    was_killed = True
    while was_killed:
        number += 1
        before = reinstall.begin()
        assert killed_before(moment, reinstall.install)

        was_killed = killed_before(number, lambda _count: host.recover())
        if number % 3 == 0:
            killed_before(number // 2, lambda _count: host.recover())
        host.recover()

        assert wanted == reinstall.revision(before)
        assert not host.recover()
        reinstall.reset()
    assert number > 5


def test_a_kill_in_the_middle_of_any_write_leaves_one_whole_revision(host: Host) -> None:
    """The kernel ends the process in the middle of a journal, of a record or of a file's content."""
    reinstall = Reinstall(host)
    outcomes = set()
    before = reinstall.begin()
    reinstall.install()
    longest = max(len(content) for content in host.records().values())
    reinstall.reset()
    for size in [0, 1, *random.Random(4).sample(range(2, longest), 40), 65536 + 16 * longest]:
        before = reinstall.begin()
        ended_by = ended_by_a_write_beyond(size, reinstall.install)

        host.recover()

        outcomes.add(reinstall.revision(before))
        assert ended_by in {0, signal.SIGXFSZ}
        reinstall.reset()
    assert {"old", "new"} == outcomes


def ended_by_a_write_beyond(size: int, act: Callable[[], object]) -> int:
    """Run the body in a fork that may write no file longer than this. The signal that ended it, or 0."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        act()

    status = os.waitpid(start(limited), 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def test_the_next_install_recovers_by_itself(host: Host) -> None:
    """Nobody may have called for a recovery between the crash and the next deployment."""
    reinstall = Reinstall(host)
    for wanted in ("old", "new"):
        moment = moment_of_kill(reinstall, wanted)
        reinstall.begin()
        assert killed_before(moment, reinstall.install)

        install(reinstall.second)

        assert "two" == (host.dest / "app/changed.txt").read_text()
        assert [] == host.leftovers()
        reinstall.reset()


def test_a_first_install_that_is_killed_leaves_nothing(host: Host) -> None:
    """There is no previous revision that could come back, so nothing may be there."""
    request = host.request({"app/a": "a", "app/sub/b": "b"})
    host.write(BESIDE)
    number = 0
    while True:
        number += 1
        before: dict[str, object] = {**host.everything()}
        if not killed_before(number, lambda count: install(request, observer=count)):
            break
        host.recover()
        if (host.dest / "app/a").exists():
            host.install({}, "")
            assert set(before) == set(host.everything())
        else:
            assert before == host.everything()
        assert [] == host.leftovers()
    assert number > 10


def test_a_group_without_a_crash_has_nothing_to_recover(host: Host) -> None:
    """Every start of the agent asks for it, for every group, also on a host that never deployed anything."""
    assert not host.recover()
    reinstall = Reinstall(host)
    before: State = reinstall.begin()

    assert not host.recover()

    assert before == reinstall.state()

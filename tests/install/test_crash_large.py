"""The worker dies at any moment of a large Install, and now and then its recovery does, too."""

from __future__ import annotations

import random
import shutil
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install, plan_install
from tests.install.children import before_each_change, ended, in_child, killed_after, killed_before, start
from tests.install.host import FILES
from tests.install.reinstall import State, differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.install import InstallRequest
    from tests.install.host import Host

DIRECTORIES, FILES_EACH, KILLS = 40, 50, 200


def revision(letter: str) -> dict[str, Any]:
    """2,000 files: of ten, one is only in this revision, six differ from the other one's, three are equal."""
    tree: dict[str, Any] = {}
    for number in range(DIRECTORIES * FILES_EACH):
        directory, kind = f"app/{number % DIRECTORIES:02}", number // DIRECTORIES % 10
        name = f"{directory}/{letter if kind == 0 else 'file'}-{number}"
        tree[name] = "equal" if kind > 6 else f"{letter} {number}\n" * (number % 7)
    tree[f"app/only-{letter}/deep/leaf"] = letter
    return {**tree, "app/current": {"link": f"only-{letter}"}}


def reports(host: Host) -> State:
    """Everything at the destination and in the records."""
    return State(host.everything(), host.records())


class Alternation:
    """A host on which two revisions replace each other, again and again."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.requests = [host.request(revision(letter), FILES, processes=2) for letter in "ab"]
        self.delivered: list[State] = []
        install(self.requests[1])
        self._durations_s: list[float] = []
        for request in [*self.requests, *self.requests]:
            began = time.monotonic()
            # In a fork, too, because that is where it is killed.
            assert not ended(start(partial(install, request)))
            self._durations_s.append(time.monotonic() - began)
            self.delivered.append(reports(host).as_delivered())
        self.now = 1
        self.changes = self._count_changes()

    @property
    def duration_s(self) -> float:
        """How long one Install takes."""
        return statistics.median(self._durations_s)

    @property
    def next(self) -> InstallRequest:
        """The revision that is not installed now."""
        return self.requests[1 - self.now]

    def _count_changes(self) -> int:
        """How many changes one Install makes, its observed steps among them."""

        def counted() -> int:
            count = 0

            def count_change(*_: object) -> None:
                nonlocal count
                count += 1

            before_each_change(count_change)
            install(self.next, observer=count_change)
            return count

        changes = in_child(counted)
        self.now = 1 - self.now
        return changes


def moments(alternation: Alternation, chance: random.Random) -> Iterator[Callable[[], bool]]:
    """Ways to kill an Install: by turns before a random change, and after a random time."""
    for number in range(KILLS):
        if number % 2:
            yield lambda: killed_before(
                chance.randint(1, alternation.changes),
                lambda count: install(alternation.next, observer=count),
            )
        else:
            yield lambda: killed_after(
                chance.uniform(0, alternation.duration_s), lambda: install(alternation.next)
            )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_kill_at_random_moments_of_a_large_install_leaves_one_whole_revision(host: Host) -> None:
    """Out of memory, power, an impatient operator: none of them asks whether it suits."""
    chance = random.Random(2000)
    alternation = Alternation(host)
    before = reports(host)
    killed, outcomes = 0, []
    for number, kill in enumerate(moments(alternation, chance)):
        killed += kill()
        if number % 5 == 0:
            killed_after(chance.uniform(0, alternation.duration_s / 2), host.recover)
        host.recover()

        now = reports(host)
        if now == before:
            outcomes.append("old")
            continue
        outcomes.append("new")
        alternation.now = 1 - alternation.now
        delivered = now.as_delivered()
        assert [] == differences(alternation.delivered[alternation.now], delivered)
        plan = plan_install(alternation.requests[alternation.now])
        assert ([], []) == (plan.removals, plan.edited)
        before = now
    assert killed > KILLS // 3
    assert {"old", "new"} == set(outcomes)

    install(alternation.next)
    assert () == host.install({}, "").left_behind
    assert not host.dest.exists()
    shutil.rmtree(host.base / "root")

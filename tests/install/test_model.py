"""Random Installs on a host that somebody works on, too, and on which anything may fail at any moment.

A model in plain Python (`model.py`) says what there must be after each step, and `model_pair.py` compares; what they
assert has the numbers of the invariants in docs/install-algorithm.md. `INSTALL_MODEL_SECONDS=1200` in the environment
makes the random test go on for so long, each time with other examples.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from agent.install.model.moments import Moment
from agent.protocol import FileExistsBehavior
from tests.install.deeds import Deed, Kind
from tests.install.model import Revision
from tests.install.model_install import outcome_of
from tests.install.model_pair import Pair, Wish
from tests.install.model_strategies import DEEDS, WISHES
from tests.install.selinux_policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONG_S = float(os.environ.get("INSTALL_MODEL_SECONDS", "0"))
_EXAMPLES = 80
_CHANCES = st.integers(0, 10_000)

OLD = Revision(
    {
        "app/": None,
        "etc/": None,
        "app/adjusted": "a",
        "app/changed": "old",
        "app/gone": "g",
        "app/becomes-directory": "a file",
        "app/becomes-file/leaf": "l",
        "app/kept/a": "a",
        "app/old/deep/a": "a",
        "app/link": {"link": "changed"},
    },
    ("app", "etc"),
    directory_mode=0o750,
)
NEW = Revision(
    {
        "app/": None,
        "etc/": None,
        "app/adjusted": {"content": "a", "mode": 0o600},
        "app/changed": "new",
        "app/added": "a",
        "app/becomes-directory/leaf": "l",
        "app/becomes-file": "a file",
        "app/kept/a": "a",
        "app/new/deep/a": "a",
        "app/link": {"link": "added"},
    },
    ("app", "etc"),
    directory_mode=0o700,
    has_label=True,
)


@pytest.fixture(autouse=True)
def policy(place: Path, monkeypatch: pytest.MonkeyPatch) -> Policy:
    """The host has SELinux, as far as Install can see."""
    made = Policy(place)
    monkeypatch.setenv("PATH", f"{made.programs}:{os.environ['PATH']}")
    return made


def harm(place: Path, act: Callable[[Pair, Wish], None], met: set[Moment]) -> None:
    """Install the old revision, do that to the Install of the new one, and recover."""
    base = Path(tempfile.mkdtemp(dir=place))
    base.chmod(0o755)
    pair = Pair(base, met)
    pair.install(Wish("one", OLD, FileExistsBehavior.OVERWRITE))
    pair.somebody(Deed(Kind.ADD, 0, "app/theirs", "theirs", 0o640))
    pair.check()
    act(pair, Wish("one", NEW, FileExistsBehavior.OVERWRITE))
    pair.check()
    pair.recover()
    pair.check()
    shutil.rmtree(base)


def _kill(chance: int, pair: Pair, wish: Wish) -> None:
    pair.kill(wish, chance)


def _fail(chances: tuple[int, ...], pair: Pair, wish: Wish) -> None:
    pair.fail(wish, *chances)


def each_moment(place: Path, *, is_undoing: bool) -> Iterator[int]:
    """Numbers that pick one moment of each kind that the model knows of, and then the last one of each."""
    pair = Pair(Path(tempfile.mkdtemp(dir=place)), set())
    pair.install(Wish("one", OLD, FileExistsBehavior.OVERWRITE))
    outcome = outcome_of(pair.model, "one", NEW, FileExistsBehavior.OVERWRITE)
    moments = outcome.moments_of_undo if is_undoing else outcome.moments
    assert {moment.value for moment in Moment if moment.is_undoing == is_undoing} == set(moments)
    yield from range(len(moments))
    for number, kind in enumerate(sorted(moments)):
        yield number + len(moments) * (moments[kind] - 1)


def test_a_kill_at_each_moment_is_undone_or_completed(place: Path) -> None:
    """I1, I2, I3, I6, I9: whoever comes next finds one whole revision, and records that fit it."""
    met: set[Moment] = set()
    for chance in each_moment(place, is_undoing=False):
        harm(place, partial(_kill, chance), met)
    assert {moment for moment in Moment if not moment.is_undoing} == met


def test_a_kill_between_two_moments_is_undone_or_completed(place: Path) -> None:
    """I1, I2, I3: what is one step to an observer may be several to the system."""
    killed: list[int] = []

    def kill(number: int, pair: Pair, wish: Wish) -> None:
        if pair.kill_anywhere(wish, number):
            killed.append(number)

    numbers = itertools.takewhile(lambda number: len(killed) == number - 1, itertools.count(1))
    for number in numbers:
        harm(place, partial(kill, number), set())
    assert len(killed) > 50


def test_an_error_of_the_disk_at_each_moment_is_undone_or_completed(place: Path) -> None:
    """I1, I3, I6, I9: the same when the process lives on, and puts everything back itself."""
    met: set[Moment] = set()
    for chance in each_moment(place, is_undoing=False):
        harm(place, partial(_fail, (chance,)), met)
    assert {moment for moment in Moment if not moment.is_undoing} == met


def test_an_undo_that_fails_at_each_moment_is_completed_by_the_next_one(place: Path) -> None:
    """I1, I6, I8: a disk with errors fails while everything is put back as well."""
    met: set[Moment] = set()
    for chance in each_moment(place, is_undoing=True):
        harm(place, partial(_fail, (0, chance)), met)
    assert {moment for moment in Moment if moment.is_undoing} <= met


@pytest.mark.parametrize("moment", [Moment.COMMIT, Moment.PUBLISH])
@pytest.mark.parametrize("kind", [Kind.EDIT, Kind.REPLACE, Kind.REMOVE])
def test_what_somebody_does_between_a_crash_and_recovery_is_not_lost(
    place: Path, kind: Kind, moment: Moment
) -> None:
    """I7: hours may pass, and people do to files what they like; only a new file that is taken back goes with it."""
    for chance in range(len(OLD.tree) + len(NEW.tree)):
        harm(place, partial(_kill_and_meddle, moment, Deed(kind, chance, "", "", 0o600)), set())


def _kill_and_meddle(moment: Moment, deed: Deed, pair: Pair, wish: Wish) -> None:
    kinds = sorted(outcome_of(pair.model, *wish).moments)
    pair.kill(wish, kinds.index(moment.value))
    pair.check()
    pair.somebody(deed)


class Installs(RuleBasedStateMachine):
    """One host, on which several things happen."""

    place = Path()

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(dir=self.place))
        self.base.chmod(0o755)
        self.pair = Pair(self.base, set())

    def teardown(self) -> None:
        """It is removed."""
        shutil.rmtree(self.base)

    @rule(wish=WISHES)
    def install(self, wish: Wish) -> None:
        """A deployment."""
        self.pair.install(wish)

    @rule(ticks=st.booleans())
    def install_again(self, *, ticks: bool) -> None:
        """The same again."""
        self.pair.install_again(ticks=ticks)

    @rule(deed=DEEDS)
    def somebody(self, deed: Deed) -> None:
        """An operator, an application."""
        self.pair.somebody(deed)

    @rule(wish=WISHES, chance=_CHANCES, is_anywhere=st.sampled_from([False, False, True]))
    def kill(self, wish: Wish, chance: int, *, is_anywhere: bool) -> None:
        """A deployment whose process is killed."""
        if is_anywhere:
            self.pair.kill_anywhere(wish, 1 + chance % 100)
        else:
            self.pair.kill(wish, chance)

    @rule(wish=WISHES, chance=_CHANCES, chance_of_undo=st.one_of(st.none(), _CHANCES))
    def fail(self, wish: Wish, chance: int, chance_of_undo: int | None) -> None:
        """A deployment on a disk with errors."""
        self.pair.fail(wish, chance, chance_of_undo)

    @rule(number=st.one_of(st.just(0), st.integers(1, 30)))
    def recover(self, number: int) -> None:
        """The agent starts, and may be killed while it does."""
        self.pair.recover(number)

    @rule(wish=WISHES)
    def plan_beside(self, wish: Wish) -> None:
        """A deployment of another group."""
        self.pair.plan_beside(wish)

    @invariant()
    def is_as_the_model_says(self) -> None:
        """At any time."""
        self.pair.check()


@pytest.mark.slow
@pytest.mark.timeout(300 + _LONG_S)
def test_whatever_happens_the_host_is_what_the_model_says(place: Path) -> None:
    """I1 to I12: revisions, people, crashes and bad disks come in an order that nobody has thought of."""
    Installs.place = place
    options = settings(
        max_examples=_EXAMPLES,
        stateful_step_count=16,
        deadline=None,
        database=None,
        derandomize=not _LONG_S,
        phases=[Phase.generate],  # looking for a smaller example would take minutes
        suppress_health_check=list(HealthCheck),
    )
    end = time.monotonic() + _LONG_S
    run_state_machine_as_test(Installs, settings=options)
    while time.monotonic() < end:
        run_state_machine_as_test(Installs, settings=options)

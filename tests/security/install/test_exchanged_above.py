"""The user exchanges a directory two levels above the destination for one that root's own tree lies in.

What is below it has the same names, is no link, and the user could not write to it: it can only be moved as a whole.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from tests.install.host import failure_of
from tests.install.observers import failing_at
from tests.install.trees import everything_about
from tests.security.install.attacker import SECURITY, STEPS, USER, racing, step_of
from tests.security.install.surroundings import FIRST, SECOND, SharedHost, raced
from tests.security.install.test_undo_and_recovery import crash

if TYPE_CHECKING:
    from pathlib import Path

    from tests.install.trees import Found

pytestmark = SECURITY

ROUNDS = 120
DEEP = "files: [{source: app, destination: '@DEST@/home/top/below/www'}]"
GIVEN = f"{DEEP}\npermissions: [{{object: '@DEST@/home/top', owner: {USER}, mode: 777, type: [directory]}}]"
ELSEWHERE = "files: [{source: app, destination: '@DEST@/srv'}]"
SPECIFICATIONS = [pytest.param(DEEP, id="root's"), pytest.param(GIVEN, id="the user's")]


@pytest.fixture
def trees(host: SharedHost) -> SharedHost:
    """Two directories of the user's: one for the destination, and one with root's own files."""
    for name in ("top", "other"):
        (host.home / name).mkdir()
        os.chown(host.home / name, USER, USER)
    (host.home / "top/below").mkdir()
    files = {name.removeprefix("app/"): "root's" for name in (*FIRST, *SECOND)}
    host.write(files, host.home / "other/below/www")
    (host.home / "other/below/www").chmod(0o700)
    return host


def roots(host: SharedHost) -> dict[str, Found]:
    """All about root's own tree; times of directories that are looked at aside."""
    return everything_about(host.home / "other/below")


def start_anew(host: SharedHost) -> None:
    """Nothing is deployed any more, as far as anybody knows."""
    host.start_anew()
    shutil.rmtree(host.home / "top/below")
    (host.home / "top/below").mkdir()


@pytest.mark.parametrize("appspec", SPECIFICATIONS)
def test_an_install_and_its_undo_meet_it(trees: SharedHost, racer: Path, appspec: str) -> None:
    """Nothing of root's tree is replaced, removed or given away."""
    first, second = (trees.request(tree, appspec, durable=False) for tree in (FIRST, SECOND))
    before = roots(trees)
    with racing(racer, trees.home, "swap", "top", "other") as user:
        for number in range(ROUNDS):
            install(first)
            raced(trees, user, second, step_of(number), failing_at(Moment.COMMIT) if number % 3 else None)
            trees.recover()
            assert before == roots(trees)
            start_anew(trees)


@pytest.mark.parametrize("appspec", SPECIFICATIONS)
def test_a_recovery_meets_it(trees: SharedHost, racer: Path, appspec: str) -> None:
    """The journal says which directories it is about."""
    turns = [trees.request(tree, appspec, durable=False) for tree in (FIRST, SECOND)]
    before = roots(trees)
    with racing(racer, trees.home, "swap", "top", "other") as user:
        for number in range(ROUNDS):
            crash(turns[number % 2], 1 + number // 2 % STEPS)
            user.start()
            failure_of(trees.recover)
            user.stop()
            assert before == roots(trees)
            trees.recover()
            assert before == roots(trees)


@pytest.mark.parametrize("appspec", SPECIFICATIONS)
def test_a_clean_up_meets_it(trees: SharedHost, racer: Path, appspec: str) -> None:
    """The next revision goes elsewhere, so that all of the last one goes."""
    first, second = (
        trees.request(FIRST, appspec, durable=False),
        trees.request(SECOND, ELSEWHERE, durable=False),
    )
    before = roots(trees)
    with racing(racer, trees.home, "swap", "top", "other") as user:
        for number in range(ROUNDS):
            install(first)
            raced(trees, user, second, step_of(number))
            trees.recover()
            assert before == roots(trees)
            start_anew(trees)

"""I4: the user exchanges its directory for a link while root puts an Install back, or cleans up after one."""

from __future__ import annotations

import os
import signal
from itertools import count
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from tests.install.children import ended, start
from tests.install.host import failure_of
from tests.install.observers import at_step, both, failing_at
from tests.install.trees import read_tree
from tests.security.install.attacker import ROUNDS, SECURITY, STEPS, racing, step_of
from tests.security.install.surroundings import (
    FIRST,
    GIVEN_AWAY,
    SECOND,
    WWW,
    SharedHost,
    assert_installed,
    check_round,
    raced,
)

if TYPE_CHECKING:
    from pathlib import Path

    from agent.install import InstallRequest

pytestmark = SECURITY

ELSEWHERE = "files: [{source: app, destination: '@DEST@/srv'}]"


def crash(request: InstallRequest, number: int) -> None:
    """Install in a process that is killed before the step with this number, whatever kind it is."""
    steps = count(1)

    def kill(_kind: Moment, _path: bytes) -> None:
        if next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    ended(start(lambda: failure_of(lambda: install(request, observer=kill))))


def test_an_undo_meets_an_exchanged_directory(host: SharedHost, racer: Path) -> None:
    """It renames, removes and gives back attributes, and must do so where the Install has worked."""
    host.link_of_user(host.home / "link", host.same_names)
    first, second = (host.request(revision, GIVEN_AWAY, durable=False) for revision in (FIRST, SECOND))
    install(first)
    whole = read_tree(host.www)
    with racing(racer, host.home, "swap", "www", "link") as user:
        for number in range(ROUNDS):
            failure = raced(host, user, second, 1 + number % (2 * STEPS), failing_at(Moment.COMMIT))
            assert failure is not None
            host.recover()
            host.assert_nothing_else_has_changed()
            if read_tree(host.www) != whole:
                host.start_anew()
                install(first)


def test_the_message_says_what_was_not_put_back(host: SharedHost) -> None:
    """The previous revision isn't whole where the user has moved half of the new one away."""
    install(host.request(FIRST, WWW, durable=False))
    move = at_step(Moment.COMMIT, lambda: host.exchange_for_link(host.www, host.other_names))
    request = host.request(SECOND, WWW, durable=False)
    failure = failure_of(lambda: install(request, observer=both(move, failing_at(Moment.COMMIT))))
    host.assert_nothing_else_has_changed()
    assert failure is not None
    if "Everything was put back" in failure.message:
        assert_installed(FIRST, host.home / "moved-away")


def test_a_recovery_meets_an_exchanged_directory(host: SharedHost, racer: Path) -> None:
    """The next start of the agent undoes or completes what was interrupted, by what the journal says."""
    host.link_of_user(host.home / "link", host.same_names)
    turns = [host.request(revision, GIVEN_AWAY, durable=False) for revision in (FIRST, SECOND)]
    with racing(racer, host.home, "swap", "www", "link") as user:
        for number in range(ROUNDS):
            crash(turns[number % 2], 1 + number // 2 % STEPS)
            user.start()
            failure_of(host.recover)
            user.stop()
            host.assert_nothing_else_has_changed()
            host.recover()
            host.assert_nothing_else_has_changed()


def test_a_clean_up_meets_an_exchanged_directory(host: SharedHost, racer: Path) -> None:
    """What only the previous revision had goes, by its name."""
    host.link_of_user(host.home / "link", host.same_files)
    first, second = host.request(FIRST, WWW, durable=False), host.request(SECOND, ELSEWHERE, durable=False)
    with racing(racer, host.home, "swap", "www", "link") as user:
        for number in range(ROUNDS):
            install(first)
            raced(host, user, second, step_of(number))
            host.recover()
            host.assert_nothing_else_has_changed()
            host.start_anew()


@pytest.mark.parametrize(
    "victim",
    ["same_names", "same_files"],
)
def test_a_clean_up_does_not_go_through_the_users_link(host: SharedHost, victim: str) -> None:
    """Where root has the very same files, they are not what the last Install has put there."""
    install(host.request(FIRST, WWW, durable=False))
    host.exchange_for_link(host.www, getattr(host, victim))
    failure_of(lambda: install(host.request({"app/x": "x"}, ELSEWHERE, durable=False)))
    host.assert_nothing_else_has_changed()


@pytest.mark.parametrize("victim", ["same_names", "same_files"])
@pytest.mark.parametrize("destination", [WWW, ELSEWHERE], ids=["same destination", "another destination"])
def test_after_a_take_over_nothing_is_removed_through_the_users_link(
    host: SharedHost, victim: str, destination: str
) -> None:
    """Another agent's list says names only, so that any file of that name would be taken for the old revision's."""
    installed_by_another_agent(host)
    host.exchange_for_link(host.www, getattr(host, victim))
    failure_of(lambda: install(host.request({"app/x": "x"}, destination, durable=False)))
    host.assert_nothing_else_has_changed()


def test_after_a_take_over_the_list_meets_an_exchanged_directory(host: SharedHost, racer: Path) -> None:
    """The same at any moment."""
    host.link_of_user(host.home / "link", host.same_names)
    request = host.request(SECOND, WWW, durable=False)
    with racing(racer, host.home, "swap", "www", "link") as user:
        for number in range(ROUNDS):
            installed_by_another_agent(host)
            check_round(host, user, request, SECOND, step_of(number))
            host.start_anew()


def installed_by_another_agent(host: SharedHost) -> None:
    """Afterwards the first revision is in the user's directory, and a list of its files is all that tells of it."""
    files = {name.removeprefix("app/"): content for name, content in FIRST.items()}
    host.write(files, host.www)
    host.instructions.mkdir(parents=True, exist_ok=True)
    paths = "".join(f"{host.www}/{name}\n" for name in files)
    (host.instructions / f"{host.group_id}-cleanup").write_text(paths)

"""The user exchanges directories and names of its own for links to root's while root installs there."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from agent.install import install
from agent.protocol import FileExistsBehavior
from tests.security.install.attacker import (
    ROUNDS,
    SECURITY,
    THEIRS,
    racing,
    step_of,
)
from tests.security.install.surroundings import (
    FIRST,
    GIVEN_AWAY,
    SECOND,
    WWW,
    check_round,
    raced,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.security.install.surroundings import SharedHost

pytestmark = SECURITY

DISALLOW, OVERWRITE, RETAIN = (
    FileExistsBehavior.DISALLOW,
    FileExistsBehavior.OVERWRITE,
    FileExistsBehavior.RETAIN,
)


def test_the_destination_is_exchanged_for_a_link(host: SharedHost, racer: Path) -> None:
    """Root would write, replace, give away and remove wherever the user wants it, whatever the rule for files."""
    victims = {DISALLOW: host.other_names, OVERWRITE: host.same_names, RETAIN: host.same_names}
    turns = [
        (victim, revision, host.request(revision, GIVEN_AWAY, behavior=behavior, durable=False))
        for behavior, victim in victims.items()
        for revision in (FIRST, SECOND)
    ]
    with racing(racer, host.home, "swap", "www", "link") as user:
        for number in range(ROUNDS):
            victim, revision, request = turns[number // 2 % len(turns)]
            host.point_link(host.home / "link", victim)
            check_round(host, user, request, revision, step_of(number))


def test_a_directory_that_install_has_made_is_exchanged_for_a_link(host: SharedHost, racer: Path) -> None:
    """It is root's, but it lies in the user's home, who may move it."""
    turns = [(revision, host.request(revision, WWW, durable=False)) for revision in (FIRST, SECOND)]
    host.point_link(host.home / "link", host.same_names)
    with racing(racer, host.home, "swap", "www", "link") as user:
        for number in range(ROUNDS):
            if not host.records():
                # Otherwise nobody knows that Install has made it.
                host.www.rmdir()
                install(turns[1][1])
            revision, request = turns[number // 2 % 2]
            check_round(host, user, request, revision, step_of(number))


def test_a_new_directory_is_exchanged_for_a_link_as_soon_as_it_is_there(
    host: SharedHost, racer: Path
) -> None:
    """What is to be in it must not be looked for by its path again."""
    request = host.request(FIRST, GIVEN_AWAY, durable=False)
    with racing(racer, host.www, "swap", "sub", "link") as user:
        for number in range(ROUNDS):
            host.point_link(
                host.www / "link", host.other_names if number % 4 < 2 else host.same_names / "sub"
            )
            check_round(host, user, request, FIRST, step_of(number))
            host.start_anew()


def test_hidden_names_are_taken(host: SharedHost, racer: Path) -> None:
    """What waits under a hidden name is given attributes and its place: that may be something else by then."""
    appspec = WWW + "\npermissions:\n  - {object: '@DEST@/home/www', mode: 4755, owner: root, type: [file]}"
    request = host.request(FIRST, appspec, durable=False)
    baits = [("plant", THEIRS), ("plant-link", "../../etc/cron.d/tool"), ("plant-link", "../../etc/cron.d")]
    with ExitStack() as stack:
        users = [stack.enter_context(racing(racer, host.www, *bait)) for bait in baits]
        for number in range(ROUNDS):
            raced(host, users[number // 2 % len(users)], request, step_of(number))
            host.recover()
            host.assert_nothing_else_has_changed()
            host.start_anew()

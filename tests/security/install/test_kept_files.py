"""Files that are kept, since the next revision has the same, but that get another owner or mode."""

from __future__ import annotations

import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from tests.install.children import in_child
from tests.install.host import failure_of
from tests.install.observers import at_step
from tests.security.install.attacker import (
    ROUNDS,
    SECURITY,
    THEIRS,
    USER,
    as_user,
    give_to_user,
    held_open,
    racing,
    step_of,
)
from tests.security.install.surroundings import SharedHost, raced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.install import InstallRequest

pytestmark = SECURITY

CONTENT = "the revision's"
KEPT = "files: [{source: app, destination: '@DEST@/home/www'}]\npermissions:\n  - {object: '@DEST@/home/www/a.conf', "
FOR_USER = KEPT + f"owner: {USER}}}"
FOR_ROOT = KEPT + "owner: root, mode: 644}"
FOR_PROGRAM = KEPT + "owner: root, mode: 4755}"
LATER = pytest.mark.parametrize("later", [FOR_ROOT, FOR_PROGRAM], ids=["file", "setuid program"])

assert len(CONTENT) == len(THEIRS)


def request_for(host: SharedHost, appspec: str) -> InstallRequest:
    """To install the one file that all of these revisions have."""
    return host.request({"app/a.conf": CONTENT}, appspec, durable=False)


def before_opening(name: bytes, act: Callable[[], object]) -> None:
    """From now on this process acts before it opens a file by this name the first time. This can't be taken back."""
    is_due = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal is_due
        if event == "open" and is_due and arguments[0] == name:
            is_due = False
            act()

    sys.addaudithook(hook)


def assert_roots(path: Path) -> None:
    """It is root's, with the revision's content."""
    assert (0, CONTENT) == (path.stat().st_uid, path.read_text())


@LATER
def test_a_file_that_the_user_holds_open_is_not_given_to_root(host: SharedHost, later: str) -> None:
    """The user would write to a file of root's afterwards, and its content be what root runs or reads."""
    install(request_for(host, FOR_USER))
    with held_open(host.www / "a.conf"):
        install(request_for(host, later))
    assert_roots(host.www / "a.conf")


@LATER
def test_a_content_that_changes_after_the_comparison_is_not_given_to_root(
    host: SharedHost, later: str
) -> None:
    """The user has a moment between the comparison and the change of owner."""
    install(request_for(host, FOR_USER))
    overwrite = at_step(Moment.SWITCH, lambda: as_user(lambda: (host.www / "a.conf").write_text(THEIRS)))
    failure = failure_of(lambda: install(request_for(host, later), observer=overwrite))
    host.assert_nothing_else_has_changed()
    if failure is None:
        assert_roots(host.www / "a.conf")


def test_a_file_that_the_user_writes_to_all_the_time(host: SharedHost, racer: Path) -> None:
    """The same at any moment."""
    install(request_for(host, FOR_USER))
    later, kept = [request_for(host, appspec) for appspec in (FOR_ROOT, FOR_PROGRAM)], host.www / "a.conf"
    with racing(racer, host.www, "write", "a.conf", THEIRS) as user:
        for number in range(ROUNDS):
            if raced(host, user, later[number // 2 % 2], step_of(number)) is None:
                assert_roots(kept)
            give_to_user(kept, CONTENT)


def test_a_kept_file_is_exchanged_while_it_is_compared(host: SharedHost) -> None:
    """The user's file is looked at, the revision's read, and the user's given to root."""
    install(request_for(host, FOR_USER))
    request, kept, other = request_for(host, FOR_PROGRAM), host.www / "a.conf", host.www / "other"

    def exchange() -> None:
        as_user(
            lambda: [kept.rename(host.www / "aside"), other.rename(kept), (host.www / "aside").rename(other)]
        )

    def attack() -> None:
        give_to_user(other, THEIRS)
        exchange()
        before_opening(b"a.conf", exchange)
        failure_of(lambda: install(request, observer=at_step(Moment.SWITCH, exchange)))

    in_child(attack)
    host.assert_nothing_else_has_changed()


@pytest.mark.parametrize("bait", ["file", "link"])
def test_a_kept_file_is_exchanged_for_another(host: SharedHost, racer: Path, bait: str) -> None:
    """A file of the user's would be a program with root's rights, or root's file behind a link."""
    install(request_for(host, FOR_USER))
    request, kept, other = request_for(host, FOR_PROGRAM), host.www / "a.conf", host.www / "other"
    with racing(racer, host.www, "swap", "a.conf", "other") as user:
        for number in range(ROUNDS):
            if bait == "link":
                host.point_link(other, host.other_names / "secret")
            else:
                give_to_user(other, THEIRS)
            raced(host, user, request, step_of(number))
            host.recover()
            host.assert_nothing_else_has_changed()
            give_to_user(kept, CONTENT)


def test_a_kept_file_that_stays_the_users_is_adjusted_in_place(host: SharedHost) -> None:
    """A change of mode isn't worth a copy, and programs that have it open go on with the same file."""
    install(request_for(host, FOR_USER))
    before = (host.www / "a.conf").stat()
    install(request_for(host, KEPT + f"owner: {USER}, mode: 600}}"))
    after = (host.www / "a.conf").stat()
    assert (before.st_ino, 0o600, USER) == (after.st_ino, stat.S_IMODE(after.st_mode), after.st_uid)

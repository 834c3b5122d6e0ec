"""A file of the archive that has names in a user's directory and in one of root's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from tests.security.install.attacker import (
    ROUNDS,
    SECURITY,
    THEIRS,
    USER,
    give_to_user,
    held_open,
    racing,
    step_of,
)
from tests.security.install.surroundings import SharedHost, raced

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = SECURITY

CONTENT = "the revision's"
SPANNING: dict[str, Any] = {"theirs/tool": CONTENT, "roots/tool": {"same_as": "theirs/tool"}}
THEIRS_FIRST = """
files:
  - {source: theirs, destination: '@DEST@/home/www'}
  - {source: roots, destination: '@DEST@/srv'}
"""
ROOTS_FIRST = """
files:
  - {source: roots, destination: '@DEST@/srv'}
  - {source: theirs, destination: '@DEST@/home/www'}
"""
ORDERS = pytest.mark.parametrize("appspec", [THEIRS_FIRST, ROOTS_FIRST], ids=["user first", "root first"])


def assert_roots_file_is_roots(host: SharedHost) -> None:
    """What is in root's directory is the revision's, and root's."""
    for path in host.srv.iterdir():
        status = path.lstat()
        assert CONTENT == path.read_text()
        assert (0, 0) == (status.st_uid, status.st_gid)


def assert_no_name_in_common(host: SharedHost) -> None:
    """No file in root's directory has a name in the user's directory as well."""
    roots = {path.lstat().st_ino for path in host.srv.iterdir()}
    assert roots.isdisjoint(path.lstat().st_ino for path in host.home.rglob("*"))


@ORDERS
def test_the_first_name_is_taken_before_the_second_is_linked(
    host: SharedHost, racer: Path, appspec: str
) -> None:
    """A file of the user's would be in root's directory, under the name of the revision's."""
    request = host.request(SPANNING, appspec, durable=False)
    with racing(racer, host.www, "plant", THEIRS) as user:
        for number in range(ROUNDS):
            raced(host, user, request, step_of(number))
            assert_roots_file_is_roots(host)
            host.recover()
            assert_roots_file_is_roots(host)
            host.start_anew()


@ORDERS
def test_names_are_not_linked_across_owners(host: SharedHost, appspec: str) -> None:
    """Whoever may do something to one of the names would do it to root's file."""
    install(host.request(SPANNING, appspec, durable=False))
    assert CONTENT == (host.www / "tool").read_text()
    assert CONTENT == (host.srv / "tool").read_text()
    assert_roots_file_is_roots(host)
    assert_no_name_in_common(host)


def test_a_kept_file_of_the_users_gets_no_second_name_in_roots_directory(host: SharedHost) -> None:
    """The first revision has given it to the user."""
    appspec = THEIRS_FIRST + f"permissions:\n  - {{object: '@DEST@/home/www/tool', owner: {USER}}}"
    install(host.request({"theirs/tool": CONTENT, "roots/": None}, appspec, durable=False))
    install(host.request(SPANNING, appspec, durable=False))
    assert [USER, 0] == [(directory / "tool").stat().st_uid for directory in (host.www, host.srv)]
    assert_roots_file_is_roots(host)
    assert_no_name_in_common(host)


def test_a_file_that_the_user_holds_open_gets_no_second_name_in_roots_directory(host: SharedHost) -> None:
    """The user has replaced what was installed by its own copy, and would write to root's file through it."""
    install(host.request({"theirs/tool": CONTENT, "roots/": None}, THEIRS_FIRST, durable=False))
    give_to_user(host.www / "tool", CONTENT)
    with held_open(host.www / "tool"):
        install(host.request(SPANNING, THEIRS_FIRST, durable=False))
    assert [host.srv / "tool"] == list(host.srv.iterdir())
    assert_roots_file_is_roots(host)


def test_names_in_directories_of_one_owner_stay_linked(host: SharedHost) -> None:
    """A bundle with hard links takes no more room than it has to."""
    archive: dict[str, Any] = {"one/a": "a", "other/b": {"same_as": "one/a"}}
    appspec = """
files:
  - {source: one, destination: '@DEST@/srv/one'}
  - {source: other, destination: '@DEST@/srv/other'}
  - {source: one, destination: '@DEST@/home/www/one'}
"""
    install(host.request(archive, appspec, durable=False))
    one, other = (host.srv / name for name in ("one/a", "other/b"))
    assert one.samefile(other)

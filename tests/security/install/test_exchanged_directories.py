"""A directory of root's is moved to where the last Install has worked, with lists, and two levels up; or is edited in its place."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from agent.install import InstallConflicts, install
from tests.install.host import failure_of
from tests.security.install.attacker import SECURITY, USER, as_user

if TYPE_CHECKING:
    from pathlib import Path

    from tests.security.install.surroundings import SharedHost

pytestmark = SECURITY

APP = "files: [{source: app, destination: '@DEST@/home/app'}]"
DEEP = "files: [{source: app, destination: '@DEST@/home/top/below/app'}]"
GIVEN = f"\npermissions: [{{object: '@DEST@/home', type: [directory], owner: {USER}}}]"
LISTED = f"\npermissions: [{{object: '@DEST@/home', type: [directory], acls: ['u:{USER}:rwx']}}]"
FIRST = {"app/a": "1", "app/gone": "1", "app/sub/c": "1"}
SECOND = {"app/a": "2", "app/sub/c": "1"}


def backup_of_root(host: SharedHost, *names: str) -> Path:
    """A directory of root's alone, in the user's."""
    backup = host.home / "backup"
    backup.mkdir(mode=0o700)
    for name in names:
        (backup / name).parent.mkdir(exist_ok=True)
        (backup / name).write_text("root's")
    return backup


def exchange(place: Path, other: Path) -> None:
    """The user moves one of its directories away, and another one there."""

    def move() -> None:
        place.rename(place.with_name("aside"))
        other.rename(place)

    as_user(move)


def assert_still_roots(place: Path, *names: str) -> None:
    """The directory is root's alone, as are these files in it."""
    status = place.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o700)
    assert os.listxattr(place) == []
    assert ["root's"] * len(names) == [(place / name).read_text() for name in names]


def made_by_root(host: SharedHost) -> None:
    """The operator has made the directory, before anything was installed."""
    (host.home / "app").mkdir()


def made_by_install(_host: SharedHost) -> None:
    """The first Install makes it."""


@pytest.mark.parametrize("permissions", [GIVEN, LISTED])
@pytest.mark.parametrize("names", [[], ["other"]], ids=["empty", "with another file"])
def test_a_directory_of_root_is_not_given_away_like_the_one_that_install_has_made(
    host: SharedHost, permissions: str, names: list[str]
) -> None:
    """Its owner or its list would be that of the revision's directory, and the user could read and remove all of it."""
    install(host.request(FIRST, APP + permissions, durable=False))
    exchange(host.home / "app", backup_of_root(host, *names))

    install(host.request(SECOND, APP + permissions, durable=False))

    assert_still_roots(host.home / "app", *names)
    assert (host.home / "app/a").read_text() == "2"


def test_a_directory_above_may_be_exchanged_as_well(host: SharedHost) -> None:
    """It is two levels up, and root's from there on."""
    (host.home / "top/below/app").mkdir(parents=True)
    install(host.request(FIRST, DEEP, durable=False))
    exchange(host.home / "top", backup_of_root(host, "below/x"))
    (host.home / "top/below/app").mkdir(mode=0o700)
    (host.home / "top/below/app/a").write_text("root's")

    failure = failure_of(lambda: install(host.request(SECOND, DEEP, durable=False)))

    assert isinstance(failure, InstallConflicts)
    assert (host.home / "top/below/app/a").read_text() == "root's"


def edit_in_place(app: Path) -> None:
    """With the same inode."""
    for path in app.rglob("*"):
        if path.is_file():
            path.write_text("edited")


def edit_one_beside(app: Path) -> None:
    """As most editors do it."""
    (app / "beside").write_text("edited")
    (app / "beside").rename(app / "a")


@pytest.mark.parametrize("make", [made_by_root, made_by_install])
@pytest.mark.parametrize("permissions", ["", GIVEN, LISTED])
@pytest.mark.parametrize("edit", [edit_in_place, edit_one_beside])
def test_in_its_own_directory_what_somebody_has_edited_is_replaced_as_ever(
    host: SharedHost, make: object, permissions: str, edit: object
) -> None:
    """A directory of root's in the home of the user whom the application runs as is the most usual of all."""
    assert callable(make)
    assert callable(edit)
    make(host)
    install(host.request(FIRST, APP + permissions, durable=False))
    edit(host.home / "app")

    install(host.request(SECOND, APP + permissions, durable=False))

    assert (host.home / "app/a").read_text() == "2"
    assert (host.home / "app/sub/c").read_text() == "1"

"""Directories that were the user's, or that the user could write to, and that the next revision leaves to root alone."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from tests.install.host import failure_of
from tests.install.observers import at_step
from tests.security.install.attacker import ROUNDS, SECURITY, THEIRS, USER, as_user, racing, step_of
from tests.security.install.surroundings import SharedHost, raced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = SECURITY

FOR_ROOT = "files: [{source: app, destination: '@DEST@/srv/app'}]"
GIVEN = FOR_ROOT + "\npermissions: [{object: '@DEST@/srv', type: [directory], "
BEFORE = {
    "owner": GIVEN + f"owner: {USER}}}]",
    "group": GIVEN + f"group: {USER}, mode: 775}}]",
    "everybody": GIVEN + "mode: 777}]",
    "acl": GIVEN + f"acls: ['u:{USER}:rwx']}}]",
}
OLD = {
    "app/kept": "k",
    "app/changed": "1",
    "app/adjusted": "a",
    "app/sub/kept": "k",
    "app/sub/deep/kept": "k",
}
NEW = {
    **OLD,
    "app/changed": "2",
    "app/adjusted": {"content": "a", "mode": 0o755},
    "app/new": "n",
    "app/fresh/new": "n",
}
MOMENTS = [Moment.JOURNAL, Moment.COPY, Moment.SWITCH, Moment.RENAME, Moment.ADJUST, Moment.ATTRIBUTES]


def for_own_file(path: Path) -> None:
    """The user puts a file of its own in the place of this one."""
    if path.exists():
        path.rename(path.with_name("aside"))
    path.write_text(THEIRS)


def for_own_directory(path: Path) -> None:
    """The user puts a directory of its own in the place of this one."""
    path.rename(path.with_name("aside"))
    path.mkdir()
    for name in ("kept", "new"):
        (path / name).write_text(THEIRS)


def for_hidden_file(directory: Path) -> None:
    """The user puts a file of its own in the place of each that waits."""
    for path in list(directory.glob(".install-*")):
        if path.is_file():
            path.rename(path.with_name(f"aside{path.name[-6:]}"))
            path.write_text(THEIRS)


def assert_all_is_the_revisions(host: SharedHost) -> None:
    """All that was installed is root's, with the content of the revision."""
    for name, described in NEW.items():
        path = host.srv / name
        content = described["content"] if isinstance(described, dict) else described
        assert (0, content) == (path.stat().st_uid, path.read_text()), f"{name} is the user's"


ACTS = {
    "a kept file": lambda host: for_own_file(host.srv / "app/kept"),
    "a changed file": lambda host: for_own_file(host.srv / "app/changed"),
    "an adjusted file": lambda host: for_own_file(host.srv / "app/adjusted"),
    "a file below": lambda host: for_own_file(host.srv / "app/sub/deep/kept"),
    "a directory": lambda host: for_own_directory(host.srv / "app/sub"),
    "what waits": lambda host: for_hidden_file(host.srv / "app"),
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_what_the_user_exchanges_in_the_last_moment_is_not_taken_for_the_revision(
    host: SharedHost, before: str, act: str, moment: Moment
) -> None:
    """Root runs what is there from then on, and the report says that it is the revision."""
    install(host.request(OLD, BEFORE[before], durable=False))
    os.chmod(host.srv, 0o755)  # noqa: S103 - so that the user gets there
    change: Callable[[SharedHost], None] = ACTS[act]
    observer = at_step(moment, lambda: as_user(lambda: change(host)))

    failure = failure_of(lambda: install(host.request(NEW, FOR_ROOT, durable=False), observer=observer))

    if failure is None:
        assert_all_is_the_revisions(host)


@pytest.mark.parametrize("name", ["kept", "changed", "sub"])
def test_nor_what_the_user_exchanges_all_the_time(host: SharedHost, racer: Path, name: str) -> None:
    """The same at any moment."""
    first, second = (
        host.request(OLD, BEFORE["owner"], durable=False),
        host.request(NEW, FOR_ROOT, durable=False),
    )
    own, installed = host.home / "own", 0
    for number in range(ROUNDS // 3):
        install(first)
        as_user(lambda: own.mkdir() if name == "sub" else own.write_text(THEIRS))
        with racing(racer, host.srv / "app", "swap", name, os.path.relpath(own, host.srv / "app")) as user:
            failure = raced(host, user, second, step_of(number))
        if failure is None and (host.srv / "app").stat().st_uid == 0:
            assert_all_is_the_revisions(host)
            installed += 1
        host.start_anew()
        own.unlink() if own.is_file() else shutil.rmtree(own)
    assert installed

"""In a directory that is about to be root's alone again, the user changes what it hands down, in the last moment."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from tests.install.observers import at_step
from tests.install.trees import ACL_NAMES, acl_for, give_acl
from tests.security.install.attacker import SECURITY, USER, as_user

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.security.install.surroundings import SharedHost

pytestmark = SECURITY

FOR_ROOT = "files: [{source: app, destination: '@DEST@/srv/app'}]"
GIVEN = f"{FOR_ROOT}\npermissions: [{{object: '@DEST@/srv', type: [directory], owner: {USER}}}]"
OLD: dict[str, Any] = {"app/kept": "k", "app/changed": "1", "app/sub/kept": "k"}
NEW: dict[str, Any] = {
    **OLD,
    "app/changed": {"content": "2", "mode": 0o664},
    "app/new": {"content": "n", "mode": 0o775},
    "app/link": {"link": "new"},
    "app/sub/new": {"content": "n", "mode": 0o664},
    "app/fresh/new": {"content": "n", "mode": 0o664},
    "app/fresh/deep/new": {"content": "n", "mode": 0o664},
}
ROOTS_ALONE = (0, 0, False, ())
MOMENTS = [
    (Moment.JOURNAL, 1),
    (Moment.MKDIR, 1),
    (Moment.MKDIR, 2),
    (Moment.COPY, 1),
    (Moment.COPY, 2),
    (Moment.COPY, 3),
    (Moment.SWITCH, 1),
    (Moment.RENAME, 1),
    (Moment.RENAME, 2),
    (Moment.ATTRIBUTES, 1),
    (Moment.ATTRIBUTES, 2),
]


def default_list(directory: Path) -> None:
    """What is made there from now on lets the user in."""
    give_acl(directory, *acl_for(USER, 7), is_default=True)


def access_list(directory: Path) -> None:
    """The user may still write there when it is somebody else's."""
    give_acl(directory, *acl_for(USER, 7))


def own_group(directory: Path) -> None:
    """What is made there from now on belongs to the user's group."""
    os.chown(directory, -1, USER)
    directory.chmod(0o2775)


@pytest.mark.parametrize("hand_down", [default_list, access_list, own_group])
@pytest.mark.parametrize(("moment", "number"), MOMENTS, ids=str)
@pytest.mark.parametrize("name", ["app", "app/sub"])
def test_nothing_of_that_stays_on_what_is_roots_then(
    host: SharedHost, hand_down: Callable[[Path], None], moment: Moment, number: int, name: str
) -> None:
    """Root runs what is there from then on, and the user could still write to it, or to what root makes there later."""
    install(host.request(OLD, GIVEN, durable=False))

    def act() -> None:
        with suppress(PermissionError):  # the directory may be root's already
            hand_down(host.srv / name)

    observer = at_step(moment, lambda: as_user(act), number)

    install(host.request(NEW, FOR_ROOT, durable=False), observer=observer)

    found = {str(path.relative_to(host.srv)): of(path) for path in host.srv.rglob("*")}
    assert {path: what for path, what in found.items() if what != ROOTS_ALONE} == {}


def of(path: Path) -> tuple[int, int, bool, tuple[str, ...]]:
    """Owner, group, whether it hands its group down, and its lists."""
    status = path.lstat()
    lists = tuple(name for name in os.listxattr(path, follow_symlinks=False) if name in ACL_NAMES)
    return status.st_uid, status.st_gid, path.is_dir() and bool(status.st_mode & 0o2000), lists

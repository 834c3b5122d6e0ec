"""Names of root's files in the user's directory: such as hard links, which a host without `protected_hardlinks` lets users make."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from agent.protocol import FileExistsBehavior
from tests.install.host import failure_of
from tests.install.observers import failing_at
from tests.install.trees import MTIME_NS, everything_about
from tests.security.install.attacker import ROUNDS, SECURITY, STEPS, USER, racing, step_of
from tests.security.install.surroundings import FIRST, GIVEN_AWAY, SECOND, WWW, SharedHost, raced

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = SECURITY

BEHAVIORS = [FileExistsBehavior.OVERWRITE, FileExistsBehavior.RETAIN]


def name_of_roots_file(host: SharedHost) -> Path:
    """A second name, in the user's home, of a file of root's that has the content of both revisions."""
    bait = host.home / "bait"
    bait.unlink(missing_ok=True)
    os.link(host.same_files / "b.conf", bait)
    return bait


@pytest.mark.parametrize("is_undone", [False, True])
def test_a_file_is_exchanged_for_a_name_of_roots(host: SharedHost, racer: Path, *, is_undone: bool) -> None:
    """A kept file gets owner, mode and time of the new revision, in place, and gets the old ones back."""
    name_of_roots_file(host)
    turns = [
        host.request(revision, appspec, behavior=behavior, durable=False)
        for revision, appspec in ((FIRST, WWW), (SECOND, GIVEN_AWAY), (with_mode(0o640), WWW))
        for behavior in BEHAVIORS
    ]
    with racing(racer, host.www, "swap", "b.conf", "../bait") as user:
        for number in range(ROUNDS):
            name_of_roots_file(host)  # the last round may have exchanged it, and replaced it
            if not (host.www / "b.conf").exists():
                host.write({"b.conf": FIRST["app/b.conf"]}, host.www)
            step = 1 + number % (2 * STEPS) if is_undone else step_of(number)
            then = failing_at(Moment.COMMIT) if is_undone and number % 3 else None
            raced(host, user, turns[number % len(turns)], step, then)
            host.recover()
            host.assert_nothing_else_has_changed()


def with_mode(mode: int) -> dict[str, Any]:
    """The first revision, where the file has another mode and time."""
    changed = {"content": FIRST["app/b.conf"], "mode": mode, "mtime_ns": MTIME_NS}
    return {**FIRST, "app/b.conf": changed}


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_a_name_of_roots_file_is_replaced_or_left(host: SharedHost, behavior: FileExistsBehavior) -> None:
    """And what it is a name of stays as it is, whatever `permissions` gives to the path."""
    bait = name_of_roots_file(host)
    bait.rename(host.www / "b.conf")

    install(host.request(FIRST, GIVEN_AWAY, behavior=behavior, durable=False))

    host.assert_nothing_else_has_changed()
    is_same = (host.www / "b.conf").samefile(host.same_files / "b.conf")
    assert is_same == (behavior is FileExistsBehavior.RETAIN)


@pytest.mark.parametrize("mode", [0o1777, 0o1775, 0o3777], ids=oct)
def test_in_a_sticky_directory_what_others_have_is_left_alone(host: SharedHost, mode: int) -> None:
    """There, one user may not remove what is another's; root may, and must not do so for either."""
    host.srv.chmod(mode)
    app = host.srv / "app"
    app.mkdir()
    os.chown(app, USER, USER)
    host.write({"a.conf": "the user's", "sub/c.conf": "the user's"}, app)
    before = everything_about(app)
    appspec = "files: [{source: app, destination: '@DEST@/srv/app'}]"

    assert failure_of(lambda: install(host.request(FIRST, appspec, durable=False)))
    assert before == everything_about(app)

    install(host.request(FIRST, appspec, durable=False, behavior=FileExistsBehavior.RETAIN))
    install(host.request({"app/x": "x"}, appspec.replace("/app'", "/other'"), durable=False))
    assert (app / "a.conf").read_text() == "the user's"
    assert (app / "sub/c.conf").read_text() == "the user's"
    assert stat.S_IMODE(host.srv.stat().st_mode) == mode

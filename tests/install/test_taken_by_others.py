"""Somebody puts something in the place of what an Install has made, and the Install is undone then: theirs stays (I7).

What was there before can't have its name back, and whoever reads the log or the report must learn of that.
"""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from agent.install.posix.renames import Renames
from tests.install.children import ended, killed_before, start
from tests.install.host import failure_of, logged_by
from tests.install.observers import at_step, both, failing_at, killed_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.install.host import Host

OLD: dict[str, Any] = {"app/a": "1", "app/conf/deep/x": "1", "app/conf/y": "1"}
NEW: dict[str, Any] = {"app/a": "2", "app/conf": "a file now"}


@pytest.fixture(params=[True, False], ids=["exchange", "no exchange"])
def crashed(request: pytest.FixtureRequest, host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host on which a file has just replaced a directory of ours when the agent died."""
    if not request.param:
        monkeypatch.setattr(Renames, "_renamed", lambda *_arguments: False)
    host.install(OLD)
    assert ended(start(lambda: host.install(NEW, observer=killed_at(Moment.COMMIT))))
    return host


def put_a_file(host: Host) -> None:
    """What an editor does that writes a file anew."""
    (host.dest / "app/other").write_text("theirs")
    (host.dest / "app/other").replace(host.dest / "app/conf")


def put_a_directory(host: Host) -> None:
    """The operator goes back to a directory by hand."""
    (host.dest / "app/conf").unlink()
    host.write({"conf/theirs": "theirs"}, host.dest / "app")


def test_a_directory_that_can_not_come_back_is_kept_beside(crashed: Host) -> None:
    """Nobody could have replaced it by a file and meant to lose what was in it."""
    put_a_file(crashed)

    logged = logged_by(crashed.recover, crashed.base)

    assert (crashed.dest / "app/conf").read_text() == "theirs"
    (kept,) = (crashed.dest / "app").glob("conf.kept-*")
    assert (kept / "deep/x").read_text() == "1"
    assert (kept / "y").read_text() == "1"
    assert crashed.leftovers() == []
    (line,) = [line for line in logged.splitlines() if "replaced_directory_kept" in line]
    assert f"now={kept}" in line
    (line,) = [line for line in logged.splitlines() if "install_undone_after_interruption" in line]
    assert f"{crashed.dest}/app/conf" in line


def test_what_was_in_a_directory_that_others_have_put_there_anew_is_kept_beside(crashed: Host) -> None:
    """The same."""
    put_a_directory(crashed)

    crashed.recover()

    assert (crashed.dest / "app/conf/theirs").read_text() == "theirs"
    (kept,) = (crashed.dest / "app").glob("conf.kept-*")
    assert (kept / "deep/x").read_text() == "1"
    assert crashed.leftovers() == []


@pytest.mark.parametrize("put", [put_a_file, put_a_directory])
def test_a_recovery_that_is_killed_and_begun_again_keeps_it_too(
    host: Host, put: Callable[[Host], None]
) -> None:
    """I8."""
    number, was_killed = 0, True
    while was_killed:
        number += 1
        host.install(OLD)
        observer = both(at_step(Moment.COMMIT, lambda: put(host)), killed_at(Moment.COMMIT))
        assert ended(start(partial(install, host.request(NEW), observer=observer)))

        was_killed = killed_before(number, lambda _count: host.recover())
        host.recover()

        (kept,) = (host.dest / "app").glob("conf.kept-*")
        assert (kept / "deep/x").read_text() == "1"
        assert host.leftovers() == []
        shutil.rmtree(host.dest)
    assert number > 3


def test_the_report_names_what_others_have(host: Host) -> None:
    """Nobody is told that the previous revision is whole when it isn't."""
    host.install(OLD)
    request = host.request(NEW)
    observer = both(at_step(Moment.COMMIT, lambda: put_a_file(host)), failing_at(Moment.COMMIT))

    failure = failure_of(lambda: install(request, observer=observer))

    assert failure is not None
    assert "Everything was put back" not in failure.message
    assert f"{host.dest}/app/conf" in failure.message


def test_the_report_names_it_too_when_the_undo_needs_two_tries(host: Host) -> None:
    """The first one has seen it, and the second one begins where the first one has ended."""
    host.install(OLD)
    request = host.request(NEW, undo_patience_s=10)
    observer = both(at_step(Moment.COMMIT, lambda: put_a_file(host)), failing_at(Moment.COMMIT))
    observer = both(observer, failing_at(Moment.RESTORE_DIRECTORY))

    failure = failure_of(lambda: install(request, observer=observer))

    assert failure is not None
    assert f"{host.dest}/app/conf" in failure.message


@pytest.mark.parametrize("is_undone", [True, False])
def test_a_directory_with_the_longest_name_is_kept_beside(host: Host, *, is_undone: bool) -> None:
    """Its own name leaves no room for more, and no later Install could begin while it can't be done."""
    name = "c" * 255
    host.install({"app/a": "1", f"app/{name}/x": "1"})
    request = host.request({"app/a": "2", f"app/{name}": "a file now"})
    app = host.dest / "app"

    def use_it() -> None:
        (hidden,) = [path for path in app.glob(".install-*.new") if path.is_dir()]
        (hidden / "theirs").write_text("theirs")
        if is_undone:
            (app / "other").write_text("theirs")
            (app / "other").replace(app / name)

    use = at_step(Moment.COMMIT, use_it)
    observer = both(use, failing_at(Moment.COMMIT)) if is_undone else use

    failure_of(lambda: install(request, observer=observer))

    assert host.leftovers() == []
    (kept,) = app.glob("c*.kept-*")
    assert (kept / "theirs").read_text() == "theirs"

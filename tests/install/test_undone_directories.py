"""A new directory has taken the place of a file, or was about to, when an Install fails: the file comes back."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import CommandFailure
from agent.install import install
from agent.install.model.moments import Moment
from tests.install.children import ended, killed_before, start
from tests.install.host import failure_of
from tests.install.observers import at_step, both, failing_at, killed_at

if TYPE_CHECKING:
    from agent.install import InstallRequest
    from tests.install.host import Host

OLD: dict[str, Any] = {"app/a": "a", "app/x": "a file"}
NEW: dict[str, Any] = {"app/a": "A", "app/x/leaf": "l", "app/x/deep/leaf": "l"}


@pytest.fixture
def request_of_new(host: Host) -> InstallRequest:
    """The request to install the new revision, where the old one is installed."""
    host.install(OLD)
    return host.request(NEW)


def put_something_there(host: Host) -> None:
    """What an application does that finds its directory."""
    (host.dest / "app/x/deep/theirs").write_text("theirs")


@pytest.mark.parametrize("moment", [Moment.RENAME, Moment.MANIFEST])
def test_all_is_reported_as_put_back_that_is(
    host: Host, request_of_new: InstallRequest, moment: Moment
) -> None:
    """I6: an operator who reads that something is out of reach goes and looks for it."""
    before = host.everything()

    failure = failure_of(partial(install, request_of_new, observer=failing_at(moment)))

    assert before == host.everything()
    assert failure is not None
    assert "Everything was put back" in failure.message


def test_all_is_reported_as_put_back_that_is_at_the_second_attempt(host: Host) -> None:
    """I8: the disk has refused something for a moment only."""
    host.install(OLD)
    request = host.request(NEW, undo_patience_s=10)
    before = host.everything()
    observer = both(failing_at(Moment.MANIFEST), failing_at(Moment.RESTORE_DIRECTORY))

    failure = failure_of(partial(install, request, observer=observer))
    assert before == host.everything()
    assert failure is not None
    assert "Everything was put back" in failure.message

    observer = both(failing_at(Moment.MANIFEST), failing_at(Moment.RESTORE_OLD, 2))
    failure = failure_of(partial(install, request, observer=observer))
    assert before == host.everything()
    assert failure is not None
    assert "Everything was put back" in failure.message


def test_the_name_is_there_at_every_moment(host: Host, request_of_new: InstallRequest) -> None:
    """I1: whoever opens the file while it is put back must not find that there is none."""
    before, absent = host.everything(), []

    def observe(moment: Moment, _path: bytes) -> None:
        if not os.path.lexists(host.dest / "app/x"):
            absent.append(moment)
        if moment is Moment.MANIFEST:
            raise OSError(errno.EIO, "a made-up error")

    with pytest.raises(CommandFailure):
        install(request_of_new, observer=observe)

    assert before == host.everything()
    assert [] == absent


def test_others_files_are_kept_beside_the_file(host: Host, request_of_new: InstallRequest) -> None:
    """I7: the application has begun to use the new directory, and its data are not ours to throw away."""
    observer = both(at_step(Moment.MANIFEST, lambda: put_something_there(host)), failing_at(Moment.COMMIT))

    with pytest.raises(CommandFailure):
        install(request_of_new, observer=observer)

    assert "a file" == (host.dest / "app/x").read_text()
    (kept,) = (host.dest / "app").glob("x.kept-*")
    assert ["deep", "deep/theirs"] == sorted(str(path.relative_to(kept)) for path in kept.rglob("*"))
    assert "theirs" == (kept / "deep/theirs").read_text()
    assert [] == host.leftovers()


def test_others_files_are_kept_too_by_a_recovery_that_is_killed_and_begun_again(host: Host) -> None:
    """I8: no moment of an undo is one at which a crash loses the data of others."""
    number, was_killed = 0, True
    while was_killed:
        number += 1
        host.install(OLD)
        observer = both(at_step(Moment.MANIFEST, lambda: put_something_there(host)), killed_at(Moment.COMMIT))
        assert ended(start(partial(install, host.request(NEW), observer=observer)))

        was_killed = killed_before(number, lambda _count: host.recover())
        host.recover()

        assert "a file" == (host.dest / "app/x").read_text()
        (kept,) = (host.dest / "app").glob("x.kept-*")
        assert "theirs" == (kept / "deep/theirs").read_text()
        assert [] == host.leftovers()
        (kept / "deep/theirs").unlink()
        (kept / "deep").rmdir()
        kept.rmdir()
    assert number > 5

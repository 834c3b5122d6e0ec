"""A file that has kept its content and got other attributes, when an Install is undone and somebody has been at it."""

from __future__ import annotations

import os
import pwd
import stat
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from tests.install.children import ended, in_child, start
from tests.install.host import failure_of
from tests.install.observers import at_step, both, failing_at, killed_at
from tests.install.trees import MTIME_NS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.install.host import Host

NOBODY = pwd.getpwnam("nobody").pw_uid
NEW_MTIME_NS = MTIME_NS + 10**12


def revision(mode: int, mtime_ns: int) -> dict[str, Any]:
    """One file, always with the same content."""
    return {"app/settings": {"content": "as installed", "mode": mode, "mtime_ns": mtime_ns}}


OLD, NEW = revision(0o640, MTIME_NS), revision(0o644, NEW_MTIME_NS)


def longer(path: Path) -> None:
    """An edit that shows in size and time."""
    path.write_text("as the operator wants it")


def as_long(path: Path) -> None:
    """An edit that only the time tells of."""
    path.write_text("AS INSTALLED")


def longer_with_the_time_of_the_revision(path: Path) -> None:
    """An edit that only the size tells of, such as a copy that keeps times."""
    longer(path)
    os.utime(path, ns=(NEW_MTIME_NS, NEW_MTIME_NS))


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("edit", [longer, as_long, longer_with_the_time_of_the_revision])
def test_what_was_edited_meanwhile_keeps_the_time_of_the_edit(
    host: Host, edit: Callable[[Path], None], *, is_killed: bool
) -> None:
    """A backup that goes by times would leave the edit out. The mode comes back all the same."""
    host.install(OLD)
    path = host.dest / "app/settings"
    seen: list[int] = []

    def edit_and_look() -> None:
        edit(path)
        seen.append(path.stat().st_mtime_ns)

    if is_killed:
        assert ended(start(lambda: host.install(NEW, observer=killed_at(Moment.COMMIT))))
        edit_and_look()
        assert host.recover()
    else:
        observer = both(at_step(Moment.COMMIT, edit_and_look), failing_at(Moment.COMMIT))
        assert failure_of(lambda: host.install(NEW, observer=observer))

    status = path.stat()
    assert seen == [status.st_mtime_ns]
    assert stat.S_IMODE(status.st_mode) == 0o640


@pytest.mark.parametrize("moment", [Moment.ADJUST, Moment.COMMIT])
def test_what_nobody_has_edited_is_as_it_was(host: Host, moment: Moment) -> None:
    """I6: whether it had got the new time already or not."""
    host.install(OLD)
    before = host.everything()
    request = host.request(NEW)

    assert failure_of(lambda: install(request, observer=failing_at(moment)))

    assert before == host.everything()


def test_what_is_not_that_file_any_more_keeps_its_mode(host: Host) -> None:
    """To be read at all by its owner, a file may be given another mode; but first it must be known to be ours."""
    path, old, new = host.dest / "app/settings", host.request(OLD), host.request(NEW)

    def install_and_recover() -> None:
        if os.geteuid() == 0:
            os.setresuid(NOBODY, NOBODY, NOBODY)  # root may read everything
        install(old)
        assert ended(start(lambda: install(new, observer=killed_at(Moment.COMMIT))))
        path.chmod(stat.S_ISUID)
        assert host.recover()

    if os.geteuid() == 0:
        for there in (host.base, *host.base.rglob("*")):
            os.chown(there, NOBODY, -1)
    in_child(install_and_recover)

    assert stat.S_IMODE(path.stat().st_mode) == stat.S_ISUID

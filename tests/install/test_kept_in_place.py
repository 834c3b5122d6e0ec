"""Files that keep their content, and get other attributes: in place only where nobody is trusted more by that."""

from __future__ import annotations

import os
import pwd
import stat
from typing import TYPE_CHECKING, Any

import pytest

from agent.install.model.moments import Moment
from tests.install.again import let_the_clock_tick
from tests.install.host import FILES, Host, failure_of
from tests.install.observers import at_step, both, failing_at
from tests.install.trees import MTIME_NS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.install.model.moments import Observer

NOBODY = pwd.getpwnam("nobody").pw_uid
TEAM = 4321
CONTENT = "root runs this"
EVIL = "root runs that"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def appspec(permissions: str) -> str:
    """An AppSpec in which all files get that."""
    entry = (
        f"\npermissions:\n  - {{object: '@DEST@/app', type: [file], {permissions}}}" if permissions else ""
    )
    return FILES + entry


def tree(mode: int = 0o644, mtime_ns: int = MTIME_NS) -> dict[str, Any]:
    """A revision with one file."""
    return {"app/run": {"content": CONTENT, "mode": mode, "mtime_ns": mtime_ns}}


TRUSTED_MORE = [
    pytest.param(tree(), "owner: nobody", tree(), "", id="the owner's", marks=[as_root, pytest.mark.root]),
    pytest.param(
        tree(),
        f"group: {TEAM}, mode: 664",
        tree(0o664),
        "",
        id="a group's",
        marks=[as_root, pytest.mark.root],
    ),
    pytest.param(tree(0o664), "", tree(), "", id="its group's"),
    pytest.param(tree(0o666), "", tree(), "", id="everybody's"),
    pytest.param(tree(0o620), "", tree(0o622), "mode: '0622'", id="and from now on everybody's"),
    pytest.param(tree(), "acls: ['u:nobody:rw']", tree(), "", id="a user's"),
    pytest.param(tree(), "acls: ['u:nobody:rw']", tree(), "acls: ['u:nobody:r']", id="a user's who may read"),
    pytest.param(tree(0o664), "", tree(0o664), "acls: ['u:nobody:r']", id="a member's of its group"),
    pytest.param(
        tree(),
        "owner: nobody",
        tree(),
        f"owner: nobody, group: {TEAM}, mode: '2755'",
        id="the owner's, setgid",
        marks=[as_root, pytest.mark.root],
    ),
    pytest.param(tree(), "", tree(), "mode: '4755'", id="setuid"),
    pytest.param(tree(0o4755), "", tree(), "", id="setuid before"),
]


@pytest.mark.parametrize(("old", "given", "new", "given_now"), TRUSTED_MORE)
def test_what_somebody_may_still_have_open_is_no_file_that_is_trusted_more(
    host: Host, old: dict[str, Any], given: str, new: dict[str, Any], given_now: str
) -> None:
    """Whoever could write it, and has it open, would write to what root runs, long after he has lost that right."""
    host.install(old, appspec(given))
    path = host.dest / "app/run"
    held = os.open(path, os.O_RDWR)
    try:
        host.install(new, appspec(given_now))
        os.pwrite(held, EVIL.encode(), 0)
    finally:
        os.close(held)

    assert CONTENT == path.read_text()


TRUSTED_AS_BEFORE = [
    pytest.param(tree(), "", tree(0o600), "", id="fewer may read"),
    pytest.param(tree(), "", tree(0o755), "", id="all may run it"),
    pytest.param(tree(), "", tree(mtime_ns=MTIME_NS + 10**9), "", id="another time"),
    pytest.param(tree(), "", tree(), "acls: ['u:nobody:r']", id="a user may read"),
    pytest.param(tree(), "acls: ['u:nobody:r']", tree(), "", id="a user may not read any more"),
    pytest.param(
        tree(), f"group: {TEAM}", tree(), "", id="another group reads", marks=[as_root, pytest.mark.root]
    ),
    pytest.param(tree(0o4755), "", tree(0o4755, MTIME_NS + 10**9), "", id="setuid as before"),
    pytest.param(
        tree(),
        "owner: nobody",
        tree(0o640),
        "owner: nobody",
        id="the owner's",
        marks=[as_root, pytest.mark.root],
    ),
]


@pytest.mark.parametrize(("old", "given", "new", "given_now"), TRUSTED_AS_BEFORE)
def test_what_the_same_may_write_as_before_is_not_written_again(
    host: Host, old: dict[str, Any], given: str, new: dict[str, Any], given_now: str
) -> None:
    """A revision of which only modes and times are new takes no room, and no time."""
    host.install(old, appspec(given))
    path = host.dest / "app/run"
    inode = path.stat().st_ino

    summary = host.install(new, appspec(given_now))

    assert (inode, 1, 0) == (path.stat().st_ino, summary.unchanged, summary.copied_bytes)


def written(path: Path) -> None:
    """Another content, of the same size and with the same time."""
    status = path.stat()
    path.write_text(EVIL)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(path: Path) -> None:
    """Another file with the same name."""
    path.unlink()
    path.write_text(EVIL)


@pytest.mark.parametrize("change", [written, replaced])
@pytest.mark.parametrize("step", [Moment.JOURNAL, Moment.SWITCH, Moment.ADJUST])
def test_a_file_that_is_changed_after_it_was_compared_is_compared_again(
    host: Host, change: Callable[[Path], None], step: Moment
) -> None:
    """The deployment would be reported as succeeded, with another content than that of the revision."""
    host.install(tree())
    path = host.dest / "app/run"
    let_the_clock_tick(host.dest)

    host.install(tree(0o755), observer=at_step(step, lambda: change(path)))

    assert (CONTENT, 0o755) == (path.read_text(), stat.S_IMODE(path.stat().st_mode))
    assert [] == host.leftovers()


def test_a_file_that_somebody_changes_each_time_fails_the_install(host: Host) -> None:
    """Twice is enough: the operator has to find out who does that."""
    host.install(tree())
    path = host.dest / "app/run"

    def observe(kind: Moment, _path: bytes) -> None:
        if kind == Moment.ADJUST:
            let_the_clock_tick(host.dest)
            path.chmod(0o640)

    failure = failure_of(lambda: host.install(tree(0o755), observer=observe))

    assert failure is not None
    assert "it was changed while Install was running" in failure.message
    assert (CONTENT, 0o644) == (path.read_text(), stat.S_IMODE(path.stat().st_mode))


@as_root
@pytest.mark.root
@pytest.mark.parametrize("step", [Moment.MANIFEST, Moment.COMMIT])
def test_an_undo_gives_root_nothing_that_somebody_else_has_put_there(host: Host, step: Moment) -> None:
    """His file may have got the number of the one that he has removed, and root would own what he writes."""
    host.install(tree())
    path = host.dest / "app/run"
    observer = both(at_step(step, lambda: os.chown(path, NOBODY, -1)), failing_at(step))

    assert failure_of(lambda: host.install(tree(0o755), observer=observer)) is not None
    assert NOBODY == path.stat().st_uid


def test_an_undo_gives_no_setuid_bit_back_that_has_gone(host: Host) -> None:
    """It goes when somebody writes to the file: what he has written is not what had the bit."""
    host.install(tree(0o4755))
    path = host.dest / "app/run"
    observer: Observer = both(at_step(Moment.COMMIT, lambda: path.chmod(0o755)), failing_at(Moment.COMMIT))

    assert failure_of(lambda: host.install(tree(0o4755, MTIME_NS + 10**9), observer=observer)) is not None
    assert 0o755 == stat.S_IMODE(path.stat().st_mode)

"""Records of the last Install that are damaged or lost: what they no longer tell is not taken for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.install import installed_deployment
from tests.install.host import failure_of, logged_by

if TYPE_CHECKING:
    from pathlib import Path

    from tests.install.host import Host

FIRST: dict[str, Any] = {"app/a": "1", "app/b": "b", "app/sub/c": "c", "app/z/odd\nname": "o"}
SECOND: dict[str, Any] = {"app/a": "2"}


def record(host: Host, name: str) -> Path:
    return host.instructions / f"{host.group_id}-{name}"


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.97], ids=["nothing", "half", "all but the end"])
def test_a_cleanup_file_that_breaks_off_loses_no_file(host: Host, kept: float) -> None:
    """A full disk, or a power failure, has left it so; its old files must neither stay for ever nor be in the way."""
    host.install(FIRST, durable=False)
    content = record(host, "cleanup").read_bytes()
    record(host, "cleanup").write_bytes(content[: int(len(content) * kept)])
    assert "d-000000001" == installed_deployment(host.instructions, host.group_id)
    summary = host.install(SECOND, durable=False)
    assert (1, 3, ()) == (summary.replaced, summary.removed, summary.left_behind)
    assert {"app/": None, "app/a": "2"} == host.tree()


def test_a_cleanup_file_that_breaks_off_is_written_anew_though_nothing_else_changes(host: Host) -> None:
    """Another agent, which knows no other record, would clean up only half the next time."""
    host.install(FIRST, durable=False)
    content = record(host, "cleanup").read_bytes()
    for damaged in (content[:40], b""):
        record(host, "cleanup").write_bytes(damaged)
        summary = host.install(FIRST, durable=False)
        assert (0, 0, 4) == (summary.created, summary.replaced, summary.unchanged)
        assert content == record(host, "cleanup").read_bytes()


def test_a_manifest_that_breaks_off_loses_no_file(host: Host) -> None:
    """The cleanup file still says what there is; only who has edited what is not known any more."""
    host.install(FIRST, durable=False)
    lines = record(host, "manifest").read_bytes().splitlines(keepends=True)
    for end in range(1, len(lines)):
        record(host, "manifest").write_bytes(b"".join(lines[:end]))
        host.install(SECOND, durable=False)
        left = host.tree()
        left.pop("app/z/", None), left.pop("app/z/odd\nname", None)  # which other agents' lists can't name
        assert {"app/": None, "app/a": "2"} == left
        host.write({"app/z/odd\nname": "o"})
        (host.dest / "app/z/odd\nname").unlink()
        (host.dest / "app/z").rmdir()
        host.install(FIRST, durable=False)
        lines[:] = record(host, "manifest").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("name", ["manifest", "install.json"])
@pytest.mark.parametrize("damage", ["gone", "empty"])
def test_where_another_record_is_lost_the_cleanup_file_tells_what_goes(
    host: Host, name: str, damage: str
) -> None:
    """As it does where another agent has installed the last revision."""
    host.install({"app/a": "1", "app/b": "b", "app/sub/c": "c"}, durable=False)
    if damage == "gone":
        record(host, name).unlink()
    else:
        record(host, name).write_bytes(b"")
    host.install(SECOND, durable=False)
    assert {"app/": None, "app/a": "2"} == host.tree()


def test_conflicts_say_that_the_cleanup_file_is_gone(host: Host) -> None:
    """All files look like somebody else's then, and who looks at them knows that they are not."""
    host.install(FIRST, durable=False)
    record(host, "cleanup").unlink()
    failure = failure_of(lambda: host.install(SECOND, durable=False))
    assert failure is not None
    assert (
        f"What the last Install of this group has put there is not known, because {record(host, 'cleanup')} is not there"
        in failure.message
    )


def test_files_that_nobody_knows_any_more_are_no_secret(host: Host) -> None:
    """Whoever removed the cleanup file finds in the log why the old files are still there."""
    host.install(FIRST, durable=False)
    record(host, "cleanup").unlink()
    log = logged_by(lambda: host.install({"app/new": "n"}, durable=False), host.base)
    assert "cleanup_file_missing" in log
    assert "c" == (host.dest / "app/sub/c").read_text()


def test_a_first_install_misses_nothing(host: Host) -> None:
    """A warning on each new host would soon be read by nobody."""
    assert "cleanup_file" not in logged_by(lambda: host.install(FIRST, durable=False), host.base)


@pytest.mark.parametrize(
    "damage", [b"\0" * 5000, b"/\0\0\0\n/x\0y\n", b"/" + b"n" * 5000 + b"\n", b"\xff\n\n//\n"]
)
def test_a_cleanup_file_of_garbage_stops_nothing(host: Host, damage: bytes) -> None:
    """A power failure leaves blocks of zeros in what another agent has written."""
    host.install(FIRST, durable=False)
    content = record(host, "cleanup").read_bytes()
    record(host, "manifest").unlink()
    record(host, "cleanup").write_bytes(damage + b"\n" + content)
    host.install(SECOND, durable=False)
    left = host.tree()
    left.pop("app/z/", None), left.pop("app/z/odd\nname", None)
    assert {"app/": None, "app/a": "2"} == left


@pytest.mark.parametrize("name", ["journal", "journal-committed"])
def test_a_journal_that_can_not_be_opened_is_not_taken_for_none(host: Host, name: str) -> None:
    """The files of a half-done Install would be somebody else's from then on."""
    host.install(FIRST, durable=False)
    before = host.tree()
    record(host, name).symlink_to(
        record(host, name).name
    )  # from itself to itself, so that even root can't open it
    failure = failure_of(lambda: host.install(SECOND, durable=False))
    assert failure is not None
    assert "install-journal-unreadable" == failure.error_id
    assert before == host.tree()

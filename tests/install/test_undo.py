"""Install is all or nothing."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import CommandFailure
from agent.install import install, recover_install
from agent.protocol import FileExistsBehavior

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.install import InstallRequest

FIRST = {
    "app/same.txt": "same",
    "app/changed.txt": "one",
    "app/gone.txt": "gone",
    "app/olddir/x": "x",
    "app/link": {"link": "same.txt"},
    "app/becomes-dir": "a file",
    "app/becomes-file/inner/leaf": "leaf",
    "app/setuid": {"content": "s", "mode": 0o4755},
}
SECOND = {
    "app/same.txt": "same",
    "app/changed.txt": "two",
    "app/new.txt": "new",
    "app/link": {"link": "changed.txt"},
    "app/becomes-dir/inner": "in a directory",
    "app/becomes-file": "now a file",
    "app/newdir/deep/leaf": "leaf",
    "app/newdir/hard": {"same_as": "app/new.txt"},
    "app/foreign.txt": "overwritten",
}
FILES = "files: [{source: app, destination: '@DEST@/app'}]"
PERMISSIONS = f"{FILES}\npermissions: [{{object: '@DEST@/app', type: [directory], mode: 700}}]"


class Stop(Exception):
    """What the observer raises: not an error that Install knows about."""


def prepared(host: Any) -> InstallRequest:
    """The first revision is installed, somebody put a file of his own beside it, and the second is ready."""
    host.install(FIRST, FILES, durable=False)
    host.write({"app/foreign.txt": {"content": "foreign", "mode": 0o600}, "beside/y": "y"})
    request: InstallRequest = host.request(
        SECOND, PERMISSIONS, behavior=FileExistsBehavior.OVERWRITE, durable=False
    )
    return request


def steps_of(host: Any) -> list[tuple[str, str]]:
    """All that the observer is told before the Install has succeeded."""
    seen: list[tuple[str, str]] = []
    install(prepared(host), observer=lambda kind, path: seen.append((kind, os.fsdecode(path))))
    kinds = [kind for kind, _path in seen]
    return seen[: kinds.index("publish")]


def failing_at(number: int, error: BaseException) -> Callable[[str, bytes], None]:
    """An observer that raises at the step with this number."""
    count = 0

    def observe(_kind: str, _path: bytes) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise error

    return observe


def test_a_failure_at_any_step_puts_everything_back(host: Any) -> None:
    """Half a revision is worse than the old one: whatever fails, the application must run as before."""
    total = len(steps_of(host))
    assert total > 20
    for number in range(1, total + 1):
        fresh = type(host)(host.base / f"step-{number}")
        request = prepared(fresh)
        before = fresh.everything()
        records = {path.name: path.read_bytes() for path in fresh.instructions.iterdir()}

        with pytest.raises(CommandFailure) as caught:
            install(request, observer=failing_at(number, OSError(errno.EIO, "a made-up error")))

        assert caught.value.error_id == "install-failed"
        assert "a made-up error" in caught.value.message
        assert before == fresh.everything(), f"step {number}"
        assert [] == fresh.leftovers(), f"step {number}"
        assert records == {path.name: path.read_bytes() for path in fresh.instructions.iterdir()}


def test_an_interruption_puts_everything_back_as_well(host: Any) -> None:
    """When the worker is told to end in the middle, nobody translates that into an Install error."""
    request = prepared(host)
    before = host.everything()

    with pytest.raises(Stop):
        install(request, observer=failing_at(9, Stop()))

    assert before == host.everything()
    assert [] == host.leftovers()


def test_after_a_failure_the_same_revision_can_be_installed(host: Any) -> None:
    """The second try must find the host as the first one did."""
    request = prepared(host)
    with pytest.raises(CommandFailure):
        install(request, observer=failing_at(12, OSError(errno.EIO, "a made-up error")))

    install(request)

    assert "two" == host.tree()["app/changed.txt"]
    assert "app/gone.txt" not in host.tree()


def killed_at(number: int, request: InstallRequest) -> int:
    """Run the Install in a child that is killed at this step; its wait status."""
    child = os.fork()
    if child == 0:
        count = 0

        def observe(_kind: str, _path: bytes) -> None:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            install(request, observer=observe)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def test_a_kill_at_any_step_is_undone_or_completed_at_the_next_start(host: Any) -> None:
    """A host that loses power in the middle must come up with one whole revision, whichever."""
    done = type(host)(host.base / "done")
    seen: list[str] = []
    install(prepared(done), observer=lambda kind, _path: seen.append(kind))
    after = done.tree()
    committed = seen.index("publish") + 1
    for number in range(1, len(seen) + 1):
        fresh = type(host)(host.base / f"kill-{number}")
        request = prepared(fresh)
        before = fresh.everything()

        assert signal.SIGKILL == killed_at(number, request)
        undone = recover_install(fresh.instructions, fresh.group_id)

        if number < committed:
            assert before == fresh.everything(), f"{number}: {seen[number - 1]}"
            # The very first step comes before the journal, so there is nothing to undo then.
            assert undone == (number > 1)
        else:
            assert after == fresh.tree(), f"{number}: {seen[number - 1]}"
            assert not undone
        assert [] == fresh.leftovers()


def test_an_undo_that_is_killed_can_be_repeated(host: Any) -> None:
    """Power may fail twice."""
    for number in range(1, 60):
        fresh = type(host)(host.base / f"twice-{number}")
        request = prepared(fresh)
        before = fresh.everything()
        total = failing_steps(fresh, request, number)
        recover_install(fresh.instructions, fresh.group_id)
        assert before == fresh.everything(), number
        assert [] == fresh.leftovers()
        if total < number:
            break


def failing_steps(host: Any, request: InstallRequest, kill_at: int) -> int:
    """Let the Install fail near its end, and kill it at the given step of the undo that follows; steps seen."""
    report = host.base / "steps"
    child = os.fork()
    if child == 0:
        failed = False
        count = 0

        def observe(kind: str, _path: bytes) -> None:
            nonlocal failed, count
            if failed:
                count += 1
                report.write_text(str(count))
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            elif kind == "commit":
                failed = True
                raise OSError(errno.EIO, "a made-up error")

        try:
            install(request, observer=observe)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return int(report.read_text())


def test_a_journal_that_breaks_off_means_that_nothing_was_begun(host: Any) -> None:
    """The host died while the journal itself was written: nothing has changed, and nothing may be undone."""
    host.install(FIRST, FILES)
    before = host.everything()
    (host.instructions / f"{host.group_id}-journal").write_bytes(b"install-jour")

    assert recover_install(host.instructions, host.group_id)

    assert before == host.everything()
    assert [] == host.leftovers()


def test_a_file_that_appears_while_installing_is_not_overwritten(host: Any) -> None:
    """Between the plan and the last step another program may have made a file of that name."""

    def observe(kind: str, path: bytes) -> None:
        if kind == "switch":
            host.write({"app/new.txt": "somebody else's"})

    host.install({"app/a": "a"})

    with pytest.raises(CommandFailure) as caught:
        host.install({"app/a": "a", "app/new.txt": "ours"}, observer=observe)

    assert "appeared while Install was running" in caught.value.message
    assert "somebody else's" == host.tree()["app/new.txt"]


def test_a_full_disk_is_named_with_numbers(host: Any) -> None:
    """The operator has to know how much to free."""
    with pytest.raises(CommandFailure) as caught:
        host.install(
            {"app/a": "x" * 5000}, observer=failing_at(3, OSError(errno.ENOSPC, "No space left on device"))
        )

    assert caught.value.error_id == "install-disk-full"
    assert "needs 5000 bytes" in caught.value.message
    assert "inodes" in caught.value.message
    assert not host.dest.exists()


def test_a_file_that_vanishes_while_installing_does_not_confuse_the_undo(host: Any) -> None:
    """Somebody removed by hand what was to be replaced, and then a later step failed."""
    host.install({"app/a": "1", "app/b": "1"}, durable=False)

    def observe(kind: str, path: bytes) -> None:
        if kind == "switch":
            (host.dest / "app/a").unlink()
        if kind == "commit":
            raise OSError(errno.EIO, "a made-up error")

    with pytest.raises(CommandFailure):
        host.install({"app/a": "2", "app/b": "2"}, observer=observe, durable=False)

    assert {"app/": None, "app/b": "1"} == host.tree()
    assert [] == host.leftovers()


def test_an_error_while_old_files_go_leaves_the_new_revision_and_can_be_completed(host: Any) -> None:
    """The switch has happened; what is left is tidying up."""

    def observe(kind: str, _path: bytes) -> None:
        if kind == "publish":
            raise OSError(errno.EIO, "a made-up error")

    host.install({"app/a": "1", "app/old": "o"}, durable=False)
    with pytest.raises(CommandFailure) as caught:
        host.install({"app/a": "2"}, observer=observe, durable=False)
    assert "install-not-completed" == caught.value.error_id

    assert not recover_install(host.instructions, host.group_id)

    assert {"app/": None, "app/a": "2"} == host.tree()
    assert ["@DEST@", "@DEST@/app", "@DEST@/app/a"] == host.cleanup()
    assert [] == host.leftovers()


def test_directories_nested_absurdly_deep_are_refused(host: Any) -> None:
    """Not with a language error in the middle of the night."""
    with pytest.raises(CommandFailure, match="more than 200 deep"):
        host.install({"app/" + "d/" * 250 + "x": "x"})

"""Hosts on which two names can't be exchanged in one step: old kernels, NFS, some overlays.

There Install takes more steps for the same, and everything that holds elsewhere has to hold there.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from agent.install.posix.renames import Renames
from tests.install import test_crash, test_failures, test_readers, test_undone_directories
from tests.install.children import ended, in_child, killed_before, start
from tests.install.host import failure_of
from tests.install.observers import at_step, failing_at
from tests.install.refusals import needs_refusals, with_refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.install.host import Host

    Scenario = Callable[[Host], None]

pytestmark = needs_refusals

UNKNOWN_CALL = {"renameat2": errno.ENOSYS}
UNKNOWN_FLAG = {"renameat2": errno.EINVAL}
NO_LINKS = {"renameat2": errno.EINVAL, "linkat": errno.EPERM}

UNDOS = 30

SCENARIOS: list[Scenario] = [
    test_crash.test_a_kill_before_any_change_leaves_one_whole_revision,
    test_crash.test_the_next_install_recovers_by_itself,
    test_failures.test_an_undo_that_is_killed_can_be_repeated,
    test_failures.test_a_failure_at_any_step_puts_everything_back,
    test_failures.test_a_file_that_appears_while_installing_is_not_overwritten,
    test_undone_directories.test_others_files_are_kept_too_by_a_recovery_that_is_killed_and_begun_again,
]


@pytest.mark.parametrize("refused", [UNKNOWN_CALL, UNKNOWN_FLAG], ids=["call", "flag"])
def test_the_kernel_does_refuse(host: Host, refused: dict[str, int]) -> None:
    """If it did not, the other tests here would say nothing."""
    host.write({"one": "1", "other": "2"})

    def body() -> bool:
        directory = os.open(host.dest, os.O_RDONLY)
        return Renames().exchange(directory, b"one", b"other")

    assert not with_refusals(refused, body)
    assert in_child(body)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__.removeprefix("test_"))
def test_what_holds_elsewhere_holds_here(host: Host, scenario: Scenario) -> None:
    """A deployment to NFS that is killed is undone like any other."""
    with_refusals(UNKNOWN_FLAG, lambda: scenario(host))


@pytest.mark.parametrize("wanted", ["old", "new"])
def test_a_recovery_that_is_killed_can_be_repeated_here(host: Host, wanted: str) -> None:
    """Power may fail again while the host comes up."""
    scenario = test_crash.test_a_recovery_that_is_killed_before_any_change_can_be_repeated

    with_refusals(UNKNOWN_CALL, lambda: scenario(host, wanted))


def test_a_kill_leaves_one_whole_revision_where_there_are_no_hard_links_either(host: Host) -> None:
    """FAT and many FUSE file systems have neither: for a moment a name is missing, but never for good."""
    revisions: list[dict[str, Any]] = [
        {"app/a": "1", "app/file": "1", "app/dir/x": "1", "app/link": {"link": "a"}, "app/gone": "1"},
        {"app/a": "2", "app/file/x": "2", "app/dir": "2", "app/link": {"link": "dir"}, "app/new": "2"},
    ]
    first, second = [host.request(revision) for revision in revisions]

    def body() -> set[str]:
        outcomes: set[str] = set()
        number = 0
        while True:
            number += 1
            install(first)
            before = host.everything(), host.records()
            if not killed_before(number, lambda count: install(second, observer=count)):
                return outcomes
            host.recover()
            if (host.everything(), host.records()) != before:
                assert {"app/": None, "app/file/": None, **revisions[1]} == host.tree(), f"change {number}"
                outcomes.add("new")
            else:
                outcomes.add("old")
            assert [] == host.leftovers()

    assert {"old", "new"} == with_refusals(NO_LINKS, body)


def test_a_file_that_vanishes_while_installing_is_no_obstacle(host: Host) -> None:
    """Somebody removed by hand what was to be replaced; the new revision has the file again."""
    host.install({"app/a": "1", "app/b": "1"})
    request = host.request({"app/a": "2", "app/b": "2"})
    observer = at_step(Moment.RENAME, (host.dest / "app/a").unlink)

    with_refusals(UNKNOWN_FLAG, lambda: install(request, observer=observer))

    assert {"app/": None, "app/a": "2", "app/b": "2"} == host.tree()
    assert [] == host.leftovers()


# A listing is not among them: a name that is renamed over may move within its directory while that is read.
LOOPS = [
    test_readers.one_file,
    test_readers.a_link,
    test_readers.a_file_that_becomes_a_link_and_back,
]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_a_reader_misses_nothing_during_a_reinstall(
    host: Host, loop: Callable[[Path], Iterator[str]]
) -> None:
    """A web server whose documents lie on NFS must find all of them, too."""
    scenario = test_readers.test_a_reader_never_misses_a_file_and_never_sees_a_mixed_one

    with_refusals(UNKNOWN_CALL, lambda: scenario(host, loop))


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_a_reader_misses_nothing_during_an_undo(host: Host, loop: Callable[[Path], Iterator[str]]) -> None:
    """A deployment that fails must not become an outage by being put back."""
    shared = mmap.mmap(-1, 16)
    first, second = [
        host.request(test_readers.revision(letter), test_readers.appspec(letter)) for letter in "ab"
    ]

    def write() -> None:
        try:
            for _ in range(UNDOS):
                failure = failure_of(lambda: install(second, observer=failing_at(Moment.COMMIT)))
                assert failure is not None
                assert "install-failed" == failure.error_id
                test_readers.await_reads(shared, 3)
        finally:
            shared[test_readers._STOP] = 1

    def body() -> None:
        install(first)
        reading, writer, count = loop(host.dest / "app"), start(write), 0
        try:
            while not shared[test_readers._STOP]:
                assert next(reading) in {"a", "b"}
                count += 1
                shared[test_readers._READS : test_readers._STOP] = count.to_bytes(8, "little")
        except BaseException:
            os.kill(writer, signal.SIGKILL)  # nobody may write here any longer
            os.waitpid(writer, 0)
            raise
        assert not ended(writer)
        assert count >= UNDOS

    with_refusals(UNKNOWN_CALL, body)

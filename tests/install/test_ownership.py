"""Several deployment groups on one host: whose file it is, and who has to wait for whom."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from agent.install.preview.changes import ChangeKind, Preview
from agent.install.preview.preview import preview_install
from agent.protocol import FileExistsBehavior
from tests.install.host import GROUP, Host, failure_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.errors import CommandFailure
    from agent.install import InstallSummary

pytestmark = pytest.mark.usefixtures("library")

OTHER = "group-b"
SHARED = "files: [{source: app, destination: '@DEST@/shared'}]"
OVERWRITE = FileExistsBehavior.OVERWRITE


class Stopped(Exception):
    """What ends an Install before it has succeeded."""


@pytest.fixture
def both(host: Host) -> Host:
    """A host with a directory that belongs to nobody, so that several groups may install there."""
    host.write({"app/theirs": "t"})
    return host


def install_as(host: Host, group_id: str, act: Callable[[], InstallSummary]) -> InstallSummary:
    """Act as another group of the same host."""
    host.group_id = group_id
    try:
        return act()
    finally:
        host.group_id = GROUP


@pytest.mark.parametrize("name", ["lib", "odd\nlib", "odd\nplace/lib"])
def test_a_file_that_another_group_has_installed_too_is_left_to_that_group(both: Host, name: str) -> None:
    """I7: the other application needs it. Once only one group is left, that one removes it."""
    lib = f"app/{name}"
    both.install({lib: "same", "app/a": "a"})
    install_as(both, OTHER, lambda: both.install({lib: "same", "app/b": "b"}, behavior=OVERWRITE))

    first = both.install({"app/a": "a"})
    held = both.tree()
    install_as(both, OTHER, lambda: both.install({"app/b": "b"}))

    assert (0, ()) == (first.removed, first.left_behind)
    assert "same" == held[lib]
    files = {path for path in both.tree() if not path.endswith("/")}
    assert {"app/a", "app/b", "app/theirs"} == files


def test_another_groups_file_with_the_same_size_and_time_is_not_removed(both: Host) -> None:
    """Reproducible bundles give every file the same time, so that this is an everyday case."""
    both.install({"app/conf": "A=1", "app/a": "a"})
    install_as(both, OTHER, lambda: both.install({"app/conf": "B=2"}, behavior=OVERWRITE))

    both.install({"app/a": "a"})

    assert "B=2" == both.tree()["app/conf"]


def test_a_group_removes_what_it_has_installed_over_another_groups_file(both: Host) -> None:
    """Records of a group that was deleted long ago would otherwise keep every file for ever."""
    install_as(both, OTHER, lambda: both.install({"app/conf": "long ago"}))
    both.install({"app/conf": "new", "app/a": "a"}, behavior=OVERWRITE)

    summary = both.install({"app/a": "a"})

    assert 1 == summary.removed
    assert "app/conf" not in both.tree()


def test_a_claim_through_a_link_counts(both: Host) -> None:
    """Two groups may spell one directory in two ways."""
    (both.dest / "alias").symlink_to("app")
    through_link = "files: [{source: app, destination: '@DEST@/alias'}]"
    both.install({"app/lib": "same", "app/a": "a"})
    install_as(both, OTHER, lambda: both.install({"app/lib": "same"}, through_link, behavior=OVERWRITE))

    both.install({"app/a": "a"})

    assert (both.dest / "app/lib").exists()


def test_a_claim_of_which_only_the_path_is_known_counts(both: Host) -> None:
    """The other group was deployed by another agent, which leaves only a list."""
    both.install({"app/lib": "same", "app/a": "a"})
    (both.instructions / f"{OTHER}-cleanup").write_text(f"{both.dest}/app/lib\n")

    both.install({"app/a": "a"})

    assert (both.dest / "app/lib").exists()


def test_a_list_that_can_not_be_read_is_not_taken_for_no_claim(both: Host) -> None:
    """The other group's application would lose its library because of a disk error in a list."""
    both.install({"app/lib": "same", "app/a": "a"})
    unreadable = both.instructions / f"{OTHER}-cleanup"
    unreadable.symlink_to(unreadable.name)  # from itself to itself, so that even root can't open it

    failure = failure_of(lambda: both.install({"app/a": "a"}))

    assert failure is not None
    assert f"{unreadable} can't be looked at" in failure.message
    assert (both.dest / "app/lib").exists()


def test_conflicts_are_said_although_a_list_can_not_be_read(both: Host) -> None:
    """What is in the way is in the way, whoever has put it there."""
    both.write({"app/a": "theirs"})
    unreadable = both.instructions / f"{OTHER}-cleanup"
    unreadable.parent.mkdir(parents=True)
    unreadable.symlink_to(unreadable.name)

    failure = failure_of(lambda: both.install({"app/a": "a"}))

    assert failure is not None
    assert "install-conflicts" == failure.error_id


def test_the_plan_says_which_group_keeps_a_file(both: Host) -> None:
    """So that nobody wonders why it is still there."""
    both.install({"app/lib": "same", "app/a": "a"})
    install_as(both, OTHER, lambda: both.install({"app/lib": "same"}, behavior=OVERWRITE))

    answer = preview_install(both.request({"app/a": "a"}))

    assert isinstance(answer, Preview)
    found = {change.path: (change.kind, change.note) for change in answer.changes}
    expected = (ChangeKind.STAY, f"deployment group {OTHER} has installed it, too")
    assert expected == found[os.fsencode(both.dest / "app/lib")]


def test_a_directory_with_a_file_of_another_group_does_not_give_way(both: Host) -> None:
    """The file is as we left it, but it is not ours alone."""
    both.install({"app/x/lib": "same"})
    install_as(both, OTHER, lambda: both.install({"app/x/lib": "same"}, behavior=OVERWRITE))

    failure = failure_of(lambda: both.install({"app/x": "a file"}))

    assert failure is not None
    assert f"{both.dest}/app/x/lib (it is in the directory" in failure.message
    assert f"installed by deployment group {OTHER}" in failure.message
    assert (both.dest / "app/x/lib").exists()


class Unfinished:
    """An Install that waits in a thread, with everything in its place, until it is told to end.

    The other groups' Installs run in this thread meanwhile, as other workers would.
    """

    def __init__(self, host: Host, archive: dict[str, str], appspec: str) -> None:
        self._reached, self._go_on = threading.Event(), threading.Event()
        self._is_to_fail = False
        request = host.request(archive, appspec)

        def run() -> None:
            failure_of(lambda: install(request, observer=self._observe))

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert self._reached.wait(30)

    def succeed(self) -> None:
        """Let it end well."""
        self._go_on.set()
        self._thread.join()

    def fail(self) -> None:
        """Let it fail, and undo what it has done."""
        self._is_to_fail = True
        self.succeed()

    def _observe(self, kind: Moment, _path: bytes) -> None:
        if kind != Moment.COMMIT:
            return
        self._reached.set()
        assert self._go_on.wait(30)
        if self._is_to_fail:
            raise OSError(5, os.strerror(5))


def refusal(host: Host, archive: dict[str, str], appspec: str) -> CommandFailure | None:
    """How the other group's Install fails."""
    host.group_id = OTHER
    try:
        return failure_of(lambda: host.install(archive, appspec))
    finally:
        host.group_id = GROUP


def test_nothing_is_installed_into_what_an_unfinished_install_has_made(host: Host) -> None:
    """It may still be undone, and takes its directory away; the other group would have reported success."""
    host.dest.mkdir()
    first = Unfinished(host, {"app/a": "a"}, SHARED)
    try:
        failure = refusal(host, {"app/b": "b"}, SHARED)
    finally:
        first.fail()

    assert failure is not None
    assert "install-overlap" == failure.error_id
    assert f"Deployment group {GROUP} is currently installing {host.dest}/shared" in failure.message
    assert {} == host.tree()


@pytest.mark.parametrize("there", [{}, {"shared/a": "old"}], ids=["created", "replaced"])
def test_nothing_is_installed_over_a_file_of_an_unfinished_install(host: Host, there: dict[str, str]) -> None:
    """What was there would be put back over the other group's file."""
    host.write({"shared/theirs": "t", **there})
    appspec = "file_exists_behavior: OVERWRITE\n" + SHARED
    first = Unfinished(host, {"app/a": "a"}, appspec)
    try:
        failure = refusal(host, {"app/a": "b"}, appspec)
    finally:
        first.succeed()

    assert failure is not None
    assert "install-overlap" == failure.error_id
    assert f"{host.dest}/shared/a" in failure.message
    assert "a" == host.tree()["shared/a"]


def test_a_conflict_with_an_unfinished_install_says_so(host: Host) -> None:
    """Nobody is to remove the file by hand that the other group is about to have."""
    host.write({"shared/theirs": "t"})
    first = Unfinished(host, {"app/a": "a"}, SHARED)
    try:
        failure = refusal(host, {"app/a": "b"}, SHARED)
    finally:
        first.succeed()

    assert failure is not None
    assert "install-overlap" == failure.error_id


def test_groups_that_share_a_directory_do_not_wait_for_each_other(host: Host) -> None:
    """Two applications below /srv are the usual host."""
    host.write({"shared/theirs": "t"})
    first = Unfinished(host, {"app/a": "a", "app/sub/a": "a"}, SHARED)
    try:
        failure = refusal(host, {"app/b": "b", "app/other/b": "b"}, SHARED)
    finally:
        first.succeed()

    assert failure is None
    installed = {"shared/a", "shared/b", "shared/sub/a", "shared/other/b", "shared/theirs"}
    assert installed == {name for name in host.tree() if not name.endswith("/")}


def test_an_install_can_wait_for_the_other_group(host: Host) -> None:
    """Two groups that come to a fresh host at the same time both need the directory above theirs."""
    host.dest.mkdir()
    first = Unfinished(host, {"app/a": "a"}, SHARED)
    host.group_id = OTHER
    request = host.request({"app/b": "b"}, SHARED, durable=False, overlap_patience_s=30)
    timer = threading.Timer(0.1, first.succeed)
    timer.start()

    summary = install(request)
    timer.join()

    assert 1 == summary.created


def test_an_interrupted_install_of_another_group_holds_only_its_own_places(host: Host) -> None:
    """Its journal may lie there for days, as when a file system that it needs is not mounted."""
    host.dest.mkdir()
    first = Unfinished(host, {"app/a": "a"}, SHARED)
    journal = host.instructions / f"{GROUP}-journal"
    content = journal.read_bytes()
    first.fail()
    journal.write_bytes(content)

    free = refusal(host, {"app/b": "b"}, "files: [{source: app, destination: '@DEST@/own'}]")
    held = refusal(host, {"app/c": "c"}, SHARED)

    assert free is None
    assert held is not None
    assert f"`agentctl recover --deployment-group {GROUP}`" in held.message

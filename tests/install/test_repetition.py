"""I10: the revision that is there is installed again: Install tells that at once, and only when it is so."""

from __future__ import annotations

import codecs
import errno
import os
import pwd
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.install import install
from agent.install.model.moments import Moment
from agent.protocol import FileExistsBehavior
from tests.install.again import (
    FILE_COUNT,
    TREE,
    again,
    install_by_a_plan,
    install_until_known,
    is_repetition,
    let_the_clock_tick,
    nothing_done,
    read_tree_of,
    records_without_states,
    times_of_change,
)
from tests.install.children import in_child, killed_before
from tests.install.host import FILES, Host, failure_of
from tests.install.observers import failing_at
from tests.install.trees import read_tree
from tests.install.untold import edit_untold

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.install import InstallRequest, InstallSummary

pytestmark = pytest.mark.usefixtures("library")

NOBODY = pwd.getpwnam("nobody").pw_uid


# What a repetition leaves


def test_a_repetition_changes_nothing_and_counts_everything(known: Host) -> None:
    """A redeployment of what is there must not so much as touch a file that an application has open."""
    before, changes = known.everything(), times_of_change(known.dest)
    request = again(known)
    assert is_repetition(request)

    summary = install(request)

    assert (before, changes) == (known.everything(), times_of_change(known.dest))
    assert nothing_done(summary)
    assert FILE_COUNT == summary.unchanged
    assert [] == known.leftovers()


NAMES = st.sampled_from(["a", "b", "c d", "e\nf", "\udcff", "%41", " g ", '"type":', "{"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
CONTENTS = st.one_of(
    st.sampled_from(["", "x", "y"]),
    st.builds(lambda mode: {"content": "m", "mode": mode}, st.sampled_from([0o600, 0o755, 0o4755])),
    st.builds(lambda target: {"link": target}, st.sampled_from(["a", "b/a", "no where\n%"])),
)


def revision_of(files: dict[str, Any], hollow: list[str]) -> dict[str, Any]:
    """The tree without what lies below another entry, since a file has nothing inside."""
    tree: dict[str, Any] = {f"app/{path}/": None for path in hollow} | {"app/": None}
    for path, value in files.items():
        if not any(path.startswith(other + "/") for other in files):
            tree[f"app/{path}"] = value
    return {
        name: value
        for name, value in tree.items()
        if not name.endswith("/")
        or not any(not other.endswith("/") and name.startswith(other + "/") for other in tree)
    }


REVISIONS = st.builds(
    revision_of, st.dictionaries(PATHS, CONTENTS, max_size=8), st.lists(PATHS, max_size=3, unique=True)
)


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=REVISIONS, is_there=st.booleans())
def test_a_repetition_leaves_the_records_that_a_plan_would(
    place: Path, tree: dict[str, Any], *, is_there: bool
) -> None:
    """The next clean-up, by whichever agent, goes by them."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        host = Host(Path(directory))
        if is_there:
            host.dest.mkdir()
        install_until_known(host, tree)
        request = host.request(tree, durable=False)
        assert is_repetition(request)
        changes = times_of_change(host.dest)

        summary = install(request)

        records = records_without_states(host)
        assert changes == times_of_change(host.dest)
        install_by_a_plan(host, request)
        assert records == records_without_states(host)
        assert nothing_done(summary)
        assert sum(not name.endswith("/") for name in tree) == summary.unchanged


def test_after_repetitions_a_change_and_a_removal_are_clean(known: Host) -> None:
    """What a repetition hands on has to carry as far as what it was given."""
    for _ in range(3):
        request = again(known)
        assert is_repetition(request)
        assert FILE_COUNT == install(request).unchanged
    changed = {**TREE, "app/a": "another", "app/sub/new": "n"}
    del changed["app/link"]

    summary = known.install(changed)

    assert (1, 1, 1) == (summary.created, summary.replaced, summary.removed)
    assert {"link"} == set(read_tree_of(TREE, known)) - set(read_tree(known.dest / "app"))
    known.install({}, "")
    assert {} == known.tree()
    assert [] == known.leftovers()


@pytest.mark.parametrize("kind", [Moment.JOURNAL, Moment.SWITCH, Moment.MANIFEST, Moment.COMMIT])
def test_a_repetition_that_fails_leaves_everything_as_it_was(known: Host, kind: Moment) -> None:
    """A full disk under the records is no reason to lose them."""
    before = known.everything(), times_of_change(known.dest), known.records()

    failure = failure_of(lambda: install(again(known), observer=failing_at(kind)))

    assert failure is not None
    assert before == (known.everything(), times_of_change(known.dest), known.records())
    assert is_repetition(again(known))


def test_a_kill_before_any_change_of_a_repetition_leaves_records_that_fit(known: Host) -> None:
    """Whatever the worker was doing: the next Install still knows what is ours."""
    number, was_killed = 0, True
    while was_killed:
        number += 1
        request = again(known)
        changes = times_of_change(known.dest)
        was_killed = killed_before(number, partial(install_watched, request))
        known.recover()

        assert changes == times_of_change(known.dest)
        assert [] == known.leftovers()
        summary = install(again(known))
        assert nothing_done(summary)
        assert FILE_COUNT == summary.unchanged
    assert number > 5
    known.install({}, "")
    assert {} == known.tree()


def install_watched(request: InstallRequest, count: Callable[..., None]) -> InstallSummary:
    """Install it, with this observer."""
    return install(request, observer=count)


# The AppSpec


def test_permissions_are_always_planned(host: Host) -> None:
    """They tell more than what is there."""
    appspec = FILES + "\npermissions: [{object: '@DEST@/app', mode: '0700', type: [directory]}]"
    host.dest.mkdir()
    install_until_known(host, TREE, appspec)
    (host.dest / "app/sub").chmod(0o755)

    assert not is_repetition(host.request(TREE, appspec))
    host.install(TREE, appspec)

    assert 0o700 == (host.dest / "app/sub").stat().st_mode & 0o7777


def test_permissions_that_go_are_noticed(host: Host) -> None:
    """The mode that they gave goes with them, although the content is the same."""
    appspec = FILES + "\npermissions: [{object: '@DEST@/app', mode: '0640', type: [file]}]"
    host.dest.mkdir()
    install_until_known(host, TREE, appspec)

    host.install(TREE)

    assert 0o644 == (host.dest / "app/a").stat().st_mode & 0o7777


def test_a_new_destination_is_noticed(known: Host) -> None:
    """The same revision, but it goes elsewhere."""
    known.install(TREE, "files: [{source: app, destination: '@DEST@/other'}]")

    assert not (known.dest / "app").exists()
    assert (known.dest / "other/sub/deep/\udcff").exists()


def test_a_new_source_is_noticed(known: Host) -> None:
    """The same revision and destination, but another part of it."""
    known.install(TREE, "files: [{source: app/sub, destination: '@DEST@/app'}]")

    assert {"b", "deep"} == {path.name for path in (known.dest / "app").iterdir()}


TWO = "files: [{source: app, destination: '@DEST@/app'}, {source: etc, destination: '@DEST@/etc/x'}]"


def test_two_mappings_are_repeated(host: Host) -> None:
    """Most AppSpecs have several."""
    tree = {**TREE, "etc/conf": "c"}
    host.dest.mkdir()
    install_until_known(host, tree, TWO)
    request = host.request(tree, TWO)
    assert is_repetition(request)
    assert FILE_COUNT + 1 == install(request).unchanged
    records = records_without_states(host)

    install_by_a_plan(host, request)

    assert records == records_without_states(host)


@pytest.mark.parametrize("name", ["app/a", "etc/x/conf", "etc/x"])
def test_a_change_below_either_mapping_is_noticed(host: Host, name: str) -> None:
    """Also in the directories above a destination, as far as they are ours."""
    tree = {**TREE, "etc/conf": "c"}
    host.dest.mkdir()
    install_until_known(host, tree, TWO)
    path = host.dest / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    request = host.request(tree, TWO)

    assert not is_repetition(request)
    install(request)

    assert "c" == host.tree()["etc/x/conf"]
    assert "content of a" == host.tree()["app/a"]


OTHER_APPSPECS = {
    "single files": "files: [{source: app/a, destination: '@DEST@/x'}, {source: app/sub/b, destination: '@DEST@/x'}]",
    "overlapping": "files: [{source: app/sub, destination: '@DEST@/x'}, {source: app/hollow, destination: '@DEST@/x/deep'}]",
    "twice the same destination": "files: [{source: app/sub, destination: '@DEST@/x'}, {source: app/a, destination: '@DEST@/x'}]",
    "the archive itself": "files: [{source: /, destination: '@DEST@/x'}]",
    "through a link": "files: [{source: app, destination: '@DEST@/alias/x'}]",
    "one directory by two names": (
        "files: [{source: app/sub, destination: '@DEST@/real'}, {source: app/hollow, destination: '@DEST@/alias/h'}]"
    ),
    "with a slash at the end": "files: [{source: app/, destination: '@DEST@/x/'}]",
    "odd spelling": "files: [{source: ./app//sub, destination: '@DEST@/./y/../x'}]",
}


@pytest.mark.parametrize("appspec", OTHER_APPSPECS.values(), ids=OTHER_APPSPECS)
def test_however_files_are_listed_a_second_install_changes_nothing_and_a_loss_is_mended(
    host: Host, appspec: str
) -> None:
    """Whether it was a repetition or a plan is nobody's concern."""
    host.write({"real/theirs": "t"})
    (host.dest / "alias").symlink_to("real")
    install_until_known(host, TREE, appspec)
    before, changes = host.everything(), times_of_change(host.dest)
    request = host.request(TREE, appspec, durable=False)
    assert nothing_done(install(request))
    records = records_without_states(host)
    assert (before, changes) == (host.everything(), times_of_change(host.dest))
    install_by_a_plan(host, request)
    assert records == records_without_states(host)

    ours = [path for path in host.cleanup() if Path(path.replace("@DEST@", str(host.dest))).is_file()]
    for path in ours:
        Path(path.replace("@DEST@", str(host.dest))).unlink()
        host.install(TREE, appspec, durable=False)
        assert read_back(before) == read_back(host.everything())
    assert ours
    host.install({}, "")
    assert {"real/": None, "real/theirs": "t", "alias": {"link": "real"}} == host.tree()


def read_back(tree: dict[str, Any]) -> dict[str, Any]:
    """A tree without what no two Installs have in common."""
    return {name: found.as_delivered() for name, found in tree.items()}


def test_an_empty_directory_that_two_mappings_reach_is_made_again(host: Host) -> None:
    """The second mapping puts nothing there, but the first one does."""
    appspec = "files: [{source: a, destination: '@DEST@'}, {source: b, destination: '@DEST@/app'}]"
    tree = {"a/app/empty/": None, "a/x": "x", "b/": None}
    host.write({"app/empty/": None})
    install_until_known(host, tree, appspec)
    (host.dest / "app/empty").rmdir()

    host.install(tree, appspec)

    assert (host.dest / "app/empty").is_dir()


def test_a_relative_destination_is_planned(host: Host) -> None:
    """Where it leads depends on where the agent was started."""
    appspec = "files: [{source: app, destination: 'somewhere/app'}]"
    first, second = host.dest / "one", host.dest / "two"
    first.mkdir(parents=True)
    second.mkdir()

    def install_from(directory: Path, request: InstallRequest) -> bool:
        os.chdir(directory)
        repeats = is_repetition(request)
        install(request)
        return repeats

    repeats = []
    for place in (first, first, first, second):
        request = host.request(TREE, appspec)
        repeats.append(in_child(partial(install_from, place, request)))
        let_the_clock_tick(host.dest)

    assert [False] * 4 == repeats
    assert (second / "somewhere/app/a").exists()
    assert not (first / "somewhere").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its root directory")
def test_the_root_directory_can_be_the_destination(place: Path) -> None:
    """Revisions that are laid out like the host itself are common."""

    def install_twice() -> tuple[bool, int, bool, bool]:
        codecs.lookup("utf-8-sig")  # the standard library is out of reach soon
        os.chroot(place)
        os.chdir("/")
        host = Host(Path("/srv"))
        host.dest.mkdir(parents=True)
        appspec = "files: [{source: /, destination: '/'}]"
        tree = {"etc/app/conf": "c", "top": "t"}
        for _ in range(2):
            host.install(tree, appspec, durable=False)
            let_the_clock_tick(Path("/etc"))
        request = host.request(tree, appspec, durable=False)
        repeats, unchanged = is_repetition(request), install(request).unchanged
        Path("/etc/app/conf").unlink()
        host.install(tree, appspec, durable=False)
        mended = Path("/etc/app/conf").exists()
        host.install({}, "", durable=False)
        return repeats, unchanged, mended, Path("/etc").exists() or Path("/top").exists()

    assert (True, 2, True, False) == in_child(install_twice)


@pytest.mark.parametrize("behavior", FileExistsBehavior)
def test_foreign_files_among_ours_are_treated_alike_every_time(
    host: Host, behavior: FileExistsBehavior
) -> None:
    """What the rule has decided once must not turn when nothing else has changed."""
    host.write({"app/a": "foreign", "app/theirs": "t"})
    outcomes = []
    for _ in range(4):
        failure = failure_of(lambda: host.install(TREE, behavior=behavior, durable=False))
        let_the_clock_tick(host.dest)
        outcomes.append((failure and failure.error_id, host.tree()["app/a"]))

    expected = {
        FileExistsBehavior.DISALLOW: ("install-conflicts", "foreign"),
        FileExistsBehavior.OVERWRITE: (None, "content of a"),
        FileExistsBehavior.RETAIN: (None, "foreign"),
    }[behavior]
    assert [expected] * 4 == outcomes
    host.install({}, "")
    rest = {"app/": None, "app/theirs": "t"}
    assert (rest if expected[1] != "foreign" else {**rest, "app/a": "foreign"}) == host.tree()


# Many files, and two processes

MANY = {f"app/{number // 100}/{number}": str(number) for number in range(1200)}


@pytest.fixture
def large(host: Host) -> Host:
    """A host with so many files that two processes look."""
    host.dest.mkdir()
    install_until_known(host, MANY, processes=2)
    return host


def test_two_processes_find_a_repetition_together(large: Host) -> None:
    """The usual large revision."""
    request = large.request(MANY, processes=2, durable=False)
    changes = times_of_change(large.dest)
    assert is_repetition(request)

    assert 1200 == install(request).unchanged

    assert changes == times_of_change(large.dest)


@pytest.mark.parametrize("number", [0, 555, 1199])
@pytest.mark.parametrize("processes", [1, 2])
def test_one_edited_file_among_many_is_found(large: Host, number: int, processes: int) -> None:
    """Whichever process looks at it."""
    path = large.dest / f"app/{number // 100}/{number}"
    edit_untold(path, "#" * len(str(number)))

    summary = large.install(MANY, processes=processes, durable=False)

    assert (1, 1199) == (summary.replaced, summary.unchanged)
    assert str(number) == path.read_text()


def test_where_there_may_be_no_other_process_one_does_it_all(
    large: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host at its limit of processes is still deployed to."""

    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    request = large.request(MANY, processes=2, durable=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", refuse)
        repeats = is_repetition(request)
        summary = install(request)

    assert repeats
    assert 1200 == summary.unchanged


class Killing:
    """Forks as the system does, but the new process is killed at once; only so many times.

    Stands for the system's own killing when memory is short.
    """

    def __init__(self, times: int) -> None:
        self._times = times
        self._fork = os.fork

    def __call__(self) -> int:
        child = self._fork()
        if child and self._times:
            self._times -= 1
            os.kill(child, signal.SIGKILL)
        return child


def test_when_the_second_process_is_killed_all_is_planned(
    large: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had looked at is not known, so nothing may be taken for granted."""
    (large.dest / "app/11/1199").write_text("edited")
    request = large.request(MANY, processes=2, durable=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", Killing(1))
        summary = install(request)

    assert (1, 1199) == (summary.replaced, summary.unchanged)
    assert "1199" == (large.dest / "app/11/1199").read_text()


def test_when_every_second_process_is_killed_the_first_one_looks_at_everything(
    large: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost but time."""
    before = times_of_change(large.dest)
    request = large.request(MANY, processes=2, durable=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", Killing(100))
        assert 1200 == install(request).unchanged

    assert before == times_of_change(large.dest)
    assert is_repetition(large.request(MANY, processes=2, durable=False))

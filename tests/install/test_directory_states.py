"""A directory of ours that nobody has touched is not listed; one that somebody has touched always is."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from agent.install.preview.changes import BlockedInstall
from agent.install.preview.preview import preview_install
from agent.install.records.manifest import directory_state, lasting_state
from agent.listings import clock_ns
from agent.protocol import FileExistsBehavior
from tests.install.again import install_until_known, let_the_clock_tick, times_of_change
from tests.install.children import in_child
from tests.install.host import FILES, failure_of, logged_by
from tests.install.mounts import needs_mounts, with_mounts
from tests.install.observers import at_step, both, failing_at
from tests.install.trees import acl_for, give_acl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.install import InstallRequest
    from tests.install.host import Host

TREE: dict[str, Any] = {"app/a": "a", "app/b": "b", "app/sub/c": "c", "app/hollow/": None}
NEXT: dict[str, Any] = {"app/a": "a", "app/b": "B", "app/sub/c": "c", "app/hollow/": None}
NOBODY = pwd.getpwnam("nobody").pw_uid
DIRECTORIES = FILES + "\npermissions: [{object: '@DEST@', mode: '0750', type: [directory]}]"
MANY_TICKS_S = 0.03
OVERWRITE, RETAIN = FileExistsBehavior.OVERWRITE, FileExistsBehavior.RETAIN


@pytest.fixture
def known(host: Host) -> Host:
    """A host with the revision, of which the states of all directories are recorded."""
    host.dest.mkdir()
    install_until_known(host, TREE)
    return host


def states(host: Host) -> dict[str, str]:
    """Directories that Install has created, and the states that are recorded of them; `-` where none is."""
    manifest = (host.instructions / f"{host.group_id}-manifest").read_bytes()
    found = re.findall(rb"^d c (-|[0-9 ]+)[0-9]* (/.*)$", manifest, re.MULTILINE)
    return {os.path.relpath(os.fsdecode(path), host.dest): state.decode() for state, path in found}


def listed_by(request: InstallRequest, host: Host) -> set[str]:
    """The directories at the destination that are listed while this is installed."""

    def body() -> set[str]:
        seen: set[str] = set()

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event not in {"os.listdir", "os.scandir"}:
                return
            place = arguments[0]
            seen.add(os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.fsdecode(place))

        sys.addaudithook(hook)
        install(request)
        return seen

    top = str(host.dest) + "/"
    return {path.removeprefix(top) for path in in_child(body) if path.startswith(top)}


def test_untouched_directories_are_not_listed(known: Host) -> None:
    """Ten thousand directories, of which one has changed, cost no more than that one."""
    assert set() == listed_by(known.request(NEXT), known)
    assert "B" == known.tree()["app/b"]


def add_and_remove(directory: Path) -> None:
    """Something was there for a moment."""
    (directory / "new").write_text("n")
    (directory / "new").unlink()


def add_untold(directory: Path) -> None:
    """Something is there that the directory's time doesn't tell."""
    was = directory.stat()
    (directory / "new").write_text("n")
    os.utime(directory, ns=(was.st_atime_ns, was.st_mtime_ns))


TOUCHES: dict[str, Callable[[Path], object]] = {
    "added": lambda sub: (sub / "new").write_text("n"),
    "added and removed": add_and_remove,
    "removed": lambda sub: (sub / "c").unlink(),
    "renamed": lambda sub: (sub / "c").rename(sub / "d"),
    "renamed twice": lambda sub: ((sub / "c").rename(sub / "d"), (sub / "d").rename(sub / "c")),
    "mode": lambda sub: sub.chmod(0o700),
    "time given back": add_untold,
    "ACL": lambda sub: give_acl(sub, *acl_for(NOBODY, 7)),
    "attribute": lambda sub: os.setxattr(sub, "trusted.x" if os.geteuid() == 0 else "user.x", b"x"),
    "moved away and copied": lambda sub: (
        sub.rename(sub.parent / "x"),
        shutil.copytree(sub.parent / "x", sub),
    ),
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_a_directory_that_somebody_has_touched_is_listed(
    known: Host, touch: Callable[[Path], object]
) -> None:
    """Only then is it known what is in it, and whose that is."""
    try:
        touch(known.dest / "app/sub")
    except OSError as error:
        pytest.skip(f"not possible on this file system: {error}")

    assert "app/sub" in listed_by(known.request(NEXT), known)


@pytest.mark.parametrize("behavior", FileExistsBehavior)
def test_what_has_come_between_two_installs_is_met_by_the_rule(
    known: Host, behavior: FileExistsBehavior
) -> None:
    """A state that is believed too long would let us write over somebody's file."""
    known.write({"app/sub/new": "theirs"})
    tree = {**TREE, "app/sub/new": "ours"}
    before = known.everything()

    failure = failure_of(lambda: known.install(tree, behavior=behavior))

    assert (behavior is FileExistsBehavior.DISALLOW) == (failure is not None)
    assert ("ours" if behavior is OVERWRITE else "theirs") == known.tree()["app/sub/new"]
    if failure is not None:
        assert before == known.everything()
    known.install({}, "")
    assert behavior is OVERWRITE or "theirs" == known.tree()["app/sub/new"]


def test_the_state_of_a_directory_that_changed_just_now_is_not_told(host: Host) -> None:
    """Within the same tick of the clock, another change would leave the same time."""
    host.dest.mkdir()
    for number in range(100):
        made = host.dest / str(number)
        made.mkdir()
        status = made.stat()
        looked_ns = clock_ns()
        if looked_ns <= status.st_ctime_ns:  # else this test was interrupted
            assert b"" == lasting_state(status, looked_ns)
            break
    else:
        pytest.fail("this machine is too slow")
    let_the_clock_tick(made)
    assert b"" != lasting_state(made.stat(), clock_ns())


def test_what_comes_right_after_an_install_is_seen(host: Host) -> None:
    """Applications start at once, and write into directories that were made in the same tick of the clock."""
    host.dest.mkdir()
    for number in range(30):
        host.install(TREE if number % 2 else {"app/sub/deep/d": "d", **NEXT}, durable=False)
        host.write({"app/sub/new": "theirs"})

        answer = preview_install(host.request({**TREE, "app/sub/new": "ours"}))

        assert isinstance(answer, BlockedInstall), number
        (host.dest / "app/sub/new").unlink()


@pytest.mark.parametrize("offset_ns", [10**9, 3600 * 10**9])
def test_a_directory_from_the_future_has_no_state(host: Host, offset_ns: int) -> None:
    """The clock was set back: the time of its last change can come again."""
    host.dest.mkdir()
    fields = list(host.dest.stat())
    status = os.stat_result(fields, {"st_ctime_ns": time.time_ns() + offset_ns, "st_mtime_ns": 1})

    assert b"" == lasting_state(status, clock_ns())


def test_a_directory_with_whole_seconds_has_no_state(host: Host) -> None:
    """Such file systems don't tell one change from the next."""
    host.dest.mkdir()
    status = os.stat_result(list(host.dest.stat()), {"st_ctime_ns": 10**18, "st_mtime_ns": 1})

    assert b"" == directory_state(status)


def test_a_state_that_an_install_changes_itself_does_not_count_afterwards(known: Host) -> None:
    """The next one has to look, and then knows again."""
    known.install({**NEXT, "app/sub/c": "C"})
    let_the_clock_tick(known.dest)

    listed = listed_by(known.request(TREE), known)

    assert {"app", "app/sub"} <= listed
    assert "app/hollow" not in listed


@pytest.mark.parametrize("kind", [Moment.COPY, Moment.SWITCH, Moment.RENAME, Moment.MANIFEST, Moment.COMMIT])
def test_after_an_undo_only_what_is_as_before_is_believed(known: Host, kind: Moment) -> None:
    """What the undo has touched is listed, and the next Install finds all."""
    put = at_step(kind, lambda: known.write({"app/sub/theirs": "t"}))
    assert failure_of(lambda: known.install(NEXT, observer=both(put, failing_at(kind)))) is not None
    let_the_clock_tick(known.dest)

    listed = listed_by(known.request(NEXT), known)

    assert "app/sub" in listed
    assert "t" == known.tree()["app/sub/theirs"]
    known.install({}, "")
    assert {"app/": None, "app/sub/": None, "app/sub/theirs": "t"} == known.tree()


def test_directories_with_acls_have_no_state(host: Host) -> None:
    """A state says nothing of them."""
    give_acl_by_default(host)
    install_until_known(host, TREE)

    assert {"-"} == set(states(host).values())


def give_acl_by_default(host: Host) -> None:
    """What is made at the destination gets an entry for the user nobody."""
    host.dest.mkdir()
    give_acl(host.dest, *acl_for(NOBODY, 5), is_default=True)


@pytest.mark.parametrize("mode", ["0700", "2775"])
def test_what_permissions_have_given_is_known_by_the_state(host: Host, mode: str) -> None:
    """The mode is there already, so nothing is done; and when it goes from the AppSpec, it goes here."""
    appspec = FILES + f"\npermissions: [{{object: '@DEST@', mode: '{mode}', type: [directory]}}]"
    host.dest.mkdir()
    install_until_known(host, TREE, appspec)
    assert "-" not in states(host).values()
    changes = times_of_change(host.dest)

    host.install(TREE, appspec)

    assert changes == times_of_change(host.dest)
    host.install(TREE)
    assert 0o755 == (host.dest / "app/sub").stat().st_mode & 0o7777


def test_a_directory_above_that_passes_on_its_group_is_noticed_in_untouched_ones(known: Host) -> None:
    """Nobody has touched ours, but they would be made otherwise now."""
    known.dest.chmod(0o2755)

    known.install(NEXT)

    assert 0o2755 == (known.dest / "app/sub").stat().st_mode & 0o7777


@pytest.mark.root
@needs_mounts
def test_a_file_system_mounted_over_an_untouched_directory_is_seen(known: Host) -> None:
    """What is mounted there is not ours, whatever the directory below it is."""
    place = known.dest / "app/sub"

    def body() -> tuple[bool, bool]:
        (place / "c").write_text("theirs")
        failure = failure_of(lambda: known.install({"app/a": "a", "app/b": "b"}))
        return failure is None, (place / "c").exists()

    assert (True, True) == with_mounts({place: ""}, body)


@pytest.mark.root
@needs_mounts
def test_what_comes_while_a_directory_is_looked_at_is_seen_the_next_time(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came in the same tick of the clock as the change before the look, and then the system let others run.

    On a file system like those of most kernels, where two changes in one tick leave the same time.
    """
    place = host.dest / "app/sub"
    listdir, fstat = os.listdir, os.fstat

    def is_it(descriptor: int) -> bool:
        return os.readlink(f"/proc/self/fd/{descriptor}") == str(place) and not (place / "new").exists()

    def touch_and_look(descriptor: int) -> os.stat_result:
        if is_it(descriptor):
            os.utime(place)
        return fstat(descriptor)

    def list_and_wait(descriptor: Any = ".") -> list[Any]:
        names = listdir(descriptor)
        if isinstance(descriptor, int) and is_it(descriptor):
            (place / "new").write_text("theirs")
            end = time.monotonic() + MANY_TICKS_S
            while time.monotonic() < end:
                pass
        return names

    def is_overlooked() -> bool:
        host.install(TREE, durable=False)
        os.utime(place)  # so that it is looked at in any case
        request = host.request(NEXT, durable=False)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", touch_and_look)
            patch.setattr(os, "listdir", list_and_wait)
            install(request)
        answer = preview_install(host.request({**NEXT, "app/sub/new": "ours"}))
        host.install({}, "", durable=False)
        shutil.rmtree(host.dest / "app")
        return not isinstance(answer, BlockedInstall)

    def body() -> int:
        subprocess.run(["mount", "-t", "ramfs", "none", host.dest], check=True)
        return sum(is_overlooked() for _ in range(10))

    host.dest.mkdir()
    assert 0 == with_mounts({}, body)


# Overtaken


@pytest.mark.parametrize("behavior", FileExistsBehavior)
@pytest.mark.parametrize("step", [Moment.JOURNAL, Moment.COPY, Moment.SWITCH])
def test_what_appears_while_an_install_runs_is_met_by_the_rule(
    known: Host, behavior: FileExistsBehavior, step: Moment
) -> None:
    """It used to fail the Install, whatever the rule; now all is put back, and planned again."""
    put = at_step(step, lambda: known.write({"app/sub/new": "theirs"}))
    tree = {**NEXT, "app/sub/new": "ours"}

    failure = failure_of(lambda: known.install(tree, behavior=behavior, observer=put))

    assert (behavior is FileExistsBehavior.DISALLOW) == (failure is not None)
    found = known.tree()
    assert ("ours" if behavior is OVERWRITE else "theirs") == found["app/sub/new"]
    assert ("b" if failure is not None else "B") == found["app/b"]
    assert [] == known.leftovers()
    known.install({}, "")
    left = {} if behavior is OVERWRITE else {"app/sub/new": "theirs"}
    assert {"app/": None, "app/sub/": None, **left} == known.tree()


def test_an_install_that_is_overtaken_twice_fails_and_puts_everything_back(known: Host) -> None:
    """It must end, also when somebody is always faster."""
    first = at_step(Moment.SWITCH, lambda: known.write({"app/sub/new": "theirs"}))
    second = at_step(Moment.SWITCH, lambda: known.write({"app/sub/newer": "theirs"}), 2)
    tree = {**NEXT, "app/sub/new": "ours", "app/sub/newer": "ours"}

    failure = failure_of(lambda: known.install(tree, behavior=OVERWRITE, observer=both(first, second)))

    assert failure is not None
    assert "install-failed" == failure.error_id
    theirs = {"app/sub/new": "theirs", "app/sub/newer": "theirs"}
    assert {**TREE, **theirs} == {k: v for k, v in known.tree().items() if k not in {"app/", "app/sub/"}}
    assert [] == known.leftovers()


def test_that_an_install_was_planned_again_is_in_the_log(known: Host) -> None:
    """Otherwise the doubled time would be a riddle."""
    put = at_step(Moment.SWITCH, lambda: known.write({"app/sub/new": "theirs"}))
    request = known.request({**NEXT, "app/sub/new": "ours"}, behavior=RETAIN)

    logged = logged_by(lambda: install(request, observer=put), known.base)

    assert 1 == logged.count("install_planned_again")
    assert f"{known.dest}/app/sub/new" in logged


# Where a state is recorded although the directory holds something that is not ours


def keep_by_hand(host: Host) -> None:
    """Afterwards a file that somebody has edited is left over from the revision before, and nobody's."""
    (host.dest / "app/b").write_text("edited by hand")
    kept = host.install({"app/a": "a", "app/sub/c": "c", "app/hollow/": None}).left_behind
    assert (str(host.dest / "app/b"),) == kept
    let_the_clock_tick(host.dest)


def write_meanwhile(host: Host) -> None:
    """Afterwards there is a file that the application has made while its directories were installed."""
    host.install({}, "")

    def write() -> None:
        host.write({"app/b": "made meanwhile"})
        let_the_clock_tick(host.dest)

    host.install({"app/a": "a", "app/sub/c": "c"}, observer=at_step(Moment.MANIFEST, write))
    let_the_clock_tick(host.dest)


WAYS = [keep_by_hand, write_meanwhile]


@pytest.mark.parametrize("happen", WAYS)
@pytest.mark.parametrize("behavior", FileExistsBehavior)
def test_a_file_that_was_left_in_our_directory_is_met_by_the_rule(
    known: Host, happen: Callable[[Host], None], behavior: FileExistsBehavior
) -> None:
    """It is not ours any more, or never was, so it is not ours to replace."""
    happen(known)
    before = known.tree()["app/b"]

    failure = failure_of(lambda: known.install(TREE, behavior=behavior))

    assert (behavior is FileExistsBehavior.DISALLOW) == (failure is not None)
    assert ("b" if behavior is OVERWRITE else before) == known.tree()["app/b"]
    known.install({}, "")
    assert behavior is OVERWRITE or before == known.tree()["app/b"]


@pytest.mark.parametrize("happen", WAYS)
def test_the_plan_shows_a_file_that_was_left_in_our_directory(
    known: Host, happen: Callable[[Host], None]
) -> None:
    """What `agentctl plan` promises must be what Install does."""
    happen(known)
    request = known.request(TREE)

    answer = preview_install(request)

    assert isinstance(answer, BlockedInstall)
    assert [os.fsencode(known.dest / "app/b")] == [conflict.path for conflict in answer.conflicts]


@pytest.mark.parametrize("happen", WAYS)
def test_nothing_changes_before_a_conflict_with_a_file_that_was_left_in_our_directory(
    known: Host, happen: Callable[[Host], None]
) -> None:
    """All conflicts are found before anything changes: a reader must not see the new revision come and go."""
    happen(known)
    steps: list[Moment] = []

    failure = failure_of(lambda: known.install(TREE, observer=lambda kind, _path: steps.append(kind)))

    assert failure is not None
    assert "install-conflicts" == failure.error_id
    assert [] == steps


@pytest.mark.parametrize("happen", WAYS)
def test_a_directory_with_a_file_of_others_is_not_given_permissions(
    known: Host, happen: Callable[[Host], None]
) -> None:
    """It is theirs, too; they may not get in any more."""
    happen(known)

    known.install({"app/a": "a", "app/sub/c": "c"}, DIRECTORIES)

    assert 0o755 == (known.dest / "app").stat().st_mode & 0o7777
    assert 0o750 == (known.dest / "app/sub").stat().st_mode & 0o7777


@pytest.mark.parametrize("happen", WAYS)
def test_a_directory_with_a_file_of_others_is_not_listed_as_ours(
    known: Host, happen: Callable[[Host], None]
) -> None:
    """The other agents would remove it as soon as it is empty."""
    happen(known)

    known.install({"app/a": "a", "app/sub/c": "c"})

    assert "@DEST@/app" not in known.cleanup()
    assert "@DEST@/app/sub" in known.cleanup()


def test_a_directory_that_stays_for_a_changed_file_is_not_ours_for_ever(known: Host) -> None:
    """Nothing of ours is in it but what somebody has made his own; a new file there is a conflict, and said at once."""
    (known.dest / "app/sub/c").write_text("edited by hand")
    rest = {"app/a": "a", "app/b": "b", "app/hollow/": None}
    known.install(rest)
    let_the_clock_tick(known.dest)

    answer = preview_install(known.request({**rest, "app/sub": "a file"}))

    assert isinstance(answer, BlockedInstall)
    assert "edited by hand" == known.tree()["app/sub/c"]

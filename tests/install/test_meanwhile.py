"""What others do to the destination while an Install is at work, or between its crash and its recovery."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import BlockedInstall, check_install, install, preview_install
from agent.install.model.moments import Moment
from agent.install.posix.trees import remove_tree
from tests.install.children import ended, start
from tests.install.host import failure_of, logged_by
from tests.install.observers import at_step, both, failing_at, killed_at
from tests.install.trees import everything_about

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.errors import CommandFailure
    from agent.install import InstallRequest
    from tests.install.host import Host

DEEP = 1200  # levels: more than Python's recursion takes


def put_atomically(path: Path, content: str) -> None:
    """As applications write their state: beside, and then over what is there."""
    beside = path.with_name("being-written")
    beside.write_text(content)
    beside.rename(path)


def crash(request: InstallRequest, step: Moment, number: int = 1) -> None:
    """Install, and be killed at this step."""
    assert ended(start(lambda: install(request, observer=killed_at(step, number))))


@pytest.mark.parametrize("name", ["app/pid", "app/sub/deep/pid", "app/sub/more/pid"])
@pytest.mark.parametrize("step", [Moment.MANIFEST, Moment.COMMIT])
def test_an_undo_leaves_what_others_have_put_into_a_new_directory(
    host: Host, name: str, step: Moment
) -> None:
    """An upload or a database that the application has just made there is the only copy."""
    host.dest.mkdir()
    write = at_step(step, lambda: host.write({name: "theirs"}))

    failure = failure_of(
        lambda: host.install(
            {"app/a": "a", "app/sub/deep/b": "b", "app/c/": None},
            observer=both(write, failing_at(Moment.COMMIT)),
        )
    )

    assert failure is not None
    assert "install-failed" == failure.error_id
    above = {f"{part}/": None for part in parents(name)}
    assert {**above, name: "theirs"} == host.tree()
    assert [] == host.leftovers()


def parents(name: str) -> Iterator[str]:
    """The directories above a name, relative like it."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def test_after_a_kill_too_what_others_have_put_into_a_new_directory_stays(host: Host) -> None:
    """Between the crash and the start of the agent the application ran for hours."""
    host.dest.mkdir()
    crash(host.request({"app/a": "a", "app/sub/b": "b"}), Moment.COMMIT)
    host.write({"app/sub/upload": "theirs"})

    assert host.recover()

    assert {"app/": None, "app/sub/": None, "app/sub/upload": "theirs"} == host.tree()
    assert [] == host.leftovers()
    host.install({"app/a": "a", "app/sub/b": "b"})
    assert "theirs" == host.tree()["app/sub/upload"]


@pytest.mark.parametrize("is_new_directory", [True, False], ids=["new directory", "directory of others"])
def test_an_undo_leaves_what_an_application_has_put_over_a_new_file(
    host: Host, *, is_new_directory: bool
) -> None:
    """The application has written its state in the way that never loses any."""
    host.write({} if is_new_directory else {"app/own": "o"})
    write = at_step(Moment.MANIFEST, lambda: put_atomically(host.dest / "app/state", "customer data"))

    failure = failure_of(
        lambda: host.install(
            {"app/state": "{}", "app/z": "z"}, observer=both(write, failing_at(Moment.COMMIT))
        )
    )

    assert failure is not None
    expected = {"app/": None, "app/state": "customer data"}
    assert expected | ({} if is_new_directory else {"app/own": "o"}) == host.tree()
    assert [] == host.leftovers()


@pytest.mark.parametrize("step", [Moment.SWITCH, Moment.RENAME, Moment.MANIFEST, Moment.COMMIT])
def test_a_file_that_was_replaced_meanwhile_stays_and_the_rest_is_put_back(host: Host, step: Moment) -> None:
    """Whoever wrote last is right, as if that had been done a moment after the undo."""
    host.install({"app/a": "rev1", "app/z": "z1", "app/gone": "g"})
    write = at_step(step, lambda: put_atomically(host.dest / "app/a", "application wrote this"))

    failure = failure_of(
        lambda: host.install(
            {"app/a": "rev2", "app/z": "z2", "app/new": "n"}, observer=both(write, failing_at(Moment.COMMIT))
        )
    )

    assert failure is not None
    assert {"app/": None, "app/a": "application wrote this", "app/z": "z1", "app/gone": "g"} == host.tree()
    assert [] == host.leftovers()


def test_two_groups_that_make_the_same_directory_above_them_both_succeed(host: Host) -> None:
    """Two applications below /srv/apps, deployed at the same time on a new host."""
    host.dest.mkdir()
    one, other = [
        f"files: [{{source: {name}, destination: '@DEST@/apps/{name}'}}]" for name in ("one", "other")
    ]
    request = replace(host.request({"other/b": "b"}, other), group_id="group-b")

    host.install({"one/a": "a"}, one, observer=at_step(Moment.SWITCH, lambda: install(request)))

    expected = {"apps/": None, "apps/one/": None, "apps/one/a": "a", "apps/other/": None}
    assert {**expected, "apps/other/b": "b"} == host.tree()


@pytest.mark.parametrize("step", [Moment.COPY, Moment.SWITCH, Moment.RENAME, Moment.MANIFEST, Moment.COMMIT])
def test_a_directory_that_becomes_a_link_in_the_middle_is_not_followed(host: Host, step: Moment) -> None:
    """Its owner must not be able to choose where root writes, nor to make the group undeployable."""
    victim = host.base / "victim"
    host.write({"a": "the victim's", "z": {"content": "the victim's", "mode": 0o600}}, victim)
    host.write({"app/own": "o"})
    before = everything_about(victim)

    def swap() -> None:
        (host.dest / "app").rename(host.dest / "away")
        (host.dest / "app").symlink_to(victim)

    failures: list[CommandFailure | None] = []
    observer = both(at_step(step, swap), failing_at(Moment.COMMIT))

    logged = logged_by(
        lambda: failures.append(
            failure_of(lambda: host.install({"app/a": "n", "app/z": "z"}, observer=observer))
        ),
        host.base,
    )

    assert before == everything_about(victim)
    assert not host.recover()
    assert before == everything_about(victim)
    assert [] == [name for name in host.leftovers() if "journal" in name]
    assert "directory_replaced_not_restored" in logged
    assert str(host.dest / "app") in logged


@pytest.mark.parametrize("moment", [Moment.MANIFEST, Moment.RENAME])
def test_an_undo_does_not_touch_a_directory_that_is_not_ours(host: Host, moment: Moment) -> None:
    """After the crash the operator closed it; the start of the agent must not open it again."""
    host.write({"app/own": "x"})
    crash(host.request({"app/a": "a"}), moment)
    (host.dest / "app").chmod(0o700)
    if os.geteuid() == 0:
        os.chown(host.dest / "app", 1234, 4321)
    before = (host.dest / "app").stat()

    assert host.recover()

    after = (host.dest / "app").stat()
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)
    assert 0o700 == stat.S_IMODE(after.st_mode)
    assert ["own"] == os.listdir(host.dest / "app")


def test_a_file_that_was_changed_by_hand_and_is_replaced_is_named(host: Host) -> None:
    """Somebody mended production by hand; when the deployment takes that away, the log has to tell."""
    host.install({"app/conf": "1", "app/touched": "1", "app/same": "1"})
    (host.dest / "app/conf").write_text("edited by hand")
    os.utime(host.dest / "app/touched")
    request = host.request({"app/conf": "2", "app/touched": "2", "app/same": "2"})

    logged = logged_by(lambda: install(request), host.base)

    replaced = [line for line in logged.splitlines() if "changed_file_replaced" in line]
    assert 1 == len(replaced)
    assert f"path={host.dest}/app/conf" in replaced[0]
    assert "WARNING" in replaced[0]


@pytest.fixture
def deep_host(host: Host) -> Iterator[Host]:
    """A host from which very deep trees go in the end."""
    yield host
    subprocess.run(["rm", "-rf", host.dest], check=True)


def nest_deeply(top: Path) -> None:
    """Make as many directories in each other that most programs give up."""
    descriptor = os.open(top, os.O_RDONLY)
    for number in range(DEEP):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
        if number % 100 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


def remove(path: Path) -> None:
    """Afterwards it is gone."""
    above = os.open(path.parent, os.O_RDONLY)
    try:
        remove_tree(above, os.fsencode(path.name), lambda _status: True)
    finally:
        os.close(above)


def test_a_very_deep_tree_is_removed(deep_host: Host) -> None:
    """An application that nests directories must not be able to stop all later deployments."""
    deep_host.write({"top/beside": "b", "outside": "o"})
    (deep_host.dest / "top/link").symlink_to(deep_host.dest / "outside")
    nest_deeply(deep_host.dest / "top")

    remove(deep_host.dest / "top")

    assert {"outside": "o"} == deep_host.tree()


def test_a_very_deep_tree_of_the_application_does_not_break_an_undo(deep_host: Host) -> None:
    """It is not ours, so it stays; and the undo ends."""
    deep_host.dest.mkdir()
    nest = at_step(Moment.MANIFEST, lambda: nest_deeply(deep_host.dest / "app"))

    failure = failure_of(
        lambda: deep_host.install({"app/a": "a"}, observer=both(nest, failing_at(Moment.COMMIT)))
    )

    assert failure is not None
    assert "install-failed" == failure.error_id
    assert ["d"] == os.listdir(deep_host.dest / "app")
    assert not deep_host.recover()


@pytest.mark.parametrize("step", [Moment.SWITCH, Moment.COMMIT])
def test_a_very_deep_tree_in_a_directory_that_gives_way_does_not_stop_an_install(
    deep_host: Host, step: Moment
) -> None:
    """The new revision is there; what the application has made meanwhile stays beside it."""
    deep_host.install({"app/x/b": "b"})
    nest = at_step(step, lambda: nest_deeply(place_of_x(deep_host)))

    deep_host.install({"app/x": "a file"}, observer=nest)

    assert "a file" == (deep_host.dest / "app/x").read_text()
    kept = next((deep_host.dest / "app").glob("x.kept-*"))
    assert ["d"] == os.listdir(kept)
    assert not deep_host.recover()


def place_of_x(host: Host) -> Path:
    """The directory `x` of the previous revision, which may wait for its removal under a hidden name."""
    hidden = [path for path in (host.dest / "app").glob(".install-*") if path.is_dir()]
    return hidden[0] if hidden else host.dest / "app/x"


@pytest.mark.parametrize("step", [Moment.SWITCH, Moment.MANIFEST, Moment.COMMIT])
@pytest.mark.parametrize("is_killed", [False, True], ids=["completed", "killed"])
def test_what_others_put_into_a_directory_that_gives_way_is_kept(
    host: Host, step: Moment, *, is_killed: bool
) -> None:
    """An upload that came in while a deployment ran is not there a second time."""
    host.install({"app/x/b": "b", "app/x/sub/c": "c"})
    request = host.request({"app/x": "a file"})
    write = at_step(step, lambda: (place_of_x(host) / "upload").write_text("a customer's"))
    if is_killed:
        assert ended(start(lambda: install(request, observer=both(write, killed_at(Moment.PUBLISH)))))
        host.recover()
    else:
        install(request, observer=write)

    kept = next((host.dest / "app").glob("x.kept-*")).name
    expected = {"app/": None, "app/x": "a file", f"app/{kept}/": None}
    assert {**expected, f"app/{kept}/upload": "a customer's"} == host.tree()
    assert [] == host.leftovers()


@pytest.mark.parametrize("look", [preview_install, check_install])
def test_who_only_looks_looks_again_when_a_directory_was_replaced_meanwhile(
    host: Host, monkeypatch: pytest.MonkeyPatch, look: Callable[[InstallRequest], object]
) -> None:
    """Install does so, too; a plan that fails where Install would not keeps people from deploying."""
    host.install({"app/x/a": "1"}, durable=False)
    place, listdir = host.dest / "app/x", os.listdir
    os.utime(place)  # so that it is listed

    def list_and_replace(descriptor: Any = ".") -> list[Any]:
        names = listdir(descriptor)
        is_it = isinstance(descriptor, int) and os.readlink(f"/proc/self/fd/{descriptor}") == str(place)
        if is_it and not (host.base / "moved").exists():
            place.rename(host.base / "moved")
            shutil.copytree(host.base / "moved", place)
        return names

    monkeypatch.setattr(os, "listdir", list_and_replace)
    answer = look(host.request({"app/x": "a file"}))
    assert (host.base / "moved").exists()
    assert not isinstance(answer, BlockedInstall)

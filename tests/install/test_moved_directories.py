"""The administrator moves a directory that Install has made to another place, and leaves a link to it."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import CommandFailure
from agent.install import install
from agent.install.model.moments import Moment
from agent.install.preview.changes import ChangeKind, Preview
from agent.install.preview.preview import preview_install
from tests.install.again import is_repetition, let_the_clock_tick
from tests.install.children import ended, killed_before, start
from tests.install.host import failure_of
from tests.install.observers import killed_at
from tests.install.trees import everything_about, read_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.install import InstallRequest
    from tests.install.host import Host

FIRST: dict[str, Any] = {
    "app/same": "same",
    "app/changes": "1",
    "app/goes": "g",
    "app/link": {"link": "same"},
    "app/sub/deep/goes": "d",
    "app/sub/same": "s",
}
SECOND: dict[str, Any] = {
    "app/same": "same",
    "app/changes": "two",
    "app/link": {"link": "same"},
    "app/sub/same": "s",
    "app/sub/new": "n",
}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def _rename(tree: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    tree.rename(place)


def _to_another_disk(tree: Path, place: Path) -> None:
    """What `mv` does from one file system to another."""
    shutil.copytree(tree, place, symlinks=True)
    shutil.rmtree(tree)


def move(host: Host, name: str = "app", how: Callable[[Path, Path], None] = _rename) -> Path:
    """Where the tree is now that the administrator has moved it away, and left a link."""
    place = host.base / "disk" / name
    how(host.dest / name, place)
    (host.dest / name).symlink_to(place)
    return place


def revision(tree: dict[str, Any], prefix: str = "app/") -> dict[str, Any]:
    """What is installed of it."""
    below = {name.removeprefix(prefix): value for name, value in tree.items()}
    parents = {f"{path.rpartition('/')[0]}/" for path in below if "/" in path}
    return below | dict.fromkeys(parents)


MOVES = pytest.mark.parametrize("how", [_rename, _to_another_disk], ids=["same disk", "another disk"])


@MOVES
def test_each_deployment_goes_through_the_link_and_cleans_up_behind_it(
    host: Host, how: Callable[[Path, Path], None]
) -> None:
    """The disk was full, and the tree had to go to another one; deployments must go on as before."""
    host.install(FIRST, durable=False)
    place = move(host, how=how)
    summary = host.install(SECOND, durable=False)
    assert (1, 1, 3, 2, ()) == (
        summary.created,
        summary.replaced,
        summary.unchanged,
        summary.removed,
        summary.left_behind,
    )
    assert revision(SECOND) == read_tree(place)
    host.install({"app/only": "third"}, durable=False)
    assert {"only": "third"} == read_tree(place)
    host.install(FIRST, durable=False)
    assert revision(FIRST) | {"sub/deep/": None} == read_tree(place)
    assert (host.dest / "app").is_symlink()
    assert [] == host.leftovers()


@MOVES
def test_the_plan_is_what_install_does_behind_the_link(host: Host, how: Callable[[Path, Path], None]) -> None:
    """A plan that only nearly comes true is worse than none."""
    host.install(FIRST, durable=False)
    place = move(host, how=how)
    preview = preview_install(host.request(SECOND, durable=False))
    assert isinstance(preview, Preview)
    planned = {os.fsdecode(change.path): change.kind for change in preview.changes}
    app = host.dest / "app"
    expected = {
        f"{app}/same": ChangeKind.KEEP,
        f"{app}/changes": ChangeKind.REPLACE,
        f"{app}/link": ChangeKind.KEEP,
        f"{app}/sub/same": ChangeKind.KEEP,
        f"{app}/sub/new": ChangeKind.ADD,
        f"{place}/goes": ChangeKind.REMOVE,
        f"{place}/sub/deep/goes": ChangeKind.REMOVE,
        f"{place}/sub/deep": ChangeKind.REMOVE,
    }
    assert expected == {
        path: kind for path, kind in planned.items() if path not in {str(host.dest), f"{app}/sub"}
    }


@MOVES
def test_the_same_revision_again_changes_nothing_and_is_known_as_a_repetition_after_that(
    host: Host, how: Callable[[Path, Path], None]
) -> None:
    """Deployments that change nothing are the most frequent ones."""
    host.install(FIRST, durable=False)
    place = move(host, how=how)
    assert not is_repetition(host.request(FIRST, durable=False))
    before = everything_about(place)
    summary = host.install(FIRST, durable=False)
    assert (0, 0, 6, 0) == (summary.created, summary.replaced, summary.unchanged, summary.removed)
    assert before == everything_about(place)
    let_the_clock_tick(place)
    host.install(FIRST, durable=False)
    assert is_repetition(host.request(FIRST, durable=False))


def test_a_link_far_above_is_followed_as_well(host: Host) -> None:
    """It is the data directory that moves, not the application's."""
    files = "files: [{source: app, destination: '@DEST@/data/www/site'}]"
    host.install(FIRST, files, durable=False)
    place = move(host, "data")
    host.install(SECOND, files, durable=False)
    assert revision(SECOND) == read_tree(place / "www/site")
    host.install({"app/x": "x"}, "files: [{source: app, destination: '@DEST@/elsewhere'}]", durable=False)
    assert {} == read_tree(place)
    assert (host.dest / "data").is_symlink()


def test_permissions_reach_what_is_behind_the_link(host: Host) -> None:
    """They are given to the path that the AppSpec names."""
    files = "files: [{source: app, destination: '@DEST@/app'}]\npermissions:\n"
    host.install(FIRST, files + "  - {object: '@DEST@/app', mode: 640, type: [file]}", durable=False)
    place = move(host)
    host.install(SECOND, files + "  - {object: '@DEST@/app/sub', mode: 600, type: [file]}", durable=False)
    assert {"content": "s", "mode": 0o600} == read_tree(place)["sub/same"]
    assert "same" == read_tree(place)["same"]
    host.install(SECOND, files + f"  - {{object: '{place}', mode: 604, type: [file]}}", durable=False)
    assert {"content": "s", "mode": 0o604} == read_tree(place)["sub/same"]


def test_where_the_tree_is_gone_the_revision_is_installed_anew(host: Host) -> None:
    """The old disk has died, and root has pointed the link to an empty one."""
    host.install(FIRST, durable=False)
    place = move(host)
    shutil.rmtree(place)
    place.mkdir()
    summary = host.install(SECOND, durable=False)
    assert (5, 0, 0) == (summary.created, summary.replaced, summary.removed)
    assert revision(SECOND) == read_tree(place)


def test_what_others_have_behind_the_link_stays(host: Host) -> None:
    """It may lead to another tree altogether, with a configuration of its own under the same name."""
    host.install(FIRST, durable=False)
    shutil.rmtree(host.dest / "app")
    others = host.base / "others"
    host.write({"changes": "theirs", "goes": "theirs", "sub/deep/more": "m", "more": "m"}, others)
    (host.dest / "app").symlink_to(others)
    before = everything_about(others)
    failure = failure_of(lambda: host.install(SECOND, durable=False))
    assert failure is not None
    assert "install-conflicts" == failure.error_id
    assert f"{host.dest}/app/changes (a file that is there already" in failure.message
    assert before == everything_about(others)
    host.install({"app/new": "n"}, durable=False)
    assert {
        "changes": "theirs",
        "goes": "theirs",
        "more": "m",
        "new": "n",
        "sub/": None,
        "sub/deep/": None,
        "sub/deep/more": "m",
    } == read_tree(others)


def test_what_was_edited_in_the_moved_directory_is_ours_as_before(host: Host) -> None:
    """With and without the link, an edited file is replaced, or stays where the new revision lacks it."""
    host.install(FIRST, durable=False)
    place = move(host)
    host.write({"changes": "edited", "goes": "edited"}, place)
    summary = host.install(SECOND, durable=False)
    assert (str(place / "goes"),) == summary.left_behind
    assert revision(SECOND) | {"goes": "edited"} == read_tree(place)


def test_what_was_edited_on_another_disk_is_taken_for_somebody_elses(host: Host) -> None:
    """Nothing tells it from a file that was there before; whoever edited it learns of it before it is lost."""
    host.install(FIRST, durable=False)
    place = move(host, how=_to_another_disk)
    host.write({"changes": "edited"}, place)
    failure = failure_of(lambda: host.install(SECOND, durable=False))
    assert failure is not None
    assert "install-conflicts" == failure.error_id
    assert f"({host.dest}/app): behind them, only what it has provably put there" in failure.message
    assert "edited" == (place / "changes").read_text()


@needs_root
@pytest.mark.parametrize("whose", ["link", "directory", "group-writable", "behind"])
def test_a_link_that_others_could_have_made_is_not_followed(host: Host, whose: str) -> None:
    """Whoever swaps a directory of ours would choose where root writes and deletes."""
    host.install({"app/www/a": "a"}, durable=False)
    place = move(host, "app/www")
    link, nobody = host.dest / "app/www", pwd.getpwnam("nobody").pw_uid
    if whose == "link":
        os.chown(link, nobody, -1, follow_symlinks=False)
    elif whose == "directory":
        os.chown(host.dest, nobody, -1)
    elif whose == "group-writable":
        os.chown(host.dest, -1, grp.getgrnam("users").gr_gid)
        host.dest.chmod(0o775)
    else:
        (host.base / "theirs").symlink_to(place)
        os.chown(host.base / "theirs", nobody, -1, follow_symlinks=False)
        link.unlink()
        link.symlink_to("../../theirs")
    failure = failure_of(lambda: host.install({"app/www/a": "a", "app/www/b": "b"}, durable=False))
    assert failure is not None
    assert "install-conflicts" == failure.error_id
    assert "it is not followed, because" in failure.message
    assert {"group-writable": "the group users may write"}.get(whose, "belongs to nobody") in failure.message
    host.install({"app/c": "c"}, durable=False)
    assert {"a": "a"} == read_tree(place)


def test_a_link_in_a_directory_with_the_sticky_bit_is_followed(host: Host) -> None:
    """There, nobody else can move away what is root's."""
    host.dest.mkdir()
    host.dest.chmod(0o1777)
    host.install(FIRST, durable=False)
    place = move(host)
    host.install(SECOND, durable=False)
    assert revision(SECOND) == read_tree(place)


def test_a_link_to_a_link_is_followed_to_the_end(host: Host) -> None:
    """`current` leads to a release, and the application's name to `current`."""
    host.install(FIRST, durable=False)
    place = host.base / "releases/1"
    _rename(host.dest / "app", place)
    (host.base / "current").symlink_to("releases/1")
    (host.dest / "app").symlink_to("../current/../../current/.")
    host.install(SECOND, durable=False)
    assert revision(SECOND) == read_tree(place)


def test_a_link_that_leads_nowhere_is_named_with_its_target(host: Host) -> None:
    """The other disk is not mounted; writing where the link was would hide that."""
    host.install(FIRST, durable=False)
    place = move(host)
    place.rename(place.with_name("unmounted"))
    failure = failure_of(lambda: host.install(SECOND, durable=False))
    assert failure is not None
    assert f"it leads to {place}, which is not there (is its file system mounted?)" in failure.message
    place.with_name("unmounted").rename(place)
    host.install(SECOND, durable=False)
    assert revision(SECOND) == read_tree(place)


def test_a_failure_behind_the_link_puts_everything_back(host: Host) -> None:
    """The previous revision is whole again, wherever it lies."""
    host.install(FIRST, durable=False)
    place = move(host)
    before = everything_about(place)
    for kind in (Moment.COPY, Moment.RENAME, Moment.MANIFEST):

        def fail(seen: Moment, _path: bytes, kind: Moment = kind) -> None:
            if seen == kind:
                raise OSError(5, "disk error")

        request = host.request(SECOND, durable=False)
        with pytest.raises(CommandFailure, match="install-failed|disk error"):
            install(request, observer=fail)
        assert before == everything_about(place)
    assert [] == host.leftovers()
    host.install(SECOND, durable=False)
    assert revision(SECOND) == read_tree(place)


def test_another_group_sees_whose_files_lie_behind_the_link(host: Host) -> None:
    """It comes by the other path, and is told as it would be without the link."""
    host.install(FIRST, durable=False)
    place = move(host)
    host.install(FIRST, durable=False)
    ours, host.group_id = host.group_id, "another-group"
    other = "files: [{source: app, destination: '@BASE@/disk/app'}]"
    failure = failure_of(lambda: host.install({"app/same": "x"}, other, durable=False))
    assert failure is not None
    assert f"{place}/same (a file that is there already" in failure.message
    assert f"installed by deployment group {ours}" in failure.message


def test_a_directory_that_came_back_is_as_it_was(host: Host) -> None:
    """The disk was replaced, and root has moved everything back."""
    host.install(FIRST, durable=False)
    place = move(host)
    host.install(SECOND, durable=False)
    (host.dest / "app").unlink()
    place.rename(host.dest / "app")
    host.install(FIRST, durable=False)
    assert revision(FIRST) | {"sub/deep/": None} == read_tree(host.dest / "app")


def test_an_interrupted_install_is_not_put_in_order_through_a_link(host: Host) -> None:
    """Nothing tells which file is which behind it: what was copied stays as it is, and nothing is taken away."""
    host.install(FIRST, durable=False)
    request = host.request(SECOND, durable=False)
    assert ended(start(lambda: install(request, observer=killed_at(Moment.RENAME, 2))))
    place = move(host, how=_to_another_disk)
    before = everything_about(place)
    host.recover()
    assert before == everything_about(place)


def test_a_kill_before_any_change_behind_a_link_leaves_one_revision_or_the_other(host: Host) -> None:
    """Whatever moment the host dies at."""
    number = 0
    while True:
        number += 1
        shutil.rmtree(host.base)
        host.base.mkdir()
        host.install(FIRST, durable=False)
        place = move(host, how=_to_another_disk)
        old = read_tree(place)
        request = host.request(SECOND, durable=False)

        def body(count: Callable[..., None], request: InstallRequest = request) -> None:
            del count
            install(request)

        if not killed_before(number, body):
            break
        host.recover()
        assert read_tree(place) in (old, revision(SECOND))
        assert [] == host.leftovers()
        host.install(SECOND, durable=False)
        assert revision(SECOND) == read_tree(place)
    assert number > 20


def test_what_another_agent_has_installed_is_not_guessed_behind_a_link(host: Host) -> None:
    """Its records hold nothing but names; any tree may have the same."""
    host.install(FIRST, durable=False)
    (host.instructions / f"{host.group_id}-manifest").unlink()
    place = move(host)
    before = everything_about(place)
    failure = failure_of(lambda: host.install(SECOND, durable=False))
    assert failure is not None
    assert f"({host.dest}/app): behind them, only what it has provably put there" in failure.message
    host.install({"app/more": "m"}, durable=False)
    assert {**before, "more": None}.keys() == everything_about(place).keys()

"""The revision that is there is installed again, and something is not as it was: Install notices it, whatever it is."""

from __future__ import annotations

import dataclasses
import os
import pwd
import shutil
from typing import TYPE_CHECKING

import pytest

from agent.archive_index import index_of
from agent.install import install
from agent.install.model.moments import Moment
from agent.protocol import FileExistsBehavior
from tests.install.again import (
    TREE,
    again,
    install_until_known,
    is_repetition,
    let_the_clock_tick,
    nothing_done,
    read_tree_of,
    times_of_change,
)
from tests.install.children import ended, start
from tests.install.host import GROUP, Host, failure_of
from tests.install.observers import killed_at
from tests.install.trees import MTIME_NS, acl_for, give_acl, read_tree
from tests.install.untold import edit_untold, replace_untold

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("library")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
NOBODY = pwd.getpwnam("nobody").pw_uid


# What ends a repetition: something at the destination is not as it was


def relink(path: Path, target: str) -> None:
    """Let the link lead elsewhere, with the time that it had."""
    path.unlink()
    path.symlink_to(target)
    os.utime(path, ns=(MTIME_NS, MTIME_NS), follow_symlinks=False)


def replace_by_directory(path: Path) -> None:
    """A directory has the name of the file."""
    path.unlink()
    path.mkdir()


def replace_by_link(path: Path) -> None:
    """A link has the name of the file."""
    path.unlink()
    path.symlink_to("empty")


def replace_by_file(path: Path) -> None:
    """A file has the name of the link, or of the empty directory."""
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    path.write_text("a")


MENDED: dict[str, Callable[[Path], object]] = {
    "edited": lambda app: edit_untold(app / "a", "CONTENT OF A"),
    "longer": lambda app: (app / "a").write_text("much more content than before"),
    "removed": lambda app: (app / "a").unlink(),
    "empty file removed": lambda app: (app / "empty").unlink(),
    "odd name removed": lambda app: (app / "sub/deep/\udcff").unlink(),
    "replaced": lambda app: replace_untold(app / "a", "CONTENT OF A"),
    "replaced by a link": lambda app: replace_by_link(app / "a"),
    "replaced by the same": lambda app: replace_untold(app / "a", "content of a"),
    "other mode": lambda app: (app / "sub/b").chmod(0o666),
    "touched": lambda app: os.utime(app / "sub/b"),
    "other target": lambda app: relink(app / "link", "b"),
    "same target": lambda app: relink(app / "link", "a"),
    "link removed": lambda app: (app / "link").unlink(),
    "link replaced by a file": lambda app: replace_by_file(app / "link"),
    "directory removed": lambda app: shutil.rmtree(app / "sub"),
    "hollow directory removed": lambda app: (app / "hollow").rmdir(),
    "everything removed": shutil.rmtree,
    "directory with another mode": lambda app: (app / "sub").chmod(0o700),
    "hollow directory with another mode": lambda app: (app / "hollow").chmod(0o777),
    "directory with an ACL": lambda app: give_acl(app / "sub", *acl_for(NOBODY, 7)),
    "directory with a default ACL": lambda app: give_acl(app / "sub", *acl_for(NOBODY, 7), is_default=True),
    "another name of a file": lambda app: (app.parent / "name").hardlink_to(app / "a"),
}


@pytest.mark.parametrize("change", MENDED.values(), ids=MENDED)
def test_what_somebody_has_changed_is_mended(known: Host, change: Callable[[Path], object]) -> None:
    """People redeploy to get back what was tested, also when the list says that nothing is new."""
    request = again(known)
    change(known.dest / "app")

    assert not is_repetition(request)
    install(request)

    assert read_tree(request.archive / "app") == read_tree(known.dest / "app")
    assert [] == known.leftovers()
    known.install({}, "")
    assert set(known.tree()) <= {"name"}


@pytest.mark.root
@as_root
@pytest.mark.parametrize("name", ["a", "link", "sub", "hollow", "sub/deep/\udcff"])
def test_another_owner_is_mended(known: Host, name: str) -> None:
    """After a `chown -R` by hand, a redeployment is what puts it right."""
    os.chown(known.dest / "app" / name, NOBODY, -1, follow_symlinks=False)
    request = again(known)

    assert not is_repetition(request)
    install(request)

    assert {os.geteuid()} == {found.uid for found in known.everything().values()}


def test_an_acl_that_somebody_gave_to_a_file_goes(known: Host) -> None:
    """As with other agents, which make each file anew; and as it goes from a directory, and from a file that changes."""
    everybody = 0xFFFFFFFF
    entries = (0x01, 6, everybody), (0x02, 4, NOBODY), (0x04, 4, everybody), (0x10, 4, everybody)
    give_acl(known.dest / "app/a", *entries, (0x20, 4, everybody))
    request = again(known)

    assert not is_repetition(request)
    install(request)

    assert (None, None) == known.everything()["app/a"].acls


@pytest.mark.parametrize("name", ["foreign", "sub/foreign", "hollow/foreign", "sub/deep/foreign/"])
def test_what_others_have_put_into_a_directory_of_ours_stays(known: Host, name: str) -> None:
    """The directory is theirs, too, from then on, and must not go with our files."""
    known.write({f"app/{name}": None if name.endswith("/") else "f"})
    request = again(known)

    assert not is_repetition(request)
    assert nothing_done(install(request))

    known.install({}, "")
    assert f"app/{name}" in known.tree()


def test_a_directory_that_was_swapped_for_a_link_is_a_conflict(known: Host) -> None:
    """Whoever swapped it would choose where we write, even when the very files are there."""
    (known.dest / "app").chmod(0o777)
    (known.dest / "app/sub").rename(known.base / "elsewhere")
    (known.dest / "app/sub").symlink_to(known.base / "elsewhere")
    before = known.everything(), times_of_change(known.base / "elsewhere")
    request = again(known)

    failure = failure_of(lambda: install(request))

    assert failure is not None
    assert "install-conflicts" == failure.error_id
    assert before == (known.everything(), times_of_change(known.base / "elsewhere"))


def test_a_file_that_became_a_directory_is_not_taken_for_unchanged(known: Host) -> None:
    """Nobody knows what it is for."""
    replace_by_directory(known.dest / "app/a")

    failure = failure_of(lambda: install(again(known)))

    assert failure is not None
    assert (known.dest / "app/a").is_dir()


@pytest.mark.parametrize("mode", [0o2755, 0o2775])
def test_a_directory_above_that_passes_on_its_group_now_is_noticed(known: Host, mode: int) -> None:
    """Other agents make their directories anew each time, and operators count on that."""
    known.dest.chmod(mode)
    request = again(known)

    assert not is_repetition(request)
    install(request)

    assert 0o2755 == (known.dest / "app/sub/deep").stat().st_mode & 0o7777


def test_a_directory_above_with_a_default_acl_is_noticed(known: Host) -> None:
    """The backup's user gets in with the next deployment."""
    give_acl(known.dest, *acl_for(NOBODY, 5), is_default=True)
    request = again(known)

    assert not is_repetition(request)
    install(request)

    assert "system.posix_acl_default" in os.listxattr(known.dest / "app/sub/deep")


# What ends a repetition: the archive is not as it was unpacked


def move(path: Path, name: str) -> None:
    """Give it another name."""
    path.rename(path.with_name(name))


EDITED: dict[str, Callable[[Path], object]] = {
    "edited": lambda app: edit_untold(app / "a", "CONTENT OF A"),
    "replaced": lambda app: replace_untold(app / "a", "CONTENT OF A"),
    "appended": lambda app: (app / "sub/deep/\udcff").write_text("more"),
    "removed": lambda app: (app / "a").unlink(),
    "renamed": lambda app: move(app / "a", "z"),
    "added": lambda app: (app / "sub/new").write_text("n"),
    "added to a hollow directory": lambda app: (app / "hollow/new").write_text("n"),
    "other mode": lambda app: (app / "a").chmod(0o755),
    "touched": lambda app: os.utime(app / "a", ns=(1, 1)),
    "other target": lambda app: relink(app / "link", "b"),
    "link touched": lambda app: os.utime(app / "link", ns=(1, 1), follow_symlinks=False),
    "file became a link": lambda app: replace_by_link(app / "a"),
    "link became a file": lambda app: replace_by_file(app / "link"),
    "directory removed": lambda app: shutil.rmtree(app / "sub"),
    "directory renamed": lambda app: move(app / "sub", "bus"),
    "hollow directory removed": lambda app: (app / "hollow").rmdir(),
    "directory added": lambda app: (app / "sub/more").mkdir(),
    "directory became a file": lambda app: replace_by_file(app / "hollow"),
    "file became a directory": lambda app: replace_by_directory(app / "a"),
    "another name": lambda app: (app / "sub/name").hardlink_to(app / "a"),
}


@pytest.mark.parametrize("change", EDITED.values(), ids=EDITED)
def test_what_a_hook_has_changed_in_the_archive_is_installed(
    known: Host, change: Callable[[Path], object]
) -> None:
    """A BeforeInstall hook fills in passwords and the like; the index tells of what was unpacked before."""
    request = again(known)
    change(request.archive / "app")

    assert not is_repetition(request)
    install(request)

    assert read_tree(request.archive / "app") == read_tree(known.dest / "app")
    assert [] == known.leftovers()


@pytest.mark.root
@as_root
@pytest.mark.parametrize("name", ["a", "link"])
def test_an_owner_that_a_hook_has_given_in_the_archive_is_installed(known: Host, name: str) -> None:
    """As it is when the file is new."""
    request = again(known)
    os.chown(request.archive / "app" / name, NOBODY, -1, follow_symlinks=False)

    assert not is_repetition(request)
    install(request)

    assert NOBODY == (known.dest / "app" / name).lstat().st_uid


def test_an_archive_that_changes_through_a_link_above_the_source_is_refused(host: Host) -> None:
    """What leads out of the archive is never installed, whatever it holds."""
    appspec = "files: [{source: app/in, destination: '@DEST@/app'}]"
    host.dest.mkdir()
    install_until_known(host, {"app/in/a": "a"}, appspec)
    request = host.request({"app/in/a": "a"}, appspec)
    (request.archive / "app").rename(host.base / "outside")
    (request.archive / "app").symlink_to(host.base / "outside")

    failure = failure_of(lambda: install(request))

    assert failure is not None
    assert "install-source-invalid" == failure.error_id


def test_hard_links_in_the_archive_are_planned(host: Host) -> None:
    """Which names are one file has to be looked at."""
    tree = {"app/a": "a", "app/b": {"same_as": "app/a"}}
    host.dest.mkdir()
    install_until_known(host, tree)
    request = host.request(tree)

    assert not is_repetition(request)
    assert 2 == install(request).unchanged
    assert (host.dest / "app/a").stat().st_ino == (host.dest / "app/b").stat().st_ino


# Others in between


def test_while_another_group_installs_something_all_is_planned(known: Host) -> None:
    """It may be about to change something here; only a plan finds out."""
    request = again(known)
    assert is_repetition(request)
    known.group_id = "other-group"
    others = known.request(
        {"app/x": "x"}, "files: [{source: app, destination: '@DEST@/other'}]", durable=False
    )
    assert ended(start(lambda: install(others, observer=killed_at(Moment.COMMIT))))
    known.group_id = GROUP

    assert not is_repetition(request)
    assert nothing_done(install(request))
    known.group_id = "other-group"
    assert known.recover()
    known.group_id = GROUP
    assert is_repetition(request)


@pytest.mark.parametrize(
    "theirs", [{"app/a": "their a"}, {"app/sub/new": "n"}, {"app/a": "content of a"}], ids=str
)
def test_another_groups_install_in_between_is_respected(known: Host, theirs: dict[str, str]) -> None:
    """Two applications in one directory: each keeps what is its own."""
    known.group_id = "other-group"
    known.install(theirs, behavior=FileExistsBehavior.OVERWRITE)
    known.group_id = GROUP

    known.install(TREE)

    expected = read_tree_of(TREE, known)
    found = read_tree(known.dest / "app")
    assert expected == {name: value for name, value in found.items() if name != "sub/new"}
    known.install({}, "")
    left = {name for name in known.tree() if not name.endswith("/")}
    # What is no longer as the other group left it is not that group's any more.
    assert (set() if theirs.get("app/a") == "their a" else set(theirs)) == left


@pytest.mark.parametrize("name", ["cleanup", "install.json"])
@pytest.mark.parametrize("what", ["rewritten", "removed", "extended"])
def test_after_another_agent_only_its_records_count(known: Host, name: str, what: str) -> None:
    """What our manifest says is about files that are not there any more."""
    path = known.instructions / f"{known.group_id}-{name}"
    if what == "removed":
        path.unlink()
    elif what == "rewritten":
        path.write_bytes(path.read_bytes() + b" ")
    else:
        path.write_bytes(path.read_bytes() + os.fsencode(known.dest / "app/theirs") + b"\n")
        (known.dest / "app/theirs").write_text("t")

    assert not is_repetition(again(known, behavior=FileExistsBehavior.OVERWRITE))
    known.install(TREE, behavior=FileExistsBehavior.OVERWRITE)

    expected = read_tree_of(TREE, known)
    if (what, name) == ("extended", "install.json"):
        expected["theirs"] = "t"
    assert expected == read_tree(known.dest / "app")


# Damage


def test_a_truncated_manifest_never_costs_a_file(known: Host) -> None:
    """The disk was full, or somebody has copied half of it: then less is known, and nothing is invented."""
    path = known.instructions / f"{known.group_id}-manifest"
    whole, records = path.read_bytes(), known.records()
    expected = read_tree(known.dest / "app")
    for length in range(0, len(whole), 7):
        for name, content in records.items():
            (known.instructions / name).write_bytes(content)
        path.write_bytes(whole[:length])

        failure = failure_of(lambda: known.install(TREE, durable=False))

        assert failure is None or failure.error_id == "install-conflicts", length
        assert expected == read_tree(known.dest / "app"), length
        if failure is None and (known.instructions / f"{known.group_id}-manifest").exists():
            records, whole = known.records(), path.read_bytes()
            let_the_clock_tick(known.dest)


def test_a_truncated_index_never_costs_a_file(known: Host) -> None:
    """Install must not take what an index does not list for what is not in the archive."""
    request = again(known)
    path = index_of(request.archive)
    whole = path.read_bytes()
    expected = read_tree(known.dest / "app")
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])

        summary = install(request)

        assert nothing_done(summary), length
        assert expected == read_tree(known.dest / "app"), length


def test_an_index_with_a_line_less_never_costs_a_file(known: Host) -> None:
    """The same of one that somebody has edited, or that lost a block."""
    request = again(known)
    path = index_of(request.archive)
    lines = path.read_bytes().splitlines(keepends=True)
    for position in range(len(lines)):
        path.write_bytes(b"".join(lines[:position] + lines[position + 1 :]))

        assert nothing_done(install(request)), lines[position]


def test_an_index_from_a_whole_second_never_costs_a_file(known: Host) -> None:
    """A tool has set its time. What it leaves doubtful is in the archive all the same."""
    request = again(known)
    os.utime(index_of(request.archive), (1_000_000_000, 1_000_000_000))

    assert nothing_done(install(request))
    assert read_tree(request.archive / "app") == read_tree(known.dest / "app")


def test_a_directory_that_is_the_agents_by_now_is_refused(known: Host) -> None:
    """Its configuration has changed: the same revision would have been said to be installed."""
    request = again(known)
    assert is_repetition(request)
    moved = dataclasses.replace(request, agent_directories=(*request.agent_directories, known.dest))
    failure = failure_of(lambda: install(moved))
    assert failure is not None
    assert "the agent's own" in failure.message

"""I5: who may do what after an Install: as if all had been made anew, whatever the revisions before have said."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from agent.install.preview.changes import ChangeKind, Preview
from agent.install.preview.preview import preview_install
from tests.install.again import install_until_known
from tests.install.children import in_child
from tests.install.host import FILES, Host, failure_of
from tests.install.observers import failing_at, killed_at
from tests.install.trees import acl_for, everything_about, give_acl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOBODY = pwd.getpwnam("nobody")
TEAM = 4321
IS_ROOT = os.geteuid() == 0
NO_ID = 0xFFFFFFFF
SECRET = 0o640

OLD_TREE: dict[str, Any] = {
    "app/kept": {"content": "k", "mode": SECRET},
    "app/changed": {"content": "1", "mode": SECRET},
    "app/run": {"content": "r", "mode": 0o755},
    "app/link": {"link": "kept"},
    "app/sub/kept": {"content": "k", "mode": SECRET},
    "app/sub/deep/changed": "1",
    "app/one": "o",
    "app/another": {"same_as": "app/one"},
    "app/gone/file": "g",
}
NEW_TREE: dict[str, Any] = {
    **{name: described for name, described in OLD_TREE.items() if not name.startswith("app/gone")},
    "app/changed": {"content": "2", "mode": SECRET},
    "app/sub/deep/changed": "2",
    "app/new": {"content": "n", "mode": SECRET},
    "app/sub/new": {"content": "n", "mode": 0o755},
    "app/sub/fresh/new": {"content": "n", "mode": SECRET},
    "app/fresh/deep/new": "n",
    "app/fresh/hollow/": None,
}

PERMISSIONS = {
    "none": "",
    "files": "type: [file], acls: ['u:nobody:r']",
    "written files": "type: [file], acls: ['u:nobody:rw', 'm::rw']",
    "directories": "type: [directory], mode: 750, acls: ['d:u:nobody:rwx', 'u:nobody:rx']",
    "default entries": "type: [directory], acls: ['d:u:nobody:rwx']",
    "default base": "type: [directory], acls: ['d::rwx', 'd:g::-', 'd:o::-']",
    "both kinds": "acls: ['d:u:nobody:rwx', 'u:nobody:rx']",
    "mask": "mode: 640, acls: ['u:nobody:rwx', 'm::r']",
    "mode": "type: [file], mode: 664",
    "setgid": "type: [directory], mode: 2775",
}
ROOTS_PERMISSIONS = {
    "setgid of the team": f"type: [directory], mode: 2770, group: {TEAM}",
    "group": f"type: [file], mode: 660, group: {TEAM}",
    "owner": "owner: nobody",
    "setuid": "pattern: app/run, mode: '4755', owner: nobody",
}
if IS_ROOT:
    PERMISSIONS |= ROOTS_PERMISSIONS


def nothing_special(_directory: Path) -> None:
    """A directory like any other."""


def with_default_acl(directory: Path) -> None:
    """A directory of an operator who lets a user read everything below it, and others nothing."""
    entries = [(tag, 0 if tag == 0x20 else bits, number) for tag, bits, number in acl_for(NOBODY.pw_uid, 5)]
    give_acl(directory, *entries, is_default=True)


def with_default_modes(directory: Path) -> None:
    """A directory with default entries that say no more than a mode."""
    give_acl(directory, (0x01, 7, NO_ID), (0x04, 7, NO_ID), (0x20, 0, NO_ID), is_default=True)


def with_setgid(directory: Path) -> None:
    """A directory that a team shares by its group."""
    if IS_ROOT:
        os.chown(directory, -1, TEAM)
    directory.chmod(0o2775)


def with_both(directory: Path) -> None:
    """The same, with default entries."""
    with_setgid(directory)
    with_default_acl(directory)


ABOVE = [nothing_special, with_default_acl, with_default_modes, with_setgid, with_both]


class Access(NamedTuple):
    """Who may do what with a file or directory."""

    mode: int
    uid: int
    gid: int
    acls: tuple[bytes | None, ...]


def appspec(permissions: str) -> str:
    """An AppSpec in which that is given to all that is installed."""
    entry = f"\npermissions:\n  - {{object: '@DEST@', {permissions}}}" if permissions else ""
    return FILES + entry


def host_below(base: Path, prepare: Callable[[Path], None]) -> Host:
    """A host of which the destination is there."""
    host = Host(base)
    host.dest.mkdir(parents=True)
    prepare(host.dest)
    return host


def access(host: Host) -> dict[str, Access]:
    """All of it below the destination."""
    found = everything_about(host.dest)
    return {name: Access(about.mode, about.uid, about.gid, about.acls) for name, about in found.items()}


@pytest.mark.parametrize("prepare", [nothing_special, with_default_modes, with_both])
@pytest.mark.parametrize("new", PERMISSIONS)
def test_who_may_do_what_does_not_depend_on_the_revisions_before(
    place: Path, prepare: Callable[[Path], None], new: str
) -> None:
    """A user who has lost a right in the AppSpec reads the new secrets all the same, in the files that were replaced."""
    fresh = host_below(place / "fresh", prepare)
    fresh.install(NEW_TREE, appspec(PERMISSIONS[new]), durable=False)
    expected = access(fresh)

    for number, old in enumerate(PERMISSIONS):
        host = host_below(place / str(number), prepare)
        install_until_known(host, OLD_TREE, appspec(PERMISSIONS[old]))
        host.install(NEW_TREE, appspec(PERMISSIONS[new]), durable=False)
        assert expected == access(host), f"after {old}"
        before = host.everything()
        host.install(NEW_TREE, appspec(PERMISSIONS[new]), durable=False)
        assert before == host.everything(), f"again, after {old}"


@pytest.mark.parametrize("new", PERMISSIONS)
def test_nor_does_it_depend_on_whether_the_content_has_changed(place: Path, new: str) -> None:
    """The same revision with another `permissions` section is the most usual way to withdraw access."""
    fresh = host_below(place / "fresh", nothing_special)
    fresh.install(NEW_TREE, appspec(PERMISSIONS[new]), durable=False)

    for number, old in enumerate(PERMISSIONS):
        host = host_below(place / str(number), nothing_special)
        install_until_known(host, NEW_TREE, appspec(PERMISSIONS[old]))
        host.install(NEW_TREE, appspec(PERMISSIONS[new]), durable=False)
        assert access(fresh) == access(host), f"after {old}"


@pytest.mark.parametrize("before", ABOVE)
@pytest.mark.parametrize("after", ABOVE)
def test_what_the_operator_changes_above_reaches_all_with_the_next_deployment(
    place: Path, before: Callable[[Path], None], after: Callable[[Path], None]
) -> None:
    """Other agents make all anew each time, and operators count on that."""
    fresh, host = host_below(place / "fresh", after), host_below(place / "host", before)
    fresh.install(OLD_TREE, durable=False)
    install_until_known(host, OLD_TREE)
    if before in {with_default_acl, with_default_modes, with_both}:
        os.removexattr(host.dest, "system.posix_acl_default")
    os.chown(host.dest, -1, os.getegid())
    host.dest.chmod(0o755)
    after(host.dest)

    host.install(OLD_TREE, durable=False)

    assert access(fresh) == access(host)


@pytest.mark.parametrize("after", ABOVE)
def test_so_it_does_where_files_lie_in_the_operators_own_directory(
    place: Path, after: Callable[[Path], None]
) -> None:
    """A directory that was there keeps its attributes, and its files get what it hands down."""
    hosts = Host(place / "fresh"), Host(place / "host")
    tree = {"app/kept": {"content": "k", "mode": SECRET}, "app/run": {"content": "r", "mode": 0o755}}
    for host in hosts:
        host.write({"app/of-others": "o"})
    install_until_known(hosts[1], tree)
    for host in hosts:
        after(host.dest / "app")
        host.install(tree, durable=False)

    assert access(hosts[0]) == access(hosts[1])


@pytest.mark.parametrize("shape", ["file", "directory"])
def test_an_acl_that_was_set_by_hand_goes_with_the_next_deployment(place: Path, shape: str) -> None:
    """From what is kept as from what is replaced, from files as from directories."""
    host = host_below(place, nothing_special)
    install_until_known(host, OLD_TREE)
    expected = access(host)
    for name, found in expected.items():
        if (
            name != "."
            and stat.S_ISDIR(found.mode) == (shape == "directory")
            and not stat.S_ISLNK(found.mode)
        ):
            give_acl(host.dest / name, *acl_for(NOBODY.pw_uid, 7))
    if shape == "directory":
        give_acl(host.dest / "app/sub", *acl_for(NOBODY.pw_uid, 7), is_default=True)

    host.install(OLD_TREE, durable=False)

    assert expected == access(host)


@pytest.mark.skipif(not IS_ROOT, reason="only root may become another user")
@pytest.mark.root
@pytest.mark.parametrize("prepare", [nothing_special, with_default_acl, with_setgid])
def test_the_group_of_an_agent_that_is_not_root_is_that_of_files_made_anew(
    place: Path, prepare: Callable[[Path], None]
) -> None:
    """Where only root gives files the owners of the archive, the directory says which group they have."""
    fresh, host = host_below(place / "fresh", nothing_special), host_below(place / "host", nothing_special)
    for base in (place, *place.rglob("*")):
        os.chown(base, NOBODY.pw_uid, NOBODY.pw_gid)
    Host(place / "warm").install({"app/a": "a"})

    def body() -> bool:
        os.setgroups([TEAM])
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        for base in (fresh, host):
            os.chown(base.dest, -1, TEAM)
        install_until_known(host, OLD_TREE)
        for base in (fresh, host):
            prepare_as_user(base.dest)
        fresh.install(OLD_TREE, durable=False)
        host.install(OLD_TREE, durable=False)
        return access(fresh) == access(host)

    def prepare_as_user(directory: Path) -> None:
        if prepare is with_setgid:
            directory.chmod(0o2775)
        else:
            prepare(directory)

    assert in_child(body)


@pytest.mark.parametrize("old", ["directories", "both kinds", "setgid", "written files"])
def test_the_plan_says_what_is_replaced(place: Path, old: str) -> None:
    """What is said to be kept keeps its inode, and nothing else does."""
    host = host_below(place, nothing_special)
    host.install(OLD_TREE, appspec(PERMISSIONS[old]), durable=False)
    before = host.everything()
    request = host.request(NEW_TREE, durable=False)
    preview = preview_install(request)

    install(request)

    assert isinstance(preview, Preview)
    after = host.everything()
    kept = {
        os.path.relpath(os.fsdecode(change.path), host.dest)
        for change in preview.changes
        if change.kind is ChangeKind.KEEP
    }
    assert kept == {
        name
        for name, found in before.items()
        if name in after and found.inode == after[name].inode and name != "."
    }


UNDONE = [
    ("directories", "none"),
    ("both kinds", "files"),
    ("none", "both kinds"),
    ("setgid", "written files"),
]
if IS_ROOT:
    UNDONE += [("owner", "none"), ("setgid of the team", "none"), ("owner", "setuid"), ("setuid", "owner")]


@pytest.mark.parametrize(("old", "new"), UNDONE)
@pytest.mark.parametrize(
    "step", [Moment.MKDIR, Moment.COPY, Moment.SWITCH, Moment.RENAME, Moment.ATTRIBUTES, Moment.COMMIT]
)
@pytest.mark.parametrize("is_killed", [False, True], ids=["fails", "is killed"])
def test_who_may_do_what_is_as_before_when_an_install_fails(
    place: Path, old: str, new: str, step: Moment, *, is_killed: bool
) -> None:
    """Half of a change of rights is a state that nobody has written into any AppSpec."""
    host = host_below(place, nothing_special)
    host.install(OLD_TREE, appspec(PERMISSIONS[old]), durable=False)
    before = host.everything()
    request = host.request(NEW_TREE, appspec(PERMISSIONS[new]), durable=False)

    if is_killed:
        child = os.fork()
        if child == 0:
            install(request, observer=killed_at(step))
            os._exit(0)
        assert 0 != os.waitpid(child, 0)[1]
        host.recover()
    else:
        assert failure_of(lambda: install(request, observer=failing_at(step))) is not None

    assert before == host.everything()
    assert [] == host.leftovers()


@pytest.mark.parametrize("prepare", [with_default_acl, with_default_modes])
def test_below_default_entries_all_is_as_mkdir_and_cp_make_it(
    place: Path, prepare: Callable[[Path], None]
) -> None:
    """The entries say what a new directory is like, also where that is more than 0755, or less; files keep their modes."""
    host = host_below(place / "host", prepare)
    tree = {"app/run": {"content": "r", "mode": 0o750}, "app/sub/conf": {"content": "c", "mode": 0o640}}
    host.install(tree, durable=False)
    other = place / "by hand"
    other.mkdir()
    prepare(other)
    for directory in ("app", "app/sub"):
        subprocess.run([found("mkdir"), other / directory], check=True)
    for name in tree:
        archive = host.request(tree).archive
        subprocess.run([found("cp"), archive / name, other / name], check=True)

    by_hand = Host(place)
    by_hand.dest = other
    assert {name: about for name, about in access(by_hand).items() if name != "."} == {
        name: about for name, about in access(host).items() if name != "."
    }


def found(program: str) -> str:
    """Path of a program that every host has."""
    path = shutil.which(program)
    assert path is not None
    return path

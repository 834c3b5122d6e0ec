"""Groups and ACLs that new files and directories inherit from the directory above them."""

from __future__ import annotations

import os
import pwd
import stat
from typing import TYPE_CHECKING, Any

import pytest

from agent.install.model.moments import Moment
from agent.protocol import FileExistsBehavior
from tests.install.host import FILES, failure_of
from tests.install.observers import failing_at
from tests.install.trees import MTIME_NS, acl_for, everything_about, give_acl

if TYPE_CHECKING:
    from pathlib import Path

    from tests.install.host import Host

TREE = {"app/a": "a", "app/sub/b": "b", "app/sub/deep/c": "c"}
NOBODY = pwd.getpwnam("nobody").pw_uid
MODE_ONLY = FILES + "\npermissions:\n  - {object: '@DEST@', mode: 750, type: [directory]}"
MODE_WITH_SETGID = FILES + "\npermissions:\n  - {object: '@DEST@', mode: 2770, type: [directory]}"

APPSPECS = [
    pytest.param(FILES, id="no permissions"),
    pytest.param(MODE_ONLY, id="mode only"),
    pytest.param(MODE_WITH_SETGID, id="mode with setgid"),
]


def set_default_acl(path: Path, permissions: int = 5) -> None:
    """What is made below gets an entry for the user nobody."""
    path.mkdir(parents=True, exist_ok=True)
    give_acl(path, *acl_for(NOBODY, permissions), is_default=True)


def named_users(path: Path) -> list[int]:
    """The users that have an entry of their own."""
    content = os.getxattr(path, "system.posix_acl_access")[4:]
    entries = [content[offset : offset + 8] for offset in range(0, len(content), 8)]
    return [int.from_bytes(entry[4:], "little") for entry in entries if entry[0] == 0x02]


@pytest.mark.parametrize("appspec", APPSPECS)
def test_a_second_deployment_of_the_same_changes_no_inherited_acl(host: Host, appspec: str) -> None:
    """The log shipper or the backup can read after one deployment, and no more after the next."""
    set_default_acl(host.dest)
    host.install(TREE, appspec)
    before = host.everything()

    host.install(TREE, appspec)

    assert before == host.everything()
    assert [NOBODY] == named_users(host.dest / "app/sub/deep")
    assert [NOBODY] == named_users(host.dest / "app/sub/b")


@pytest.mark.parametrize("appspec", APPSPECS)
def test_a_second_deployment_of_the_same_changes_no_inherited_group(host: Host, appspec: str) -> None:
    """A tree that a team shares by its group stops being shared with the second deployment."""
    host.dest.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(host.dest, -1, 4321)
    host.dest.chmod(0o2775)
    group = host.dest.stat().st_gid
    host.install(TREE, appspec)
    before = host.everything()

    host.install(TREE, appspec)

    assert before == host.everything()
    assert {group} == {found.gid for name, found in before.items() if stat.S_ISDIR(found.mode)}
    if appspec == FILES:
        assert host.dest.joinpath("app/sub/deep").stat().st_mode & stat.S_ISGID


def test_a_file_that_comes_with_a_later_revision_inherits_like_the_others(host: Host) -> None:
    """One file out of a hundred that nobody can read is hard to find."""
    set_default_acl(host.dest)
    host.install(TREE)
    host.install({**TREE, "app/sub/new": "n", "app/other/new": "n"})

    acls = {
        name: found.acls for name, found in host.everything().items() if name.rpartition("/")[2] in "b new"
    }

    assert {"app/sub/b", "app/sub/new", "app/other/new"} == set(acls)
    assert 1 == len(set(acls.values()))


def test_a_mode_takes_no_inherited_entry_away(host: Host) -> None:
    """An entry that asks for a mode does not ask for the end of somebody's access."""
    set_default_acl(host.dest)

    for _ in range(2):
        host.install(TREE, MODE_ONLY)

        assert [NOBODY] == named_users(host.dest / "app")
        assert [NOBODY] == named_users(host.dest / "app/sub")
        assert 0o750 == stat.S_IMODE((host.dest / "app").stat().st_mode)


def test_a_default_acl_that_is_set_above_reaches_our_directories_with_the_next_deployment(host: Host) -> None:
    """Other agents make the directories anew each time, and operators count on that."""
    host.dest.mkdir()
    host.install(TREE)
    set_default_acl(host.dest)
    host.install(TREE)
    changed = host.everything()
    fresh = host.base / "fresh"
    set_default_acl(fresh)

    host.install(TREE, FILES.replace("@DEST@", "@BASE@/fresh"))

    made = everything_about(fresh)
    assert (made["app"].acls, made["app"].mode) == (changed["app"].acls, changed["app"].mode)


UNDONE: list[dict[str, Any]] = [
    {"app/a": {"content": "a", "mtime_ns": MTIME_NS + 10**9}},
    {"app/a": "another content"},
    {"app/a": {"content": "a", "mode": 0o600}},
    {"app/sub/new": "n"},
    {},
]


@pytest.mark.parametrize("tree", UNDONE, ids=["time", "content", "mode", "new file", "nothing"])
@pytest.mark.parametrize("step", [Moment.COMMIT, Moment.MANIFEST, Moment.RENAME, Moment.SWITCH])
@pytest.mark.parametrize("inherits", [True, False], ids=["inherited", "given by hand"])
def test_an_undo_takes_no_acl_away(host: Host, tree: dict[str, Any], step: Moment, *, inherits: bool) -> None:
    """A deployment that failed must not have changed who can read what."""
    if inherits:
        set_default_acl(host.dest)
    host.install({"app/a": "a", "app/sub/b": "b"})
    if not inherits:
        for name in ("app", "app/a", "app/sub", "app/sub/b"):
            give_acl(host.dest / name, *acl_for(NOBODY, 6))
        give_acl(host.dest / "app/sub", *acl_for(NOBODY, 6), is_default=True)
    before = host.everything()

    failure = failure_of(lambda: host.install(tree, observer=failing_at(step)))

    assert (failure is not None) or step == Moment.RENAME
    if failure is not None:
        assert before == host.everything()
        assert [] == host.leftovers()


def test_an_undo_gives_somebody_elses_file_its_acl_back(host: Host) -> None:
    """It was not ours, and after the failure it has to be as its owner left it."""
    host.write({"app/f": "same", "app/g": "other"})
    for name in "fg":
        give_acl(host.dest / "app" / name, *acl_for(NOBODY, 6))
    before = host.everything()
    tree = {"app/f": {"content": "same", "mtime_ns": MTIME_NS + 10**9}, "app/g": "ours"}

    failure = failure_of(
        lambda: host.install(
            tree, behavior=FileExistsBehavior.OVERWRITE, observer=failing_at(Moment.MANIFEST)
        )
    )

    assert failure is not None
    assert before == host.everything()


def net_bind_service() -> bytes:
    """The capability to listen on port 80, as `setcap cap_net_bind_service=+ep` writes it."""
    return (0x02000001).to_bytes(4, "little") + (1 << 10).to_bytes(4, "little") + bytes(12)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give capabilities")
@pytest.mark.parametrize("owner", [0, NOBODY], ids=["same owner", "owner changed by hand"])
@pytest.mark.parametrize("step", [Moment.MANIFEST, Moment.COMMIT])
def test_an_undo_takes_no_capability_away(host: Host, owner: int, step: Moment) -> None:
    """The server that a hook lets listen on port 80 does not start again after a deployment that failed."""
    host.install({"app/server": "s"})
    path = host.dest / "app/server"
    os.chown(path, owner, owner)
    os.setxattr(path, "security.capability", net_bind_service())
    before = host.everything()

    for tree in ({"app/server": "s"}, {"app/server": {"content": "s", "mode": 0o755}}, {"app/server": "t"}):
        failure = failure_of(lambda tree=tree: host.install(tree, observer=failing_at(step)))  # type: ignore[misc]

        assert failure is not None
        assert net_bind_service() == os.getxattr(path, "security.capability")
        assert before == host.everything()

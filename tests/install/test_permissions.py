"""The permissions section on a real host."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import struct
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import CommandFailure
from agent.install import install
from agent.protocol import FileExistsBehavior
from tests.install.host import logged_by

if TYPE_CHECKING:
    from pathlib import Path

TREE = {"app/a.sh": "a", "app/b.txt": "b", "app/sub/c.sh": "c", "app/sub/d/e.txt": "e", "app/empty/": None}
FILES = "files: [{source: app, destination: '@DEST@/app'}]\npermissions:\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def modes(root: Path) -> dict[str, str]:
    """Mode of everything below, in octal."""
    return {
        path.relative_to(root).as_posix(): f"{stat.S_IMODE(path.lstat().st_mode):04o}"
        for path in sorted(root.rglob("*"))
    }


def acl(path: Path, name: str = "access") -> list[tuple[int, int, int]]:
    """Tag, permissions and id of each entry."""
    value = os.getxattr(path, f"system.posix_acl_{name}")
    return [struct.unpack_from("<HHI", value, offset) for offset in range(4, len(value), 8)]


MODES = [
    pytest.param(
        "  - {object: '@DEST@/app', mode: 640, type: [file]}",
        {"a.sh": "0640", "b.txt": "0640", "sub/c.sh": "0640", "sub/d/e.txt": "0640"},
        id="all files below, whatever depth",
    ),
    pytest.param(
        "  - {object: '@DEST@/app', mode: 700, type: [directory]}",
        {"empty": "0700", "sub": "0700", "sub/d": "0700"},
        id="directories below, not the object itself",
    ),
    pytest.param(
        "  - {object: '@DEST@/app', mode: 750}",
        {
            "a.sh": "0750",
            "b.txt": "0750",
            "sub/c.sh": "0750",
            "sub/d/e.txt": "0750",
            "empty": "0750",
            "sub": "0750",
            "sub/d": "0750",
        },
        id="both kinds by default",
    ),
    pytest.param(
        "  - {object: '@DEST@/app', pattern: '*.sh', mode: 700, type: [file]}",
        {"a.sh": "0700"},
        id="a star stays within one component",
    ),
    pytest.param(
        "  - {object: '@DEST@/app', pattern: 'sub/*.sh', mode: 700, type: [file]}",
        {"sub/c.sh": "0700"},
        id="a pattern may lead down",
    ),
    pytest.param(
        "  - {object: '@DEST@/app', except: [a.sh, 'sub/*'], mode: 600, type: [file]}",
        {"b.txt": "0600", "sub/d/e.txt": "0600"},
        id="exceptions",
    ),
    pytest.param(
        "  - {object: '@DEST@/app', except: ['@DEST@/app/a.sh'], mode: 600, pattern: '*', type: [file]}",
        {"b.txt": "0600"},
        id="an exception as a whole path",
    ),
    pytest.param(
        "  - {object: '@DEST@/app/a.sh', mode: 0644}", {}, id="written with a zero, and not octal twice"
    ),
    pytest.param("  - {object: '@DEST@/app/a.sh/', mode: '4755'}", {"a.sh": "4755"}, id="one file, setuid"),
    pytest.param("  - {object: '@DEST@/app/a.sh', mode: 7}", {"a.sh": "0007"}, id="one digit"),
    pytest.param("  - {object: '@DEST@/elsewhere', mode: 700}", {}, id="what is not installed is left alone"),
    pytest.param(
        "  - {object: '@DEST@', pattern: 'app', mode: 711, type: [directory]}",
        {"": "0711"},
        id="by its parent",
    ),
]


@pytest.mark.parametrize(("entry", "changed"), MODES)
def test_modes_go_to_what_the_entry_matches(host: Any, entry: str, changed: dict[str, str]) -> None:
    """A mode on one file too many may open a secret; on one too few, stop the application."""
    host.install(TREE, FILES + entry)

    expected = {
        "a.sh": "0644",
        "b.txt": "0644",
        "empty": "0755",
        "sub": "0755",
        "sub/c.sh": "0644",
        "sub/d": "0755",
        "sub/d/e.txt": "0644",
    }
    own = changed.get("", "0755")
    assert own == f"{stat.S_IMODE((host.dest / 'app').stat().st_mode):04o}"
    assert {**expected, **{name: mode for name, mode in changed.items() if name}} == modes(host.dest / "app")


INVALID = [
    pytest.param(
        "  - {object: '@DEST@/app/a.sh', pattern: '*.sh', mode: 755}", "is a file", id="pattern on a file"
    ),
    pytest.param(
        "  - {object: '@DEST@/app/a.sh', mode: 700}\n  - {object: '@DEST@/app/a.sh', mode: 711}",
        "matched by the entries in AppSpec lines 5 and 6",
        id="twice",
    ),
    pytest.param(
        "  - {object: '@DEST@/app', mode: 700, type: [file]}\n  - {object: '@DEST@/app/a.sh', mode: 755}",
        "matched by the entries",
        id="file in a tree",
    ),
    pytest.param(
        "  - {object: '@DEST@/app', owner: no-such-user}", "there is no user 'no-such-user'", id="owner"
    ),
    pytest.param("  - {object: '@DEST@/app', group: no-such-group}", "there is no group", id="group"),
    pytest.param(
        "  - {object: '@DEST@/app', type: [file], acls: ['u:no-such-user:rw']}",
        "acls of permissions",
        id="acl user",
    ),
    pytest.param(
        "  - {object: '@DEST@/nowhere', owner: no-such-user}", "no-such-user", id="even for nothing"
    ),
]


@pytest.mark.parametrize(("entries", "text"), INVALID)
def test_entries_that_cannot_be_applied_are_found_before_anything_changes(
    host: Any, entries: str, text: str
) -> None:
    """Half a revision with the wrong owner is worse than no revision."""
    with pytest.raises(CommandFailure) as caught:
        host.install(TREE, FILES + entries)

    assert caught.value.error_id == "permissions-invalid"
    assert text in caught.value.message
    assert not host.dest.exists()


def test_all_wrong_entries_are_listed_together(host: Any) -> None:
    """One deployment per mistake is a slow way to find them."""
    with pytest.raises(CommandFailure) as caught:
        host.install(
            TREE, FILES + "  - {object: '@DEST@/app', owner: nobody-1}\n  - {object: /x, group: nobody-2}"
        )

    assert "nobody-1" in caught.value.message
    assert "nobody-2" in caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may give files to anybody")
def test_without_root_giving_files_away_is_refused_before_anything_changes(host: Any) -> None:
    """An agent that does not run as root has to say so, not fail in the middle."""
    with pytest.raises(CommandFailure, match="only root may give files"):
        host.install(TREE, FILES + "  - {object: '@DEST@/app', owner: root}")


@needs_root
@pytest.mark.root
def test_owner_and_group_by_name_and_number(host: Any) -> None:
    """Numbers are the only way to name a user of a container."""
    host.install(
        TREE,
        FILES
        + "  - {object: '@DEST@/app', owner: nobody, group: 4321, type: [file]}\n"
        + "  - {object: '@DEST@/app', owner: 1234, type: [directory]}",
    )

    file, directory = (host.dest / "app/a.sh").stat(), (host.dest / "app/sub").stat()
    assert (pwd.getpwnam("nobody").pw_uid, 4321) == (file.st_uid, file.st_gid)
    assert (1234, 0) == (directory.st_uid, directory.st_gid)
    assert 0 == (host.dest / "app").stat().st_uid


@needs_root
@pytest.mark.root
def test_a_change_of_owner_does_not_take_the_setuid_bit(host: Any) -> None:
    """The kernel drops setuid when the owner changes, so the mode has to come last."""
    host.install(TREE, FILES + "  - {object: '@DEST@/app/a.sh', mode: 4755, owner: nobody}")

    assert modes(host.dest / "app")["a.sh"] == "4755"


@needs_root
@pytest.mark.root
def test_the_archives_owner_is_kept(host: Any) -> None:
    """Tar bundles carry numeric owners, as the existing agents keep them."""
    request = host.request(TREE, FILES.replace("permissions:\n", ""))
    os.chown(request.archive / "app/a.sh", 1234, 4321)
    os.chmod(request.archive / "app/a.sh", 0o6755)  # noqa: S103 - that is the point
    install(request)

    status = (host.dest / "app/a.sh").stat()
    assert (1234, 4321, 0o6755) == (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


@needs_root
@pytest.mark.root
def test_a_link_gets_an_owner_itself_and_nothing_behind_it_changes(host: Any) -> None:
    """A link in a bundle must not hand /etc/shadow to the application's user."""
    secret = host.base / "secret"
    secret.write_text("s")
    secret.chmod(0o600)
    host.install(
        {"app/l": {"link": str(secret)}}, FILES + "  - {object: '@DEST@/app', owner: nobody, mode: 777}"
    )

    assert pwd.getpwnam("nobody").pw_uid == (host.dest / "app/l").lstat().st_uid
    assert (0, 0o600) == (secret.stat().st_uid, stat.S_IMODE(secret.stat().st_mode))


def test_permissions_on_links_can_be_refused(host: Any) -> None:
    """The administrator's hardening key."""
    with pytest.raises(CommandFailure, match="reject_symlink_permission_targets"):
        host.install(
            {"app/l": {"link": "x"}},
            FILES + "  - {object: '@DEST@/app', mode: 777}",
            reject_symlink_permission_targets=True,
        )


def test_acls_get_the_base_entries_and_a_mask_that_lets_them_through(host: Any) -> None:
    """With the mask of the existing agent, the named user's rights had no effect."""
    group = grp.getgrgid(os.getegid()).gr_name
    uid = pwd.getpwnam("nobody").pw_uid
    entry = f"  - {{object: '@DEST@/app/a.sh', mode: 640, acls: ['u:nobody:rwx', 'g:{group}:r']}}"
    host.install(TREE, FILES + entry)

    none = 0xFFFFFFFF
    expected = [
        (0x01, 6, none),
        (0x02, 7, uid),
        (0x04, 4, none),
        (0x08, 4, os.getegid()),
        (0x10, 7, none),
        (0x20, 0, none),
    ]
    assert expected == acl(host.dest / "app/a.sh")


def test_a_mask_of_the_appspec_wins(host: Any) -> None:
    """Whoever writes a mask means it."""
    host.install(TREE, FILES + "  - {object: '@DEST@/app/a.sh', mode: 640, acls: ['u:nobody:rwx', 'm::r']}")

    assert (0x10, 4, 0xFFFFFFFF) in acl(host.dest / "app/a.sh")


def test_default_acls_go_to_directories_and_not_to_what_is_installed_into_them(host: Any) -> None:
    """They are for files that the application makes later."""
    host.install(TREE, FILES + "  - {object: '@DEST@/app', type: [directory], acls: ['d:u:nobody:rwx']}")

    uid = pwd.getpwnam("nobody").pw_uid
    assert (0x02, 7, uid) in acl(host.dest / "app/sub", "default")
    assert "system.posix_acl_access" not in os.listxattr(host.dest / "app/sub/c.sh")


def test_default_acls_need_no_type_and_files_get_the_other_entries(host: Any) -> None:
    """Existing agents read such an entry, and nobody writes `type` who thinks of the directory."""
    entry = "  - {object: '@DEST@/app', acls: ['d:u:nobody:rwx', 'u:nobody:rx']}"
    host.install(TREE, FILES + entry)

    uid = pwd.getpwnam("nobody").pw_uid
    assert (0x02, 7, uid) in acl(host.dest / "app/sub", "default")
    assert (0x02, 5, uid) in acl(host.dest / "app/sub/c.sh")
    instructions = json.loads((host.instructions / f"{host.group_id}-install.json").read_bytes())[
        "instructions"
    ]
    acls = {
        item["file"].rpartition("/")[2]: item["acl"] for item in instructions if item["type"] == "setfacl"
    }
    assert ["user:nobody:r-x"] == acls["c.sh"]
    assert ["default:user:nobody:rwx", "user:nobody:r-x"] == acls["sub"]


def test_default_acls_may_say_what_owner_group_and_others_get(host: Any) -> None:
    """As `setfacl -d` lets them: without that, new files get what the mode of the directory says."""
    acls = "['d::rwx', 'd:g::rx', 'd:o::-', 'd:u:nobody:rwx']"
    host.install(TREE, FILES + f"  - {{object: '@DEST@/app', mode: 711, type: [directory], acls: {acls}}}")

    uid, none = pwd.getpwnam("nobody").pw_uid, 0xFFFFFFFF
    assert [(0x01, 7, none), (0x02, 7, uid), (0x04, 5, none), (0x10, 7, none), (0x20, 0, none)] == acl(
        host.dest / "app/sub", "default"
    )
    assert "system.posix_acl_access" not in os.listxattr(host.dest / "app/sub")


def test_default_acls_without_names_need_no_mask(host: Any) -> None:
    """Others are told by `d:o:`, and the rest by the mode, as `setfacl` does it."""
    host.install(TREE, FILES + "  - {object: '@DEST@/app', mode: 750, type: [directory], acls: ['d:o:r']}")

    none = 0xFFFFFFFF
    assert [(0x01, 7, none), (0x04, 5, none), (0x20, 4, none)] == acl(host.dest / "app/sub", "default")
    (host.dest / "app/sub/new").write_text("")


def test_default_acls_for_one_file_are_refused(host: Any) -> None:
    """They would have no effect at all, and the deployment would look as if they had."""
    with pytest.raises(CommandFailure, match="is a file, and the entry default:user:nobody:rwx") as caught:
        host.install(TREE, FILES + "  - {object: '@DEST@/app/a.sh', acls: ['d:u:nobody:rwx']}")

    assert "permissions-invalid" == caught.value.error_id


def test_acls_of_the_previous_revision_go(host: Any) -> None:
    """A user who lost the right in the AppSpec must lose it on the host."""
    entry = "  - {object: '@DEST@/app', acls: ['u:nobody:rwx']}"
    host.install(TREE, FILES + entry)
    assert "system.posix_acl_access" in os.listxattr(host.dest / "app/sub")

    host.install(TREE, FILES.replace("permissions:\n", ""))

    assert "system.posix_acl_access" not in os.listxattr(host.dest / "app/a.sh")
    assert "system.posix_acl_access" not in os.listxattr(host.dest / "app/sub")
    assert modes(host.dest / "app")["sub"] == "0755"


def test_only_what_this_install_put_there_is_touched(host: Any) -> None:
    """A retained file keeps its mode, and so does a directory of somebody else's."""
    host.write({"app/a.sh": {"content": "mine", "mode": 0o600}, "app/sub/": {"mode": 0o711}})
    host.install(TREE, FILES + "  - {object: '@DEST@/app', mode: 777}", behavior=FileExistsBehavior.RETAIN)

    seen = modes(host.dest / "app")
    assert ("0600", "0711", "0777") == (seen["a.sh"], seen["sub"], seen["b.txt"])


def test_a_context_without_the_tools_is_refused_before_anything_changes(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the program that is missing."""
    monkeypatch.setenv("PATH", str(host.base))
    if os.path.exists("/usr/sbin/semanage"):
        pytest.skip("this host has the SELinux tools")

    with pytest.raises(CommandFailure, match="no semanage"):
        host.install(TREE, FILES + "  - {object: '@DEST@/app', context: {type: httpd_sys_content_t}}")

    assert not host.dest.exists()


def tools(host: Any, monkeypatch: pytest.MonkeyPatch, *, is_failing: bool = False) -> Path:
    """A stand-in for the SELinux program that notes how it was called."""
    directory: Path = host.base / "bin"
    directory.mkdir()
    calls: Path = host.base / "calls"
    program = directory / "semanage"
    status = 1 if is_failing else 0
    program.write_text(f'#!/bin/sh\necho "semanage $*" >> {calls}\necho no policy\nexit {status}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return calls


CONTEXT = "  - {object: '@DEST@/app/a.b', context: {type: web_t, user: system_u, range: s0}}"


def test_a_context_becomes_a_rule_of_the_policy_and_goes_with_the_next_install(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that nobody removes relabels whatever has that name years later."""
    calls = tools(host, monkeypatch)
    host.install({"app/a.b": "a"}, FILES + CONTEXT)
    host.install({"app/c": "c"}, FILES.replace("permissions:\n", ""))

    escaped = str(host.dest / "app/a.b").replace(".", "\\.")
    assert [
        f"semanage fcontext -a -t web_t -s system_u -r s0 -- {escaped}",
        f"semanage fcontext -d -- {escaped}",
    ] == calls.read_text().splitlines()


def test_a_label_that_fails_undoes_the_install(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the program printed is the only hint at why."""
    tools(host, monkeypatch, is_failing=True)

    with pytest.raises(CommandFailure, match=r"semanage failed with exit code 1: no policy"):
        host.install({"app/a.b": "a"}, FILES + CONTEXT)

    assert not host.dest.exists()
    assert [] == host.leftovers()


@pytest.mark.parametrize(
    "entry",
    [
        "{object: '@DEST@/app', pattern: '*.py', mode: 600}",
        "{object: '@DEST@/ap', mode: 600}",
        "{object: '@DEST@/app/a.sh', type: [directory], mode: 700}",
    ],
)
def test_an_entry_that_is_about_nothing_is_named_in_the_log(host: Any, entry: str) -> None:
    """A secret that stays readable for everybody because of a typing error should not be a secret of the agent's."""
    log = logged_by(lambda: host.install(TREE, FILES + f"  - {entry}", durable=False), host.base)
    assert "permission_without_effect" in log
    assert "appspec_line=5" in log


def test_entries_that_are_about_something_are_not(host: Any) -> None:
    """Also those that are met already."""
    appspec = FILES + "  - {object: '@DEST@/app', pattern: '*.sh', mode: 700}"
    host.install(TREE, appspec, durable=False)
    log = logged_by(lambda: host.install(TREE, appspec, durable=False), host.base)
    assert "permission_without_effect" not in log

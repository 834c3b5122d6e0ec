"""I7: what somebody else does to installed files and directories between two Installs."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.preview.changes import BlockedInstall
from agent.install.preview.preview import preview_install
from agent.protocol import FileExistsBehavior
from tests.install.children import in_child
from tests.install.host import FILES, failure_of
from tests.install.untold import edit_untold, replace_untold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

from tests.install.host import Host

pytestmark = pytest.mark.usefixtures("library")


def leave_cleanup_file(host: Host, names: Iterable[str]) -> None:
    """What another agent notes of an Install of these, in this order."""
    host.instructions.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{host.dest}/{name}\n" for name in names)
    (host.instructions / f"{host.group_id}-cleanup").write_text(lines)


@pytest.mark.parametrize(
    "names",
    [("app", "app/sub", "app/sub/precious"), ("app/sub/precious", "app/sub", "app")],
    ids=["in order", "the other way round"],
)
def test_a_directory_of_another_agents_list_that_is_a_link_now_is_not_followed(
    host: Host, names: tuple[str, ...]
) -> None:
    """Whoever owns the directory above would choose what is deleted as root."""
    host.write({"precious": "p"}, host.base / "etc")
    host.write({"app/other": "o"})
    (host.dest / "app/sub").symlink_to(host.base / "etc")
    leave_cleanup_file(host, names)

    host.install({"app/c": "c"})

    assert (host.base / "etc/precious").exists()
    assert (host.dest / "app/sub").is_symlink()


def test_a_directory_swapped_far_above_is_not_followed_either(host: Host) -> None:
    """Only the innermost directory has files in it, but each one on the way is listed."""
    host.write({"deep/er/precious": "p"}, host.base / "etc")
    host.write({"app/other": "o"})
    (host.dest / "app/sub").symlink_to(host.base / "etc")
    listed = ("app", "app/sub", "app/sub/deep", "app/sub/deep/er", "app/sub/deep/er/precious")
    leave_cleanup_file(host, listed)

    host.install({"app/c": "c"})

    assert (host.base / "etc/deep/er/precious").exists()


def test_links_of_another_agents_list_go_and_what_they_lead_to_stays(host: Host) -> None:
    """A link with nothing below it is one that was installed."""
    host.write({"precious": "p"}, host.base / "etc")
    host.write({"app/link": {"link": str(host.base / "etc")}})
    leave_cleanup_file(host, ("app", "app/link"))

    host.install({"app/c": "c"})

    assert {"app/": None, "app/c": "c"} == host.tree()
    assert (host.base / "etc/precious").exists()


def test_a_swapped_directory_is_not_followed_after_something_stuck_in_it(host: Host) -> None:
    """What could not be removed is claimed anew, by the path it had while the directory was one."""
    host.install({"app/sub/a": "a"})
    host.write({"a": "a"}, host.base / "etc")
    files = {name: host.instructions / f"{host.group_id}-{name}" for name in ("cleanup", "manifest")}
    header, _end, rest = files["manifest"].read_bytes().partition(b"\n")
    stuck = b"d %b\n a\n" % os.fsencode(host.dest / "app/sub")
    files["manifest"].write_bytes(header + b"\n" + stuck + rest)
    shutil.rmtree(host.dest / "app/sub")
    (host.dest / "app").chmod(0o777)
    (host.dest / "app/sub").symlink_to(host.base / "etc")

    host.install({"app/c": "c"})

    assert (host.base / "etc/a").exists()


@pytest.mark.parametrize("change", [replace_untold, edit_untold])
def test_a_file_with_another_content_is_kept_though_size_and_time_are_the_same(
    host: Host, change: Callable[[Path, str], None]
) -> None:
    """All files of a reproducible bundle have one time, and `touch -r` is old. It may be the only copy."""
    host.install({"app/conf": "port=80", "app/k": "k"})
    change(host.dest / "app/conf", "port=81")

    summary = host.install({"app/k": "k"})

    assert (str(host.dest / "app/conf"),) == summary.left_behind
    assert {"app/": None, "app/conf": "port=81", "app/k": "k"} == host.tree()


def test_a_file_replaced_by_one_with_the_same_content_is_removed(host: Host) -> None:
    """A host restored from a backup has other inodes and times, and is cleaned up all the same."""
    host.install({"app/conf": "port=80", "app/k": "k"})
    replace_untold(host.dest / "app/conf", "port=80")

    summary = host.install({"app/k": "k"})

    assert ((), 1) == (summary.left_behind, summary.removed)
    assert {"app/": None, "app/k": "k"} == host.tree()


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_touched_file_that_can_not_be_read_is_kept(host: Host) -> None:
    """Nobody can tell what is in it now, and it is no reason to fail."""
    permissions = "\npermissions: [{object: '@DEST@/app/conf', mode: '0200'}]"
    host.install({"app/conf": "port=80", "app/k": "k"}, FILES + permissions)
    os.utime(host.dest / "app/conf")

    summary = host.install({"app/k": "k"})

    assert (str(host.dest / "app/conf"),) == summary.left_behind


def test_looking_into_a_large_file_takes_little_memory(host: Host) -> None:
    """A worker that reads a disk image at once is killed by the system, and the deployment with it."""
    mib = 64
    host.install({"app/image": os.urandom(mib << 20), "app/k": "k"})
    os.utime(host.dest / "app/image")
    request = host.request({"app/k": "k"})

    def install_and_tell() -> tuple[int, int]:
        begin = peak_kib()
        return install(request).removed, peak_kib() - begin

    removed, grown_kib = in_child(install_and_tell)

    assert 1 == removed
    assert grown_kib < mib * 1024 // 4


def peak_kib() -> int:
    """The most memory that this process has had since it began, or since this was reset."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


@pytest.mark.parametrize("behavior", [FileExistsBehavior.DISALLOW, FileExistsBehavior.OVERWRITE])
@pytest.mark.parametrize("depth", ["app/x", "top/app/x"], ids=["directory of others above", "ours above"])
@pytest.mark.parametrize("brought", [{"conf": "EDITED BY HAND"}, {"new": "n"}, {"sub/deep/new": "n"}])
def test_a_directory_with_changes_in_it_does_not_give_way_to_a_file(
    host: Host, behavior: FileExistsBehavior, depth: str, brought: dict[str, str]
) -> None:
    """They would be gone, and nobody the wiser. The message has to say what is in the way."""
    top = depth.partition("/")[0]
    files = f"files: [{{source: {top}, destination: '@DEST@/{top}'}}]"
    if top == "app":
        host.write({"app/theirs": "t"})
    host.install({f"{depth}/conf": "1", f"{depth}/sub/b": "b"}, files)
    host.write({f"{depth}/{name}": content for name, content in brought.items()})
    before = host.everything()

    failure = failure_of(lambda: host.install({depth: "a file"}, files, behavior=behavior))

    assert failure is not None
    assert "install-conflicts" == failure.error_id
    name = next(iter(brought))
    path = host.dest / depth / ("sub/deep" if "deep" in name else name)
    assert f"{path} (it is in the directory {host.dest / depth}, where a file must be" in failure.message
    assert before == host.everything()


def test_the_plan_shows_what_keeps_a_directory_from_giving_way(host: Host) -> None:
    """What `agentctl plan` promises must be what Install does."""
    host.install({"app/x/conf": "1", "app/x/b": "b"})
    host.write({"app/x/conf": "EDITED"})

    answer = preview_install(host.request({"app/x": "a file"}))

    assert isinstance(answer, BlockedInstall)
    assert [os.fsencode(host.dest / "app/x/conf")] == [conflict.path for conflict in answer.conflicts]


def test_a_directory_with_changes_in_it_stays_where_the_rule_is_to_retain(host: Host) -> None:
    """The rest of the revision is installed; the unchanged files go, as they do elsewhere."""
    host.install({"app/x/conf": "1", "app/x/b": "b"})
    host.write({"app/x/conf": "EDITED"})

    summary = host.install({"app/x": "a file", "app/k": "k"}, behavior=FileExistsBehavior.RETAIN)

    assert {"app/": None, "app/k": "k", "app/x/": None, "app/x/conf": "EDITED"} == host.tree()
    assert ((str(host.dest / "app/x/conf"),), 1) == (summary.left_behind, summary.retained)

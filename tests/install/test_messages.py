"""What an operator needs to know of a failed Install, and what to do about that very cause."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.apply.disk_full import no_room_failure
from agent.install.model.moments import Moment
from agent.install.plan.planner import plan_install
from agent.install.posix.protection import protection_of, remedy_for
from tests.install.host import FILES, failure_of
from tests.install.mounts import Filler, needs_mounts, with_mounts

if TYPE_CHECKING:
    from tests.install.host import Host


def message_of(host: Host, *arguments: object, **rest: object) -> str:
    """What the Install of this says that fails."""
    failure = failure_of(lambda: host.install(*arguments, durable=False, **rest))  # type: ignore[arg-type]
    assert failure is not None
    return failure.message


@pytest.mark.parametrize(
    ("entry", "who"),
    [
        ("owner: nosuch", "owner in permissions of @DEST@/app (AppSpec line 5): there is no user 'nosuch'"),
        ("group: nosuch", "group in permissions of @DEST@/app (AppSpec line 5): there is no group 'nosuch'"),
        (
            "acls: ['u:nosuch:rw'], type: [directory]",
            "acls of permissions of @DEST@/app (AppSpec line 5): there is no user 'nosuch'",
        ),
        (
            "acls: ['g:nosuch:rw'], type: [directory]",
            "acls of permissions of @DEST@/app (AppSpec line 5): there is no group 'nosuch'",
        ),
    ],
)
def test_an_unknown_name_comes_with_object_line_and_what_to_do(host: Host, entry: str, who: str) -> None:
    """Users are made by scripts, and one of them has not run on this host."""
    message = message_of(
        host, {"app/a": "1"}, FILES + f"\npermissions:\n  - {{object: '@DEST@/app', {entry}}}"
    )
    assert who.replace("@DEST@", str(host.dest)) in message
    assert "on this host; create it before Install, such as in a BeforeInstall script" in message


def test_all_that_is_wrong_with_one_entry_is_said_at_once(host: Host) -> None:
    """Whoever prepares a host runs one command for all users and groups that it lacks, and not one for each deployment."""
    entry = "owner: no-owner, group: no-group, acls: ['u:no-one:rw', 'g:no-team:r'], type: [file, directory]"
    message = message_of(
        host, {"app/a": "1"}, FILES + f"\npermissions:\n  - {{object: '@DEST@/app', {entry}}}"
    )
    for name in ("user 'no-owner'", "group 'no-group'", "user 'no-one'", "group 'no-team'"):
        assert f"there is no {name} on this host" in message


@needs_mounts
def test_without_inodes_the_message_does_not_ask_for_space(host: Host) -> None:
    """Whoever looks finds a disk that is half empty."""

    def body() -> str:
        Filler(host.dest).leave_inodes(5)
        return message_of(host, {f"app/{number}": "x" for number in range(20)})

    message = with_mounts({host.dest: "size=4m,nr_inodes=100,mode=755"}, body)
    assert f"the file system mounted at {host.dest} has room, but too few inodes" in message
    assert "needs 20 bytes and 21 inodes; free are" in message
    assert f"du --inodes -x {host.dest}" in message
    assert "space" not in message


@needs_mounts
def test_a_full_disk_is_named_by_where_it_is_mounted(host: Host) -> None:
    """So that nobody looks at another one."""

    def body() -> str:
        Filler(host.dest).leave_pages(5)
        return message_of(host, {"app/large": "x" * 100_000})

    message = with_mounts({host.dest: "size=1m,nr_inodes=100,mode=755"}, body)
    assert (
        f"on the file system mounted at {host.dest}. This Install needs 100000 bytes and 2 inodes" in message
    )
    assert "Free some space there and deploy again." in message


def test_a_quota_is_told_from_a_full_disk(host: Host) -> None:
    """There is room enough, for others."""
    plan = plan_install(host.request({"app/a": "1"}))
    message = no_room_failure(plan, str(host.base), is_quota=True).message
    assert message.startswith(f"A disk quota is used up at {host.base}")
    assert "Raise the quota" in message


@needs_mounts
@pytest.mark.parametrize("where", ["destination", "records"])
def test_a_read_only_file_system_is_named_as_such_to_root_as_well(host: Host, where: str) -> None:
    """It is no matter of permissions; the kernel has often found errors on it."""
    host.install({"app/a": "1"}, durable=False)
    place = {"destination": host.dest, "records": host.instructions}[where]

    def body() -> str:
        command = ["mount", "--bind", str(place), str(place)]
        subprocess.run(command, check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        return message_of(host, {"app/a": "2"})

    message = with_mounts({host.base / "unused": "size=1m"}, body)
    assert "Read-only file system" in message
    assert "is mounted read-only, for root as well" in message
    assert "Make it writable again" in message
    assert "ermission" not in message


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.EEXIST, errno.ESTALE])
def test_each_cause_has_its_own_advice(number: int) -> None:
    """At three in the morning, nobody is helped by "Fix the cause"."""
    remedy = remedy_for("/srv/app/a", OSError(number, os.strerror(number)))
    assert remedy not in {"", "Fix that"}


def test_a_refusal_that_nothing_explains_says_what_refuses_root(host: Host) -> None:
    """A file server and a container may, and permissions that look right are no help then."""
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert "" == protection_of(str(host.base), error)
    remedy = remedy_for(str(host.base), error)
    if os.geteuid() == 0:
        assert "root_squash" in remedy
    else:
        assert "The agent runs as" in remedy


def test_what_appears_at_the_last_moment_is_blamed_on_who_makes_it(host: Host) -> None:
    """Another program writes there; without its name, the next deployment may fail, too."""
    host.install({"app/a": "1"}, durable=False)
    request = host.request({"app/a": "1", "app/b": "2"}, durable=False)

    def appear(kind: Moment, path: bytes) -> None:
        if kind == Moment.RENAME and path.endswith(b"/b"):
            (host.dest / "app/b").write_text("theirs")

    failure = failure_of(lambda: install(request, observer=appear))
    assert failure is not None
    assert "theirs" == (host.dest / "app/b").read_text()


def test_very_many_missing_sources_are_counted(host: Host) -> None:
    """A build that has packed nothing misses all of them; the first ones tell as much."""
    entries = ", ".join(f"{{source: gone-{number}, destination: '@DEST@'}}" for number in range(90))
    message = message_of(host, {"app/a": "1"}, f"files: [{entries}]")
    assert "source 'gone-19'" in message
    assert "source 'gone-20'" not in message
    assert message.endswith("; and 70 more of this kind.")

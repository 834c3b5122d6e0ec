"""Destinations on several file systems, and files that the file system itself protects."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import CommandFailure
from agent.install import install
from agent.protocol import FileExistsBehavior
from tests.install.children import killed_before
from tests.install.host import FILES, failure_of
from tests.install.mounts import needs_mounts, with_mounts
from tests.install.trees import everything_about

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.install.model.moments import Moment
    from tests.install.host import Host

BOTH = "files: [{source: one, destination: '@BASE@/one/app'}, {source: two, destination: '@BASE@/two/app'}]"
FIRST: dict[str, Any] = {"one/a": "1", "one/old/x": "x", "two/b": "1", "two/l": {"link": "b"}}
SECOND: dict[str, Any] = {"one/a": "2", "one/hard": {"same_as": "one/a"}, "two/b": "2", "two/new/x": "x"}
SECOND["two/hard"] = {"same_as": "one/a"}

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_IMMUTABLE_FL, FS_APPEND_FL = 0x10, 0x20


@needs_mounts
@pytest.mark.root
def test_two_file_systems_change_together_or_not_at_all(host: Host) -> None:
    """Code on one disk and data on another: a revision of which one half is old does not run."""
    first, second = host.request(FIRST, BOTH), host.request(SECOND, BOTH)
    places = {host.base / "one": "size=1m", host.base / "two": "size=1m"}

    def state() -> tuple[object, ...]:
        return *(everything_about(place) for place in places), host.records()

    def body() -> set[str]:
        outcomes, number = set(), 0
        while True:
            number += 1
            install(first)
            before = state()
            if not killed_before(number, lambda count: install(second, observer=count)):
                break
            host.recover()
            if state() == before:
                outcomes.add("old")
                continue
            outcomes.add("new")
            assert ["2", "2"] == [
                (place / "app" / name).read_text() for place, name in zip(places, "ab", strict=True)
            ]
            assert ["app", "app/a", "app/hard"] == [*everything_about(host.base / "one")][1:]
            assert ["app", "app/b", "app/hard", "app/new", "app/new/x"] == [
                *everything_about(host.base / "two")
            ][1:]
        assert "2" == (host.base / "two/app/hard").read_text()
        assert (host.base / "one/app/hard").samefile(host.base / "one/app/a")
        host.install({}, "")
        assert [[], []] == [list(place.iterdir()) for place in places]
        return outcomes

    assert {"old", "new"} == with_mounts(places, body)


@needs_mounts
@pytest.mark.root
def test_a_mount_point_inside_a_destination_is_installed_into(host: Host) -> None:
    """A mount point can't be renamed or removed, and is no reason to fail."""

    def body() -> None:
        for content in ("one", "two"):
            host.install({"app/a": content, "app/data/b": content})
        assert "two" == host.tree()["app/data/b"]
        host.install({"app/a": "three"})
        assert {"app/": None, "app/a": "three", "app/data/": None} == host.tree()

    with_mounts({host.dest / "app/data": "size=1m,mode=755"}, body)


@contextlib.contextmanager
def flagged(path: Path, flag: int) -> Iterator[None]:
    """Meanwhile the file has this flag, as `chattr` sets it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    old = 0
    try:
        try:
            old = struct.unpack("i", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, b"\0" * 4))[0]
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("i", old | flag))
        except OSError as error:
            if error.errno not in {errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM}:
                raise
            pytest.skip("this file system, or this container, knows no immutable files")
        try:
            yield
        finally:
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("i", old))
    finally:
        os.close(descriptor)


needs_flags = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make files immutable")

PROTECTED = {
    "file to replace": ("app/conf/settings", FS_IMMUTABLE_FL, "immutable"),
    "directory with a file to replace": ("app/conf", FS_IMMUTABLE_FL, "immutable"),
    "directory with a file to add": ("app/plugins", FS_IMMUTABLE_FL, "immutable"),
    "somebody else's file": ("app/theirs", FS_IMMUTABLE_FL, "immutable"),
    "append-only log": ("app/conf/settings", FS_APPEND_FL, "append-only"),
}


@needs_flags
@pytest.mark.root
@pytest.mark.parametrize(("name", "flag", "word"), PROTECTED.values(), ids=PROTECTED)
def test_a_protected_target_is_named_and_the_old_revision_stays(
    host: Host, name: str, flag: int, word: str
) -> None:
    """Root is told "Operation not permitted", and looks for the reason for hours."""
    old = {"app/a": "1", "app/conf/settings": "1", "app/gone": "1", "app/plugins/p": "1"}
    new = {"app/a": "2", "app/conf/settings": "2", "app/plugins/p": "1", "app/plugins/q": "1"}
    host.install(old)
    host.write({"app/theirs": "theirs"})
    before, records = host.everything(), host.records()
    request = host.request({**new, "app/theirs": "ours"}, behavior=FileExistsBehavior.OVERWRITE)

    with flagged(host.dest / name, flag), pytest.raises(CommandFailure) as caught:
        install(request)

    assert f"{host.dest}/{name}" in caught.value.message
    assert word in caught.value.message
    assert "lsattr" in caught.value.message
    assert (before, records) == (host.everything(), host.records())
    install(request)
    assert "2" == host.tree()["app/conf/settings"]


@needs_flags
@pytest.mark.root
def test_a_protected_file_that_stays_as_it_is_stops_nothing(host: Host) -> None:
    """Somebody protected a file that no deployment changes: that is what it is for."""
    host.install({"app/a": "1", "app/same": "same"})

    with flagged(host.dest / "app/same", FS_IMMUTABLE_FL):
        host.install({"app/a": "2", "app/same": "same"})

    assert {"app/": None, "app/a": "2", "app/same": "same"} == host.tree()


@needs_flags
@pytest.mark.root
def test_a_target_that_becomes_protected_in_the_middle_is_undone(host: Host) -> None:
    """Between the plan and the change somebody was faster; the old revision is whole all the same."""
    request = host.request({"app/a": "2", "app/b": "2"}, FILES)
    host.install({"app/a": "1", "app/b": "1"})
    before = host.everything()
    protected = flagged(host.dest / "app/b", FS_IMMUTABLE_FL)
    seen: list[Moment] = []

    def observe(kind: Moment, _path: bytes) -> None:
        if not seen:
            protected.__enter__()
        seen.append(kind)

    try:
        with pytest.raises(CommandFailure) as caught:
            install(request, observer=observe)
    finally:
        protected.__exit__(None, None, None)

    assert f"{host.dest}/app/b" in caught.value.message
    assert before == host.everything()
    assert [] == host.leftovers()


@needs_flags
@pytest.mark.root
def test_a_protected_file_that_should_go_is_not_forgotten(host: Host) -> None:
    """It is still ours: the operator hears of it, and no later revision is refused because of it."""
    host.install({"app/a": "1", "app/gone": "1"})
    before = host.everything()
    gone = host.dest / "app/gone"
    with flagged(gone, FS_IMMUTABLE_FL):
        kept: list[str] = []
        failure = failure_of(lambda: kept.extend(host.install({"app/a": "2"}).left_behind))
        if failure is None:
            assert [str(gone)] == kept
        else:
            assert str(gone) in failure.message
            assert "immutable" in failure.message
            assert before == host.everything()

    host.install({"app/a": "3", "app/gone": "back"})

    assert {"app/": None, "app/a": "3", "app/gone": "back"} == host.tree()


@pytest.mark.root
def test_a_file_system_that_takes_owners_and_keeps_its_own(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shared folders of virtual machines do so, and vfat with `quiet`: nobody has changed anything there."""
    host.install({"app/sub/a": "1", "app/sub/deep/b": "1"})
    for path in [host.dest / "app", *(host.dest / "app").rglob("*")]:
        os.chown(path, 1234, 1234)
    second = host.request({"app/sub/a": "2", "app/sub/deep/b": "1", "app/sub/link": {"link": "a"}})
    make_link, own = os.symlink, os.chown

    def make_anybodys_link(target: bytes, name: bytes, *_: bool, dir_fd: int | None = None) -> None:
        make_link(target, name, dir_fd=dir_fd)
        own(name, 1234, 1234, dir_fd=dir_fd, follow_symlinks=False)

    monkeypatch.setattr(os, "symlink", make_anybodys_link)
    monkeypatch.setattr(os, "chown", lambda *_, **__: None)
    monkeypatch.setattr(os, "fchown", lambda *_: None)

    install(second)

    assert (host.dest / "app/sub/link").read_text() == "2"

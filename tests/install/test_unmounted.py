"""A volume with destinations on it is not mounted."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from tests.install.children import ended, start
from tests.install.host import failure_of
from tests.install.images import Image, skip_without
from tests.install.mounts import needs_mounts, with_mounts
from tests.install.observers import killed_at

if TYPE_CHECKING:
    from tests.install.host import Host

OLD, NEW = {"app/a": "1", "app/b": "1", "app/gone": "g"}, {"app/a": "2", "app/b": "2"}

KILLED = [
    pytest.param(Moment.RENAME, "install-undo-incomplete", OLD, id="to be undone"),
    pytest.param(Moment.REMOVE_HIDDEN, "install-not-completed", NEW, id="to be completed"),
]


def mounted_volume(host: Host) -> Image:
    """A disk of its own, on which the host's destinations are from now on."""
    volume = Image("ext4", host.base / "image", host.base / "volume")
    host.dest = volume.place / "dest"
    volume.mount()
    return volume


@pytest.mark.root
@needs_mounts
@pytest.mark.parametrize(("step", "error_id", "expected"), KILLED)
def test_recovery_says_what_is_missing_and_goes_on_when_it_is_there(
    host: Host, step: Moment, error_id: str, expected: dict[str, str]
) -> None:
    """The agent starts before the data volume is there. If that counted as undone, half a revision would stay."""
    skip_without("ext4")

    def body() -> None:
        volume = mounted_volume(host)
        host.install(OLD)
        request = host.request(NEW)
        assert ended(start(lambda: install(request, observer=killed_at(step, 2))))
        volume.unmount()
        before = host.records()

        for attempt in (host.recover, lambda: host.install(NEW)):
            failure = failure_of(attempt)

            assert failure is not None
            assert error_id == failure.error_id
            assert str(volume.place) in failure.message
            assert before == host.records()
        assert [] == list(volume.place.iterdir())
        volume.mount()
        host.recover()

        assert {"app/": None, **expected} == host.tree()
        assert [] == host.leftovers()
        volume.unmount()

    with_mounts({}, body)


@pytest.mark.root
@needs_mounts
def test_the_next_revision_does_not_go_to_the_disk_below(host: Host) -> None:
    """It would fill the system's own disk, and disappear when the volume is back; and nobody would learn of either."""
    skip_without("ext4")

    def body() -> None:
        volume = mounted_volume(host)
        host.install(OLD)
        host.install(OLD)  # also one that changes nothing knows where the files are
        volume.unmount()
        before = host.records()
        for tree in (NEW, OLD):
            failure = failure_of(lambda tree=tree: host.install(tree))  # type: ignore[misc]
            assert failure is not None
            assert "install-destination-unmounted" == failure.error_id
            assert f"was mounted at {volume.place}" in failure.message
        assert before == host.records()
        assert [] == list(volume.place.iterdir())
        volume.mount()
        host.install(NEW)
        assert {"app/": None, **NEW} == host.tree()
        volume.unmount()

    with_mounts({}, body)


@pytest.mark.root
@needs_mounts
def test_whoever_gives_up_the_volume_can_go_on_without_it(host: Host) -> None:
    """Either the files were moved to the disk below, or the last Install is given up."""
    skip_without("ext4")

    def body() -> None:
        volume = mounted_volume(host)
        host.install(OLD)
        shutil.copytree(host.dest, host.base / "copy")
        volume.unmount()
        shutil.copytree(host.base / "copy", host.dest)
        host.install(NEW)
        assert {"app/": None, **NEW} == host.tree()
        shutil.rmtree(host.dest)
        volume.mount()
        host.install({"other/x": "x"}, "files: [{source: other, destination: '@DEST@/other'}]")
        volume.unmount()
        (host.instructions / f"{host.group_id}-cleanup").unlink()
        host.install(NEW)
        assert {"app/": None, **NEW} == host.tree()

    with_mounts({}, body)


def test_in_memory_nothing_is_missed_after_a_restart(host: Host) -> None:
    """What was on a tmpfs is gone for good, as everybody knows who uses one."""
    host.install(OLD)
    assert b"\np " not in host.records()[f"{host.group_id}-manifest"]

"""I2, I3 and I6 when the power fails: what counts is what had reached the device by then, and not what programs had been told.

The device is a file, and a loss of power a copy of it, taken at that moment and mounted afterwards.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import CommandFailure
from agent.install import install
from agent.install.model.moments import Moment
from tests.install.children import ended, start
from tests.install.images import Image, skip_without
from tests.install.mounts import needs_mounts, with_mounts
from tests.install.observers import at_step, both, failing_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.install.model.moments import Observer
    from tests.install.host import Host

pytestmark = [pytest.mark.root, needs_mounts]

OLD: dict[str, Any] = {"app/a": "a-rev1", "app/b": "b-rev1", "app/gone/g": "g", "app/turns/into": "a file"}
NEW: dict[str, Any] = {"app/a": "a-rev2", "app/b": "b-rev2", "app/new/n": "n", "app/turns": "a file"}
NEW["app/link"] = {"link": "a"}
TREES: dict[str, dict[str, Any]] = {
    "old": {"app/": None, "app/gone/": None, "app/turns/": None, **OLD},
    "new": {"app/": None, "app/new/": None, **NEW},
}

DEVICES = [
    pytest.param("ext4", False, id="ext4"),
    pytest.param("ext4", True, id="ext4 with the records on it"),
    pytest.param("btrfs", True, id="btrfs with the records on it"),
]


class Device:
    """A host whose destination lies on a device of its own, with the old revision on it."""

    def __init__(
        self,
        host: Host,
        kind: str,
        *,
        has_records: bool,
        old: dict[str, Any] | None = None,
        new: dict[str, Any] | None = None,
    ) -> None:
        self.host = host
        self._image = Image(kind, host.base / "image", host.base / "disk")
        self._safe, self._safe_records = host.base / "safe", host.base / "safe-records"
        self._left = host.base / "left"
        host.dest = self._image.place / "dest"
        if has_records:
            host.instructions = self._image.place / "records"
        self._image.mount()
        host.install(old or OLD)
        self.second = host.request(new or NEW)
        shutil.copytree(host.instructions, self._safe_records)
        self._image.unmount()
        self._image.save(self._safe)

    def begin(self) -> None:
        """Afterwards the old revision is installed, and on the disk."""
        self._image.load(self._safe)
        self._image.mount()
        if not self.host.instructions.is_relative_to(self._image.place):
            shutil.rmtree(self.host.instructions)
            shutil.copytree(self._safe_records, self.host.instructions)

    def end(self) -> None:
        """Afterwards it is not mounted."""
        self._image.unmount()

    def lose_power(self) -> None:
        """Keep what has reached the device, and die."""
        self._image.save(self._left)
        os.kill(os.getpid(), signal.SIGKILL)

    def run(self, act: Callable[[Observer], object], number: int) -> bool:
        """Lose power before the step with this number, or at the end. Whether there was such a step."""
        (self.host.base / "steps").unlink(missing_ok=True)
        count = 0

        def observe(_kind: Moment, _path: bytes) -> None:
            nonlocal count
            count += 1
            if count == number:
                (self.host.base / "steps").touch()
                self.lose_power()

        def body() -> None:
            act(observe)
            self.lose_power()

        assert ended(start(body))
        self._image.unmount()
        self._image.load(self._left)
        self._image.mount()
        return (self.host.base / "steps").exists()

    def revision(self) -> str:
        """Which one is whole; fails when none is."""
        found = self.host.tree()
        names = [name for name, tree in TREES.items() if tree == found]
        assert names, found
        return names[0]


def outcomes_of_losses(device: Device, act: Callable[[Observer], object]) -> list[str]:
    """Lose power before each step of what `act` does, and after the last one. Each time, what recovery has brought."""
    outcomes: list[str] = []
    is_step = True
    while is_step:
        device.begin()
        is_step = device.run(act, len(outcomes) + 1)
        device.host.recover()
        outcomes.append(device.revision())
        assert [] == device.host.leftovers(), f"step {len(outcomes)}"
        assert not device.host.recover()
        device.end()
    return outcomes


@pytest.mark.parametrize(("kind", "has_records"), DEVICES)
def test_a_loss_of_power_at_any_step_leaves_one_whole_revision(
    host: Host, kind: str, *, has_records: bool
) -> None:
    """A host that comes up with empty files, or with neither revision, has to be set up again by hand."""
    skip_without(kind)

    def body() -> list[str]:
        device = Device(host, kind, has_records=has_records)
        return outcomes_of_losses(device, lambda observer: install(device.second, observer=observer))

    outcomes = with_mounts({}, body)

    assert outcomes == sorted(outcomes, reverse=True), "the new revision counts from one moment on"
    assert ["old", "new"] == [outcomes[0], outcomes[-1]]


@pytest.mark.parametrize(("kind", "has_records"), DEVICES)
def test_a_loss_of_power_at_any_step_of_an_undo_leaves_the_old_revision(
    host: Host, kind: str, *, has_records: bool
) -> None:
    """The new files had reached the disk already; the undo must not drop the old ones before its own steps have."""
    skip_without(kind)

    def fail(device: Device, observer: Observer) -> None:
        synced = at_step(
            Moment.MANIFEST, lambda: subprocess.run(["sync", "-f", device.host.dest], check=True)
        )
        observers = both(observer, both(synced, failing_at(Moment.MANIFEST)))
        with pytest.raises(CommandFailure, match="a made-up error"):
            install(device.second, observer=observers)

    def body() -> list[str]:
        device = Device(host, kind, has_records=has_records)
        return outcomes_of_losses(device, partial(fail, device))

    outcomes = with_mounts({}, body)

    assert {"old"} == set(outcomes)
    assert len(outcomes) > 15


@pytest.mark.parametrize(("kind", "has_records"), DEVICES)
def test_what_a_reported_success_has_removed_stays_removed(
    host: Host, kind: str, *, has_records: bool
) -> None:
    """Old files that come back belong to nobody, and the revision that brings them again is refused."""
    skip_without(kind)

    def body() -> dict[str, Any]:
        device = Device(host, kind, has_records=has_records)
        device.begin()
        assert not device.run(lambda observer: install(device.second, observer=observer), 10_000)
        assert not host.recover()
        host.install(OLD)
        found = host.tree()
        device.end()
        return found

    assert TREES["old"] == with_mounts({}, body)


@pytest.mark.parametrize("gone", ["app/empty/", "app/sub/b"])
@pytest.mark.parametrize("added", [{}, {"app/n": "n"}], ids=["nothing else", "a new file"])
def test_what_goes_without_being_replaced_stays_removed(host: Host, gone: str, added: dict[str, Any]) -> None:
    """Such an Install has little else to wait for; what comes back would be nobody's."""
    skip_without("ext4")
    old = {"app/a": "a", gone: None if gone.endswith("/") else "b"}

    def body() -> dict[str, Any]:
        device = Device(host, "ext4", has_records=False, old=old, new={"app/a": "a", **added})
        device.begin()
        assert not device.run(lambda observer: install(device.second, observer=observer), 10_000)
        assert not host.recover()
        found = host.tree()
        device.end()
        return found

    assert {"app/": None, "app/a": "a", **added} == with_mounts({}, body)


def test_what_recovery_removes_stays_removed(host: Host) -> None:
    """The Install had taken effect when its process died; what is left is removed from its journal alone."""
    skip_without("ext4")

    def body() -> dict[str, Any]:
        device = Device(host, "ext4", has_records=False, old={"app/a": "a", "app/b": "b"}, new={"app/a": "a"})
        device.begin()
        with pytest.raises(Stopped):
            install(device.second, observer=at_step(Moment.REMOVE, stop))
        assert not device.run(lambda _observer: host.recover(), 10_000)
        found = host.tree()
        device.end()
        return found

    assert {"app/": None, "app/a": "a"} == with_mounts({}, body)


class Stopped(BaseException):
    """The end of a process, as far as an Install can tell."""


def stop() -> None:
    """End it."""
    raise Stopped

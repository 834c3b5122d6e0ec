"""A volume with destinations on it is not mounted when an interrupted Install is to be put in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.install import install
from tests.install.children import ended, start
from tests.install.host import failure_of
from tests.install.images import Image, skip_without
from tests.install.mounts import needs_mounts, with_mounts
from tests.install.observers import killed_at

if TYPE_CHECKING:
    from tests.install.host import Host

OLD, NEW = {"app/a": "1", "app/b": "1", "app/gone": "g"}, {"app/a": "2", "app/b": "2"}

KILLED = [
    pytest.param("rename", "install-undo-incomplete", OLD, id="to be undone"),
    pytest.param("forget", "install-not-completed", NEW, id="to be completed"),
]


@pytest.mark.root
@needs_mounts
@pytest.mark.parametrize(("step", "error_id", "expected"), KILLED)
def test_recovery_says_what_is_missing_and_goes_on_when_it_is_there(
    host: Host, step: str, error_id: str, expected: dict[str, str]
) -> None:
    """The agent starts before the data volume is there. If that counted as undone, half a revision would stay."""
    skip_without("ext4")

    def body() -> None:
        volume = Image("ext4", host.base / "image", host.base / "volume")
        host.dest = volume.place / "dest"
        volume.mount()
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

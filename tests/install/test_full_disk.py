"""A disk that really is full, at any moment of an Install."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import CommandFailure
from agent.install import install
from tests.install.host import failure_of
from tests.install.mounts import Filler, needs_mounts, with_mounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.install import InstallRequest
    from tests.install.host import Host

NUMBERS = re.compile(r"needs \d+ (bytes|MiB) and \d+ inodes; free are \d+ (bytes|MiB) and \d+ inodes")

# Long names and several directories, so that the journal and each record need pages of their own.
OLD: dict[str, Any] = {
    **{f"app/old-{number}-{'o' * 60}": "old" for number in range(60)},
    "app/a": "old",
    "app/conf/b": "old",
}
NEW: dict[str, Any] = {
    **{f"app/new-{number}-{'n' * 60}": "x" * 3000 for number in range(60)},
    **{f"app/directory-{number}/sub/file": "x" for number in range(10)},
    "app/a": "new " * 4000,
    "app/conf/b": "new",
    "app/link": {"link": "a"},
}
NOTHING_FREE = 0


def names_of(revision: dict[str, Any]) -> set[str]:
    """What is a file or a link."""
    return {name for name in revision if not name.endswith("/")}


def refusals(host: Host, new: InstallRequest, leave: Callable[[int], None], ample: int) -> int:
    """Try with nothing free, then with a little more each time, until it works. How often it did not.

    Each time the old revision must be whole, and the message must name needs and room.
    """
    for room in range(ample):
        leave(room)
        before = (host.everything(), host.records())
        failure = failure_of(lambda: install(new))
        if failure is None:
            assert names_of(NEW) == {name for name in host.tree() if not name.endswith("/")}
            assert [] == host.leftovers()
            return room
        assert failure.error_id == "install-disk-full", failure.message
        assert NUMBERS.search(failure.message), failure.message
        after = (host.everything(), host.records())
        assert before == after, f"{room} free"
    raise AssertionError("there was never enough room")


def fill(filler: Filler, what: str) -> Callable[[int], None]:
    """Which kind of room is short."""
    return {"bytes": filler.leave_pages, "inodes": filler.leave_inodes}[what]


@needs_mounts
@pytest.mark.root
@pytest.mark.parametrize("short_of", ["bytes", "inodes"])
@pytest.mark.parametrize("where", ["destination", "instructions"])
def test_a_full_disk_leaves_the_old_revision_whole_until_there_is_room(
    host: Host, where: str, short_of: str
) -> None:
    """The application goes on to run, the operator learns how much to free, and then it just works."""
    full = host.base / "full"
    if where == "destination":
        host.dest = full / "dest"
    else:
        host.instructions = full / "instructions"
    old, new = host.request(OLD), host.request(NEW)

    def body() -> int:
        install(old)
        filler = Filler(full)
        refused = refusals(host, new, fill(filler, short_of), ample=300)
        filler.remove()
        install(old)
        assert names_of(OLD) == {name for name in host.tree() if not name.endswith("/")}
        return refused

    # Places of Install's own on a full disk: content, directories, journal, records.
    least = {"destination": {"bytes": 60, "inodes": 60}, "instructions": {"bytes": 3, "inodes": 3}}
    assert with_mounts({full: "size=1m,nr_inodes=400,mode=755"}, body) >= least[where][short_of]


@needs_mounts
@pytest.mark.root
def test_a_first_install_on_a_full_disk_leaves_nothing(host: Host) -> None:
    """A host that could never hold the revision must not be left without any room at all."""
    place = host.base / "small"
    host.dest = place / "dest"
    request = host.request(NEW)

    def body() -> tuple[str, list[str]]:
        with pytest.raises(CommandFailure) as caught:
            install(request)
        return caught.value.error_id, [path.name for path in place.iterdir()]

    assert ("install-disk-full", []) == with_mounts({place: "size=128k"}, body)


@needs_mounts
@pytest.mark.root
def test_one_of_two_full_disks_is_the_one_that_is_named(host: Host) -> None:
    """Numbers of another file system would send the operator to free room where there is plenty."""
    large, small = host.base / "large", host.base / "small"
    appspec = (
        "files: [{source: one, destination: '@BASE@/large'}, {source: two, destination: '@BASE@/small'}]"
    )
    request = host.request({"one/a": "x" * 300_000, "two/b": "x" * 300_000}, appspec)

    def body() -> tuple[str, int]:
        with pytest.raises(CommandFailure) as caught:
            install(request)
        return caught.value.message, len([*large.iterdir(), *small.iterdir()])

    message, left = with_mounts({large: "size=8m", small: "size=256k"}, body)

    assert f"{small}/b" in message
    assert "free are 262144 bytes" in message
    assert left == 0

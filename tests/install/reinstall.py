"""One revision that gives way to another, in all the ways in which files can."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.install import install
from agent.protocol import FileExistsBehavior
from tests.install.children import killed_before
from tests.install.host import FILES

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.install import InstallRequest, InstallSummary
    from tests.install.host import Host
    from tests.install.trees import Found

FIRST: dict[str, Any] = {
    "app/same.txt": "same",
    "app/same-content": "same, with other permissions",
    "app/changed.txt": "one",
    "app/gone.txt": "gone",
    "app/olddir/x": "x",
    "app/link": {"link": "same.txt"},
    "app/becomes-dir": "a file",
    "app/becomes-file/inner/leaf": "leaf",
    "app/becomes-link": "a file",
    "app/setuid": {"content": "s", "mode": 0o4755},
    "app/kept/a": "a",
    "app/kept/b": "b",
}
SECOND: dict[str, Any] = {
    "app/same.txt": "same",
    "app/same-content": "same, with other permissions",
    "app/changed.txt": "two",
    "app/new.txt": "new",
    "app/link": {"link": "changed.txt"},
    "app/becomes-dir/inner": "in a directory",
    "app/becomes-file": "now a file",
    "app/becomes-link": {"link": "new.txt"},
    "app/newdir/deep/leaf": "leaf",
    "app/newdir/hard": {"same_as": "app/new.txt"},
    "app/hard": {"same_as": "app/new.txt"},
    "app/foreign.txt": "overwritten",
    "app/kept/a": "A",
    "app/kept/b": "b",
}
BESIDE: dict[str, Any] = {"app/foreign.txt": {"content": "foreign", "mode": 0o600}, "beside/y": "y"}

_OWNERS = ("1234", "4321") if os.geteuid() == 0 else (str(os.geteuid()),) * 2
_EXCEPT = "except: [same.txt, setuid, link]"
FIRST_APPSPEC = f"""{FILES}
permissions:
  - {{object: '@DEST@/app', type: [file], {_EXCEPT}, mode: 640, owner: {_OWNERS[0]}, acls: ['u:nobody:r']}}
  - {{object: '@DEST@/app', type: [directory], mode: 750, acls: ['d:u:nobody:rwx']}}
"""
SECOND_APPSPEC = f"""{FILES}
permissions:
  - {{object: '@DEST@/app', type: [file], {_EXCEPT}, mode: 604, owner: {_OWNERS[1]}}}
  - {{object: '@DEST@/app', type: [directory], mode: 700, owner: {_OWNERS[1]}, acls: ['u:nobody:rwx']}}
"""


class State(NamedTuple):
    """A host's destination, and what is recorded about it."""

    tree: dict[str, Found]
    records: dict[str, bytes]

    def as_delivered(self) -> State:
        """Without what no two Installs of one revision have in common; the manifest has inodes in it."""
        tree = {name: found.as_delivered() for name, found in self.tree.items()}
        records = {
            name: b"" if name.endswith("-manifest") else content for name, content in self.records.items()
        }
        return State(tree, records)


class Reinstall:
    """A host with the first revision, and the second ready to be installed over it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._first = host.request(FIRST, FIRST_APPSPEC)
        self.second: InstallRequest = host.request(
            SECOND, SECOND_APPSPEC, behavior=FileExistsBehavior.OVERWRITE
        )
        self._nothing = host.request({}, "")
        self.begin()
        self.install()
        self.delivered = self.state().as_delivered()
        self.reset()

    def begin(self) -> State:
        """Afterwards the first revision is installed, beside somebody else's files."""
        install(self._first)
        self.host.write(BESIDE)
        return self.state()

    def install(self, observer: Callable[..., None] = lambda *_: None) -> InstallSummary:
        """Install the second revision."""
        return install(self.second, observer=observer)

    def remove(self) -> InstallSummary:
        """Install a revision without files."""
        return install(self._nothing)

    def reset(self) -> None:
        """Afterwards nothing is deployed, and there is no destination."""
        install(self._nothing)
        shutil.rmtree(self.host.dest)

    def state(self) -> State:
        """What is there now."""
        return State(self.host.everything(), self.host.records())

    def revision(self, before: State) -> str:
        """Which revision is whole now; fails when none is.

        Args:
            before: how the host was with the first revision.
        """
        now = self.state()
        if now == before:
            return "old"
        delivered = now.as_delivered()
        assert delivered == self.delivered, (
            f"new? {differences(self.delivered, delivered)}\nold? {differences(before, now)}"
        )
        return "new"


def differences(expected: State, found: State) -> list[object]:
    """The first names that differ, with both values: the whole may be thousands of lines."""
    wrong: list[object] = []
    for kind in ("tree", "records"):
        was: dict[str, object] = getattr(expected, kind)
        now: dict[str, object] = getattr(found, kind)
        names = sorted(was.keys() | now.keys())
        wrong += [(name, was.get(name), now.get(name)) for name in names if was.get(name) != now.get(name)]
    return wrong[:5]


def moment_of_kill(reinstall: Reinstall, wanted: str) -> int:
    """Number of the last change (wanted "old") before which a kill is undone, or of the first after it."""
    low, high = 0, 4096  # invariant: a kill before change `low` is undone, one before `high` is not
    while high - low > 1:
        middle = (low + high) // 2
        before = reinstall.begin()
        killed_before(middle, reinstall.install)
        reinstall.host.recover()
        if reinstall.revision(before) == "old":
            low = middle
        else:
            high = middle
        reinstall.reset()
    return low if wanted == "old" else high

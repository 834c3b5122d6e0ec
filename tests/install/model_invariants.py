"""What must be so on a host and in its model: always, and when no Install is interrupted.

The numbers are those of the invariants in docs/install-algorithm.md.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.deployments.group_files import GroupFiles
from tests.install.again import times_of_change
from tests.install.model import FILE, TOP, thing_of
from tests.install.trees import everything_about

if TYPE_CHECKING:
    from tests.install.host import Host
    from tests.install.model import Facts, ModelHost, Outcome, Thing
    from tests.install.trees import Found

KEPT = ".kept-"
_HIDDEN = ".install-"


def hold(invariant: str, expected: object, found: object) -> None:
    """This invariant holds."""
    assert expected == found, f"{invariant}: {_difference(expected, found)}"


def _difference(expected: object, found: object) -> object:
    if not (isinstance(expected, dict) and isinstance(found, dict)):
        return f"expected {expected!r}, found {found!r}"
    names = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    return [(name, "expected", expected.get(name), "found", found.get(name)) for name in names[:4]]


class Crash(NamedTuple):
    """An Install that is neither undone nor completed.

    Attributes:
        before, records: everything at the destination, and the records of all groups, as they were before it.
        outcome: what it makes of the host when it is completed.
        is_committed: whether it can only be completed.
        touched: where somebody has done something since.
        beside: what he has put into new directories in whose place there will be a file again, None = nothing any more; and
            what is in directories in whose place he has put a file.
    """

    group: str
    before: dict[str, Found]
    records: dict[str, bytes]
    outcome: Outcome
    is_committed: bool
    touched: set[str]
    beside: dict[str, Thing | None]


class Comparison:
    """Of a host, on which there is nothing yet, and its model."""

    def __init__(self, host: Host, model: ModelHost) -> None:
        self._host = host
        self._model = model
        elsewhere = host.base / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "file").write_text("not to be touched")
        self._elsewhere = everything_about(elsewhere)

    def check_whole(self, *, has_access: bool) -> None:
        """No Install is interrupted, and the host is just what the model says.

        Args:
            has_access: whether somebody may have got access to anything, so that not all names of one file are linked.
        """
        self._check_elsewhere()
        found = self.visible()
        hold(
            "I7", facts_of(self._model.there), {path: thing_of(value).facts for path, value in found.items()}
        )
        hold("I9", set(), self.hidden())
        hold("I9", [], [name for name in self._host.records() if "journal" in name or name.startswith(".")])
        self._check_names(found, has_access=has_access)

    def check_halfway(self, crash: Crash) -> None:
        """What must be so at every moment."""
        self._check_elsewhere()
        visible = self.visible()
        found = {path: thing_of(value).looks for path, value in visible.items()}
        old = {path: thing.looks for path, thing in self._model.there.items()}
        new = {path: thing.looks for path, thing in crash.outcome.there.items()}
        paths = {path for path in {*found, *old, *new} - crash.touched if KEPT not in path}
        halfway = {path for path in paths if found.get(path) not in {old.get(path), new.get(path)}}
        hold("I1", {}, {path: (old.get(path), new.get(path), found.get(path)) for path in halfway})
        phase = self.phase(crash.group)
        if crash.is_committed:
            places = new.keys() - crash.touched
            hold("I3", {path: new[path] for path in places}, {path: found.get(path) for path in places})
        elif phase != "switching" and not crash.touched:
            hold("I2", _unmoved(crash.before), _unmoved(visible))
            if not phase:
                hold("I2", set(), self.hidden())

    def _check_names(self, found: dict[str, Found], *, has_access: bool) -> None:
        """Names are those of one file where the model has it so; not where a link would trust others."""
        bodies: dict[int, set[int]] = {}
        inodes: dict[int, set[int]] = {}
        for path, thing in self._model.there.items():
            if thing.kind == FILE:
                bodies.setdefault(found[path].inode, set()).add(thing.body)
                inodes.setdefault(thing.body, set()).add(found[path].inode)
        hold("I7", [], [inode for inode, several in bodies.items() if len(several) > 1])
        if not has_access:
            hold("I7", [], [body for body, several in inodes.items() if len(several) > 1])

    def _check_elsewhere(self) -> None:
        hold("I4", self._elsewhere, everything_about(self._host.base / "elsewhere"))

    def everything(self) -> dict[str, Found]:
        """All at the destination, as the model spells it."""
        found = self._host.everything()
        return {TOP if name == "." else f"{TOP}/{name}": value for name, value in found.items()}

    def visible(self) -> dict[str, Found]:
        """The same without hidden names."""
        return {name: found for name, found in self.everything().items() if _HIDDEN not in name}

    def hidden(self) -> set[str]:
        """The hidden names, and what is below them."""
        return {name for name in self.everything() if _HIDDEN in name}

    def times(self) -> dict[str, tuple[int, int]]:
        """When what is at the destination has changed for the last time."""
        return times_of_change(self._host.dest) if self._host.dest.exists() else {}

    def files_of(self, group: str) -> GroupFiles:
        """What lies about a group."""
        return GroupFiles(directory=self._host.instructions, group_id=group)

    def is_committed(self, group: str) -> bool:
        """Whether an Install of the group has taken effect, and is not completed."""
        return self.files_of(group).committed_journal.exists()

    def phase(self, group: str) -> str:
        """Of the journal; empty when there is none, or nothing in it yet."""
        journal = self.files_of(group).journal
        return journal.read_text(errors="replace")[18:27].strip() if journal.exists() else ""


def facts_of(there: dict[str, Thing]) -> dict[str, Facts]:
    """Path → all that a host tells of what is there."""
    return {path: thing.facts for path, thing in there.items()}


def _unmoved(found: dict[str, Found]) -> dict[str, Found]:
    """Without what the last steps of an undo put right in directories, in which hidden names are made besides."""
    return {
        path: value._replace(mtime_ns=0, mode=stat.S_IFDIR, uid=0, acls=())
        if stat.S_ISDIR(value.mode)
        else value
        for path, value in found.items()
    }

"""A look at a host: what is left on it that should be gone, and which revision lies there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from chaos.records import RECORDER, WAITING, parent_of, shown_as
from chaos.revision import content_of, digest_of, read_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chaos.checks import Event
    from chaos.host import Host

MARK = "mark of an ongoing deployment"
_QUIET_S = 30.0


class Look:
    """What is found at one host. Finds nothing twice."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: set[str] = set()

    def find_left(self, *tolerated: str) -> list[str]:
        """Wait until all is quiet; what is left then that was not known, but for what begins with one of these."""
        deadline = time.monotonic() + _QUIET_S
        while (left := self._left()) - self._known and time.monotonic() < deadline:
            time.sleep(0.05)
        new = sorted(left - self._known)
        # What is tolerated now must be gone the next time.
        self._known |= {item for item in left if not tolerated or not item.startswith(tolerated)}
        return [f"{item} is left behind" for item in new if not item.startswith(tolerated)]

    def _left(self) -> set[str]:
        state, root = self._host.state, self._host.root
        found = [f"job record {path.name}" for path in state.glob("jobs/*")]
        found += [f"{MARK} {path.name}" for path in root.glob("ongoing-deployment/*")]
        found += ["the throttle file"] if (state / "throttle.json").exists() else []
        daemon = self._host.daemon.pid if self._host.daemon else 0
        # What a killed hook has started is its own affair, as on any host.
        if not self._host.harm.hooks and not self._host.conditions.killed_for_memory():
            named = {pid: shown_as(pid) for pid in self._host.processes() if pid != daemon}
            found += [f"process {pid} {name}" for pid, name in named.items() if not _is_kept(pid, name)]
        return set(found)

    def find_other_than(self, number: int) -> list[str]:
        """The destination holds this revision, byte for byte."""
        found = read_tree(self._host.app) if self._host.app.exists() else {}
        if found == content_of(number):
            return []
        return [
            f"revision {number} has Succeeded, and its files are not there: {_differences(found, [number])}"
        ]

    def find_mixture(self, numbers: Mapping[str, int], events: Iterable[Event]) -> list[str]:
        """The destination holds exactly one revision, byte for byte: that of the last Install that went well.

        Args:
            numbers: of the revision that each deployment was to install.
            events: of all deployments, in order.
        """
        names = {digest_of(content_of(number)): number for number in numbers.values()}
        found = read_tree(self._host.app) if self._host.app.exists() else {}
        number = names.get(digest_of(found), 0) if found else 0
        if found and not number:
            differences = _differences(found, sorted(set(numbers.values())))
            return [f"the destination holds no revision: {len(found)} files, {differences}"]
        allowed = {0}
        for event in events:
            if event.name != "Install":
                continue
            if event.status == "Succeeded":
                allowed = {numbers[event.deployment_id]}
            elif "had been completed" in event.message:
                allowed = allowed | {numbers[event.deployment_id]}
        if number not in allowed:
            return [f"the destination holds revision {number}, and not one of {sorted(allowed)}"]
        return []


def _is_kept(pid: int, name: str) -> bool:
    """Whether this is a worker that waits for the next command for a while, or what records the output for it."""
    return WAITING in name or (RECORDER in name and WAITING in shown_as(parent_of(pid)))


def _differences(found: dict[str, bytes], numbers: list[int]) -> str:
    parts = []
    for number in numbers:
        wanted = content_of(number)
        missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        other = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
        parts.append(
            f"from {number}: missing {len(missing)} {missing[:3]}, extra {len(extra)} {extra[:3]}, "
            f"other {len(other)} {other[:3]}"
        )
    return "; ".join(parts)

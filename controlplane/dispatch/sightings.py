"""When each host was last seen. Kept in memory and written down now and then: idle polls cost no write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.store.hosts import Sighting

if TYPE_CHECKING:
    from collections.abc import Callable


class Sightings:
    """The polls of all hosts since this endpoint started."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, Sighting] = {}
        self._unwritten: set[str] = set()

    def see(self, host: str, agent_version: str | None = None) -> None:
        """The host is here now; without a version the one it gave before stays."""
        if agent_version is None and (before := self._seen.get(host)):
            agent_version = before.agent_version
        self._seen[host] = Sighting(seen_at=self._clock(), agent_version=agent_version)
        self._unwritten.add(host)

    def last_seen_at(self, host: str) -> float | None:
        """When the host was last seen by this process; None when it was not."""
        sighting = self._seen.get(host)
        return None if sighting is None else sighting.seen_at

    def take_unwritten(self) -> dict[str, Sighting]:
        """What changed since the last call."""
        hosts, self._unwritten = self._unwritten, set()
        return {host: self._seen[host] for host in hosts}

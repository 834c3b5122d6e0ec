"""Long polls that wait for a command, without touching the database while they wait."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Wakeups:
    """Open polls by host. Everything happens on the event loop's thread."""

    def __init__(self) -> None:
        self._polls: dict[str, list[asyncio.Event]] = {}
        self.is_closing = False

    @contextmanager
    def poll(self, host: str) -> Iterator[asyncio.Event]:
        """An event that is set when a command may be ready for the host; register before looking."""
        woken = asyncio.Event()
        polls = self._polls.setdefault(host, [])
        polls.append(woken)
        try:
            yield woken
        finally:
            polls.remove(woken)
            if not polls and self._polls.get(host) is polls:
                del self._polls[host]

    def wake(self, hosts: Iterable[str]) -> None:
        """The newest poll of each host looks again.

        Only the newest: an older one may belong to a connection whose other end is gone, and what it
        would be given had to wait for its second delivery.
        """
        for host in hosts:
            if polls := self._polls.get(host):
                polls[-1].set()

    def polling_hosts(self) -> list[str]:
        """The hosts that have a poll open."""
        return list(self._polls)

    def close(self) -> None:
        """Every open poll is answered now, and no later one is held."""
        self.is_closing = True
        for polls in self._polls.values():
            for woken in polls:
                woken.set()

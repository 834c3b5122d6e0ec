"""One transaction of the running endpoint: what it may see and what it leaves to do after the commit."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from controlplane.dispatch.sightings import Sightings
    from controlplane.dispatch.wakeups import Wakeups
    from controlplane.settings import Timing
    from controlplane.store.database import Database

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """Everything one piece of work needs. It is all done, or none of it."""

    session: Session
    now: float
    """Seconds since 1970; the same throughout the transaction."""
    started_at: float
    """When this endpoint started: no host could be seen before."""
    timing: Timing
    sightings: Sightings
    woken: set[str] = field(default_factory=set)
    """Hosts that may have a command ready once this is committed."""


class Transactions:
    """Runs pieces of work one after the other on a thread of their own, off the event loop."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float],
        timing: Timing,
        wakeups: Wakeups,
        sightings: Sightings,
    ) -> None:
        self._database = database
        self._clock = clock
        self._timing = timing
        self._wakeups = wakeups
        self._sightings = sightings
        self._started_at = clock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def run(self, work: Callable[[Transaction], Result]) -> Result:
        """The result of the work, committed to disk; the polls it woke look again after that."""
        loop = asyncio.get_running_loop()
        result, woken = await loop.run_in_executor(self._thread, self._commit, work)
        self._wakeups.wake(woken)
        return result

    def _commit(self, work: Callable[[Transaction], Result]) -> tuple[Result, set[str]]:
        with self._database.transaction() as session:
            transaction = Transaction(
                session=session,
                now=_whole_milliseconds(self._clock()),
                started_at=self._started_at,
                timing=self._timing,
                sightings=self._sightings,
            )
            result = work(transaction)
        return result, transaction.woken

    def close(self) -> None:
        """Waits for the work in hand, then closes the database."""
        self._thread.shutdown(wait=True)
        self._database.close()


def _whole_milliseconds(seconds: float) -> float:
    """Times are told in milliseconds; kept finer, a time that was told would not find its own row again."""
    return math.floor(seconds * 1000) / 1000

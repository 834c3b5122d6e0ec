"""The time by which a service judges our signatures.

A host whose clock is wrong by more than some minutes gets every signed request refused, although
each answer says what time it is there. The usual clients of these services go by that; so do we.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# The services tolerate five minutes or more; less is left to whoever keeps the clock.
_TOLERATED = timedelta(minutes=4)
_POSSIBLE_YEARS = range(2020, 2120)


class ServiceClock:
    """This host's clock, corrected by what the answers of one service say."""

    def __init__(self, on_wrong: Callable[[timedelta], None] = lambda _ahead: None) -> None:
        """`on_wrong` is told how far the service's time is ahead of the host's, each time that this is learned."""
        self._ahead = timedelta()
        self._on_wrong = on_wrong

    def now(self) -> datetime:
        """The time there, in UTC, as far as we know."""
        return datetime.now(timezone.utc) + self._ahead

    def learn(self, date: str | None) -> bool:
        """Afterwards `now` is right. Whether it was wrong: what was signed by it should be signed again.

        Args:
            date: the header `Date` of an answer that has just come.
        """
        try:
            there = parsedate_to_datetime(date or "")
        except ValueError:
            return False
        if there.tzinfo is None:  # `-0000`: UTC, and nothing known of the place
            there = there.replace(tzinfo=timezone.utc)
        # Outside of these years nobody's clock is right, and computing with them fails.
        if there.year not in _POSSIBLE_YEARS or abs(there - self.now()) <= _TOLERATED:
            return False
        self._ahead = there - datetime.now(timezone.utc)
        self._on_wrong(self._ahead)
        return True

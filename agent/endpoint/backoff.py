"""How long to wait after polls that failed. Pure, but for the chance in short pauses."""

from __future__ import annotations

import math
import random

_BASE = 1.2675
_LIMIT = 10
_LONGEST_S = 90
# A connection that was reset or a server that has just gone rarely makes a second request fail, too.
_PAUSES_BEFORE_REPETITIONS_S = (0.25, 0.5, 1.0)


def wait_after_failures(failures: int, *, spent_s: float = 0.0) -> float:
    """Seconds until the next poll after so many failures in a row.

    Grows from 10 s to 90 s at the tenth failure, less the time that the failed poll itself took.
    The curve is that of the existing agents, so that a fleet behaves as the service expects.

    Args:
        failures: at least 1.
        spent_s: how long the last attempt took.
    """
    counted = min(max(failures, 1), _LIMIT)
    planned = math.floor(_BASE**counted * _LONGEST_S / _BASE**_LIMIT)
    return max(0.0, planned - spent_s)


class Setbacks:
    """Polls in a row that came to nothing, and when to poll again after each.

    A request that met a fault on its way is repeated three times within two seconds, and only then
    counts as one failed poll: one broken connection must not keep a command waiting for ten seconds.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._commands_of_others = 0
        self._repetitions = 0
        self._spent_s = 0.0

    def pause_before_repetition(self, spent_s: float) -> float | None:
        """Seconds until the same request is made again; None: it has failed, which `fail` is to be told.

        None also when so much time has gone by that the wait after a failure would be over.

        Args:
            spent_s: how long the attempt took.
        """
        is_last = self._repetitions == len(_PAUSES_BEFORE_REPETITIONS_S)
        if is_last or self._spent_s + spent_s >= wait_after_failures(self._failures + 1):
            return None
        # Hosts whose connections broke together don't come back together.
        spread = random.uniform(0.75, 1.0)  # noqa: S311 - spreads load, hides nothing
        pause_s = _PAUSES_BEFORE_REPETITIONS_S[self._repetitions] * spread
        self._repetitions += 1
        self._spent_s += spent_s + pause_s
        return pause_s

    def fail(self, spent_s: float) -> float:
        """Seconds until the next poll, after one more that has failed; `spent_s` is how long its last attempt took."""
        self._failures += 1
        wait_s = wait_after_failures(self._failures, spent_s=self._spent_s + spent_s)
        self._begin_anew()
        return wait_s

    def throttled(self) -> None:
        """The service has answered, and asked for a pause, which is kept elsewhere and has a curve of its own."""
        self._begin_anew()

    def meet_command_of_another(self) -> float:
        """Seconds until the next poll, after one more that brought another host's command; 0 after the first.

        One may be followed by a command of ours; an endpoint that brings nothing else is asked more and more rarely.
        """
        self._commands_of_others += 1
        self._begin_anew()
        if self._commands_of_others == 1:
            return 0.0
        return wait_after_failures(self._commands_of_others - 1)

    def clear(self) -> None:
        """A poll has been answered as it should be."""
        self._failures = self._commands_of_others = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._repetitions, self._spent_s = 0, 0.0

"""Trying a transfer again for as long as there is hope, and saying what was wrong when there is none left."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import tenacity

from agent.bundle.trouble import ADVICE, ERROR_IDS, Trouble, TryAgain
from agent.errors import CommandFailure
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.bundle.sources import BundleSources

log = get_logger()

_LONGEST_NAP_S = 0.25  # a deployment that was stopped ends as fast
# Time does not help against these: so often they are tried again, and no more.
_MOST = {Trouble.REPLACED: 5, Trouble.CONTRADICTION: 3}


class Perseverance:
    """The attempts at one transfer, from the first to the last.

    What is given up is a transfer that stands still, not one that is slow: every byte further than any
    attempt before renews the patience.

    Args:
        name: what is transferred, for messages.
        way: how it is asked for, as a part of a sentence that begins with a blank; may be empty.
        sources: whose patience counts.
    """

    def __init__(self, name: str, way: Callable[[], str], sources: BundleSources) -> None:
        self._name = name
        self._way = way
        self._sources = sources
        self._patience = sources.patience
        self._clock = sources.clock
        self._began = self._advanced_at = self._clock.monotonic()
        self._furthest = 0
        self._total: int | None = None
        self._size = 0
        self._fruitless = 0  # attempts in a row that did not get further
        self._counts: Counter[Trouble] = Counter()
        self._objects = 0
        self._state: Trouble | None = None
        self._attempts = 0

    def run(self, attempt: Callable[[], None]) -> None:
        """Afterwards an attempt has ended well.

        Raises:
            CommandFailure: hope has come to its end, the deployment was stopped, or what an attempt raises.
        """
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TryAgain),
            stop=self._is_given_up,
            wait=self._wait_s,
            sleep=self._pause,
            before=self._count_attempt,
            before_sleep=self._note_trouble,
            reraise=True,
        )
        try:
            attempts(attempt)
        except TryAgain as error:
            raise self._failure(error) from error
        if self._attempts > 1:
            log.info("bundle_download_completed", attempts=self._attempts, took_s=round(self._elapsed_s(), 1))

    def note_arrived(self, size: int, total: int | None) -> None:
        """Take note of how many bytes are there when an attempt ends."""
        self._size, self._total = size, total
        if size > self._furthest:
            self._furthest, self._fruitless = size, 0
            self._advanced_at = self._clock.monotonic()
        else:
            self._fruitless += 1

    def note_answer(self) -> None:
        """Take note that the server has begun to send what was asked for."""
        if self._state not in {None, Trouble.INTERRUPTED}:
            log.info("bundle_download_resumed", source=self._name, after_s=round(self._elapsed_s(), 1))
            self._state = None

    def note_other_object(self) -> None:
        """Take note that it is another object by now, of which nothing has arrived."""
        self._objects += 1
        if self._objects <= _MOST[Trouble.REPLACED]:  # one that never stays is no progress
            self._furthest = 0

    def check_wanted(self) -> None:
        """Raise CommandFailure once nobody wants the bundle any more."""
        if self._sources.is_cancelled():
            raise CommandFailure(
                "bundle-download-cancelled",
                f"The bundle {self._name} was not downloaded, because the deployment was stopped meanwhile:"
                f" {self._arrived()} had arrived, and are removed again. What is installed is as it was.",
            )

    def _arrived(self) -> str:
        return f"{self._size} bytes" if self._total is None else f"{self._size} of {self._total} bytes"

    def _elapsed_s(self) -> float:
        return self._clock.monotonic() - self._began

    def _left_s(self) -> float:
        return self._advanced_at + self._patience.give_up_after_s - self._clock.monotonic()

    def _count_attempt(self, _state: tenacity.RetryCallState) -> None:
        self._attempts += 1

    def _is_given_up(self, state: tenacity.RetryCallState) -> bool:
        error = _error_of(state)
        self._counts[error.trouble] += 1
        is_too_often = self._counts[error.trouble] >= _MOST.get(error.trouble, 1 << 60)
        return is_too_often or self._left_s() <= 0 or error.wait_s > self._left_s()

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        """Any time up to a bound that doubles while nothing gets better, so that hosts don't come in step."""
        patience, error = self._patience, _error_of(state)
        bound = patience.first_wait_s * 2 ** min(30, max(0, self._fruitless - 1))
        bound = min(bound, patience.longest_wait_s)
        least = bound / 2 if error.trouble is Trouble.THROTTLED else 0.0
        wait_s = max(error.wait_s, tenacity.wait_random(least, bound)(state))
        return max(0.0, min(wait_s, self._left_s()))

    def _pause(self, seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        self.check_wanted()
        while (left := until - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left, _LONGEST_NAP_S))
            self.check_wanted()

    def _note_trouble(self, state: tenacity.RetryCallState) -> None:
        """One line when the trouble becomes another one, not one for each attempt of several minutes."""
        error = _error_of(state)
        if error.trouble is self._state:
            return
        self._state = error.trouble
        log.warning(
            "bundle_download_interrupted",
            source=self._name,
            trouble=error.trouble.value,
            reason=str(error),
            attempt=self._attempts,
            received_bytes=self._size,
            total_bytes=self._total,
            given_up_in_s=round(self._left_s()),
        )

    def _failure(self, error: TryAgain) -> CommandFailure:
        tried = "once" if self._attempts == 1 else f"{self._attempts} times in {self._elapsed_s():.0f} s"
        longer = (
            f" It asks to be left alone for {error.wait_s:.0f} s, and no byte more had come for"
            f" {self._clock.monotonic() - self._advanced_at:.0f} of the {self._patience.give_up_after_s:.0f} s of"
            " download_patience_seconds."
            if error.wait_s > 0
            else ""
        )
        way = "" if error.trouble is Trouble.PROXY else self._way()
        return CommandFailure(
            ERROR_IDS[error.trouble],
            f"The bundle {self._name} could not be downloaded{way}: {error}. It was tried {tried};"
            f" {self._arrived()} had arrived.{longer} {ADVICE[error.trouble]}",
        )


def _error_of(state: tenacity.RetryCallState) -> TryAgain:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, TryAgain)  # noqa: S101 - what `retry_if_exception_type` lets through
    return error

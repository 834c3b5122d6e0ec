"""Asking again until the endpoint has answered."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from agent.errors import EndpointUnavailable, IdentityError, RequestRefused, Throttled

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.endpoint.throttle import SharedThrottle
    from agent.errors import AgentError

    T = TypeVar("T")

_FIRST_WAIT_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPatience:
    """How long a request is repeated.

    Attributes:
        give_up_after_s: after that long the last error is raised; None = never.
        longest_wait_s: between two tries; the waits grow to that, at random.
        final_types: error types of refusals that are not going to pass. Any other refusal may be about
            us at this moment, such as our credentials or our clock, or come from something in between.
    """

    give_up_after_s: float | None
    longest_wait_s: float
    final_types: frozenset[str]


# Somebody waits for what comes of the answer.
FOR_QUESTIONS = RequestPatience(
    give_up_after_s=300, longest_wait_s=10, final_types=frozenset({"ClientException", "ValidationException"})
)
# Nobody else can give a report, and without it the service waits for an hour. ClientException is its one
# word for a command that is unknown or over.
FOR_REPORTS = RequestPatience(
    give_up_after_s=None, longest_wait_s=300, final_types=frozenset({"ClientException"})
)


def is_passing(error: BaseException, patience: RequestPatience) -> bool:
    """Whether the same request may be answered later on."""
    if isinstance(error, RequestRefused):
        return error.error_type not in patience.final_types
    return isinstance(error, (EndpointUnavailable, Throttled, IdentityError))


def ask_until_answered(
    call: Callable[[], T],
    *,
    patience: RequestPatience,
    throttle: SharedThrottle,
    on_trouble: Callable[[AgentError], None],
) -> T:
    """What `call` returns, however often it has to be tried.

    Args:
        call: one request.
        patience: for how long.
        throttle: a pause of the whole agent that is kept, and extended when the endpoint throttles.
        on_trouble: called with the error of the first attempt that failed, to say so once.

    Raises:
        EndpointError, IdentityError: one that will not pass, or the last one when time is up.
    """

    def attempt() -> T:
        time.sleep(throttle.wait_s())
        try:
            answer = call()
        except Throttled:
            throttle.extend()
            raise
        throttle.clear()
        return answer

    try:
        return attempt()
    except (EndpointUnavailable, Throttled, IdentityError, RequestRefused) as error:
        if not is_passing(error, patience):
            raise
        on_trouble(error)
    return _ask_again(attempt, patience)


def _ask_again(attempt: Callable[[], T], patience: RequestPatience) -> T:
    # Imported here: it costs more than a whole command, and most commands never need it.
    import tenacity  # noqa: PLC0415

    end_s = patience.give_up_after_s
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: is_passing(error, patience)),
        wait=tenacity.wait_random_exponential(multiplier=_FIRST_WAIT_S, max=patience.longest_wait_s),
        stop=tenacity.stop_never if end_s is None else tenacity.stop_after_delay(end_s),
        reraise=True,
    )
    return retrying(attempt)

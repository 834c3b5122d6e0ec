"""Asking again until the endpoint has answered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from agent.errors import EndpointUnavailable, IdentityError, RequestRefused, Throttled

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.endpoint.throttle import SharedThrottle

    T = TypeVar("T")

_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 10.0

# Refusals that are about us at this moment, not about the request.
_PASSING_REFUSALS = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "RequestTimeTooSkewedException",
        "UnrecognizedClientException",
    }
)


def is_passing(error: BaseException) -> bool:
    """Whether the same request may be answered later on."""
    if isinstance(error, RequestRefused):
        return error.error_type in _PASSING_REFUSALS
    return isinstance(error, (EndpointUnavailable, Throttled, IdentityError))


def ask_until_answered(
    call: Callable[[], T],
    *,
    give_up_after_s: float,
    throttle: SharedThrottle,
    on_trouble: Callable[[BaseException], None],
) -> T:
    """What `call` returns, however often it has to be tried.

    Args:
        call: one request.
        give_up_after_s: after that long its last error is raised.
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
        if not is_passing(error):
            raise
        on_trouble(error)
    return _ask_again(attempt, give_up_after_s)


def _ask_again(attempt: Callable[[], T], give_up_after_s: float) -> T:
    # Imported here: it costs more than a whole command, and most commands never need it.
    import tenacity  # noqa: PLC0415

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_passing),
        wait=tenacity.wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
        stop=tenacity.stop_after_delay(give_up_after_s),
        reraise=True,
    )
    return retrying(attempt)

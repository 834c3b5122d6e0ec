"""Long lists in pages: a token says after which key the next page begins."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from controlplane.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.api.public.call import PublicCall

PAGE_SIZE = 100


def after_key(call: PublicCall) -> str | None:
    """The key the caller's nextToken stands for; None for the first page."""
    token = call.parameters.get("nextToken")
    if not token:
        return None
    try:
        operation, separator, key = base64.urlsafe_b64decode(token).decode().partition(":")
    except (binascii.Error, ValueError):
        operation, separator, key = "", "", ""
    if operation != call.operation or not separator:
        raise ServiceError(
            "InvalidNextTokenException",
            f"nextToken was not given out by {call.operation}; call it without one to begin again.",
        )
    return key


def token_after(call: PublicCall, key: str) -> str:
    """The token for the page that begins after this key."""
    return base64.urlsafe_b64encode(f"{call.operation}:{key}".encode()).decode()


def page_of_names(call: PublicCall, names: Iterable[str]) -> tuple[list[str], str | None]:
    """The page of the sorted names that the call asks for, and the token of the next page if there is one."""
    after = after_key(call)
    remaining = sorted(name for name in names if after is None or name > after)
    page = remaining[:PAGE_SIZE]
    return page, token_after(call, page[-1]) if len(remaining) > PAGE_SIZE else None

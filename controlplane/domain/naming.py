"""What instances and tags may be called."""

from __future__ import annotations

import re
from typing import Final

MAX_TAGS: Final = 10
"""Tags per instance."""
_INSTANCE_NAME: Final = re.compile(r"(?!mi-|i-)[A-Za-z0-9+=,.@_-]{1,100}")


def explain_bad_instance_name(name: str) -> str | None:
    """Why a name can't be registered; None when it can."""
    if _INSTANCE_NAME.fullmatch(name) is not None:
        return None
    return f"{name!r} can't be an instance name: 1 to 100 of A-Z a-z 0-9 + = , . @ _ -, not beginning with i- or mi-."


def explain_bad_tag(key: str, value: str) -> str | None:
    """Why this can't be a tag; None when it can."""
    if not key or len(key) > 128:
        return "a key has 1 to 128 characters"
    if len(value) > 256:
        return "a value has at most 256 characters"
    return None

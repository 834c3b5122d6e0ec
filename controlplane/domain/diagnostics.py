"""What a host says about the end of a command, and what the API calls it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final


class LifecycleErrorCode(str, Enum):
    """How an event ended, in the API's words."""

    SUCCESS = "Success"
    SCRIPT_MISSING = "ScriptMissing"
    SCRIPT_NOT_EXECUTABLE = "ScriptNotExecutable"
    SCRIPT_TIMED_OUT = "ScriptTimedOut"
    SCRIPT_FAILED = "ScriptFailed"
    UNKNOWN_ERROR = "UnknownError"


HOST_ERROR_CODES: Final = {
    0: LifecycleErrorCode.SUCCESS,
    1: LifecycleErrorCode.SCRIPT_MISSING,
    2: LifecycleErrorCode.SCRIPT_NOT_EXECUTABLE,
    3: LifecycleErrorCode.SCRIPT_TIMED_OUT,
    4: LifecycleErrorCode.SCRIPT_FAILED,
    5: LifecycleErrorCode.UNKNOWN_ERROR,
    # The script itself ended; what it left open kept the event from ending well.
    6: LifecycleErrorCode.SCRIPT_FAILED,
    # The agent was restarted and the work was lost: no statement about a script.
    7: LifecycleErrorCode.UNKNOWN_ERROR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostics:
    """The result of one event as the API shows it."""

    error_code: LifecycleErrorCode
    script_name: str = ""
    message: str = ""
    log_tail: str = ""


def parse_completion(payload: str | None, *, succeeded: bool) -> Diagnostics:
    """The diagnostics in the JSON payload of a completion.

    A completion whose payload is absent or unreadable is still a completion: its status counts, and the
    message tells that the rest could not be read.
    """
    fallback = LifecycleErrorCode.SUCCESS if succeeded else LifecycleErrorCode.UNKNOWN_ERROR
    if payload is None:
        return Diagnostics(error_code=fallback)
    try:
        document = json.loads(payload)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return Diagnostics(
            error_code=fallback,
            message=f"The host reported diagnostics that are no JSON object: {payload[:500]}",
        )
    return Diagnostics(
        error_code=HOST_ERROR_CODES.get(_whole_number(document.get("error_code")), fallback),
        script_name=_text(document.get("script_name")),
        message=_text(document.get("message")),
        log_tail=_text(document.get("log")),
    )


def parse_is_noop(payload: str | None) -> bool | None:
    """Whether the host says there is nothing to run; None when the acknowledgement does not tell."""
    try:
        document = json.loads(payload or "null")
    except ValueError:
        return None
    claim = document.get("IsCommandNoop") if isinstance(document, dict) else None
    return claim if isinstance(claim, bool) else None


def _whole_number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _text(value: Any) -> str:
    """Halves of surrogate pairs, which agents make of cut output, are replaced: they can't be stored."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""

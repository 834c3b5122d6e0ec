"""How a command ended → the payload of its completion report. Pure.

The service takes 8,192 characters. Whether it counts them before or after encoding is not
documented, so both the characters and the bytes of the payload stay within.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from agent.protocol import ErrorCode

if TYPE_CHECKING:
    from agent.errors import CommandFailure

MAX_PAYLOAD = 8192
MAX_LOG_CHARACTERS = 2048
MAX_SCRIPT_NAME = 1024
# What stays free for the log, and how much of a message that is too long stays of its end: there the remedy
# stands, the last words of a script, and the id.
_LEAST_LOG = 1000
_LAST_OF_MESSAGE = 2500
NOOP_MESSAGE = "CompletedNoopCommand"

_ELLIPSIS = "…"
_NO_CHARACTER = re.compile("[\ud800-\udfff]")


def success_payload(message: str = "", *, log: str = "") -> str:
    """Payload of a command that succeeded.

    Args:
        message: what the service is told after `Succeeded: `, such as `BundleSource=downloaded`.
        log: tail of what the hooks printed.
    """
    return _payload(ErrorCode.SUCCEEDED, "", f"Succeeded: {message}", log)


def failure_payload(failure: CommandFailure) -> str:
    """Payload of a command that failed."""
    message = failure.message
    if failure.code is ErrorCode.FAILED_AFTER_RESTART and not message.startswith("Failed: "):
        message = f"Failed: {message}"
    return _payload(failure.code, failure.script_name, message, failure.log)


def _payload(code: ErrorCode, script_name: str, message: str, log: str) -> str:
    """The JSON text; where it would be too long, the log gives way first, but for its end, then the message's middle."""
    room = MAX_PAYLOAD - len(_render(code, "", "", ""))
    script_name = _head(_encodable(script_name), MAX_SCRIPT_NAME)
    room -= _length(script_name)
    log = _encodable(log)[-MAX_LOG_CHARACTERS:]
    message = _without_middle(_encodable(message), room - min(_LEAST_LOG, _length(log)))
    room -= _length(message)
    log = _tail(log, room)
    return _render(code, script_name, message, log)


def _render(code: ErrorCode, script_name: str, message: str, log: str) -> str:
    facts = {"error_code": int(code), "script_name": script_name, "message": message, "log": log}
    return json.dumps(facts, ensure_ascii=False)


def _encodable(text: str) -> str:
    """The text with a mark for each byte that was no UTF-8 where it came from."""
    return _NO_CHARACTER.sub("\ufffd", text)


def _length(text: str) -> int:
    """Bytes that the text takes inside the payload, without its quotes."""
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def _without_middle(text: str, room: int) -> str:
    """The text, or as much of its beginning and its end as there is room for."""
    if _length(text) <= room:
        return text
    end = _tail(text, _LAST_OF_MESSAGE)
    return _head(text[: len(text) - len(end)], room - _length(end)) + end


def _head(text: str, room: int) -> str:
    """The text, or as much of its beginning as there is room for."""
    if _length(text) <= room:
        return text
    room -= _length(_ELLIPSIS)
    return text[: _fitting(text, room)] + _ELLIPSIS if room >= 0 else ""


def _tail(text: str, room: int) -> str:
    """As much of the end of the text as there is room for; never half a character."""
    if _length(text) <= room:
        return text
    kept = _fitting(text[::-1], room)
    return text[len(text) - kept :]


def _fitting(text: str, room: int) -> int:
    """How many characters from the start of the text fit."""
    for number, character in enumerate(text):
        room -= _length(character)
        if room < 0:
            return number
    return len(text)

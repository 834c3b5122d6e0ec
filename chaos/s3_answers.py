"""How an S3 server may answer a download, the bad ways as well. Pure: nothing is sent here."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chaos.faults import S3Fault

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_BLOCK = 512
_SLOW_S = 1.5
# Of an object uploaded in parts; says nothing about the content.
_OTHER_ETAG = '"0123456789abcdef0123456789abcdef-2"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object as the server has it, with the headers that it answers with."""

    content: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent.

    Attributes:
        sent: how many bytes of the body go out before the connection is given up; None = all, and it is kept.
        is_reset: whether it is reset then, and not closed.
        pause_s: what sending the body takes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent: int | None = None
    is_reset: bool = False
    pause_s: float = 0.0


def parse_range(header: str) -> tuple[int, int | None] | None:
    """First and last byte that a Range header asks for; None when it asks for no such thing."""
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        return None
    return int(found[1]), int(found[2]) if found[2] else None


def refusal(fault: S3Fault) -> Answer:
    """What says that the server is out of order, or busy."""
    status, code = (503, "SlowDown") if fault is S3Fault.SLOW_DOWN else (500, "InternalError")
    return _error(status, code, {})


def harmed(fault: S3Fault, real: Answer, chance: random.Random) -> Answer:
    """The server's real answer, with something wrong with its body or headers."""
    match fault:
        case S3Fault.BODY_RESET | S3Fault.BODY_ENDED:
            sent = chance.choice(_cuts(real.body, chance))
            return replace(real, sent=sent, is_reset=fault is S3Fault.BODY_RESET)
        case S3Fault.SLOW:
            return replace(real, pause_s=_SLOW_S)
        case S3Fault.OTHER_ETAG:
            return replace(real, headers={**real.headers, "ETag": _OTHER_ETAG})
        case S3Fault.WRONG_BYTES:
            return replace(real, body=_flipped(real.body, chance))
        case _:
            return real


def answer_range(  # noqa: PLR0911 - one for each kind of answer
    fault: S3Fault, stored: Stored, wanted: tuple[int, int | None], chance: random.Random
) -> Answer:
    """An answer to a request for this range, which begins within the object."""
    total = len(stored.content)
    start = wanted[0]
    end = total if wanted[1] is None else min(total, wanted[1] + 1)
    right = _part(stored, 206, start, end)
    match fault:
        case S3Fault.RANGE_206:
            return right
        case S3Fault.RANGE_200:
            return _part(stored, 200, start, end)
        case S3Fault.RANGE_IGNORED:
            return Answer(status=200, headers=stored.headers, body=stored.content)
        case S3Fault.RANGE_OTHER_OFFSET:
            return _part(stored, 206, chance.choice([0, start - 1, min(start + 1, total - 1)]), end)
        case S3Fault.RANGE_OTHER_TOTAL:
            other = {"Content-Range": f"bytes {start}-{end - 1}/{total + chance.choice([-1, 1, 512])}"}
            return replace(right, headers={**right.headers, **other})
        case S3Fault.RANGE_REFUSED:
            return _error(416, "InvalidRange", {"Content-Range": f"bytes */{total}"})
        case S3Fault.RANGE_SHORTER:
            return replace(right, body=right.body[: chance.randrange(len(right.body))])
        case S3Fault.RANGE_LONGER:
            return replace(right, body=right.body + b"\0" * chance.choice([1, _BLOCK, 10 * _BLOCK]))
        case S3Fault.RANGE_OTHER_ETAG:
            other = {"ETag": _OTHER_ETAG}
            return replace(right, headers={**right.headers, **other}, body=_flipped(right.body, chance))
        case _:
            raise ValueError(f"{fault} is not about ranges")


def _part(stored: Stored, status: int, start: int, end: int) -> Answer:
    place = {"Content-Range": f"bytes {start}-{end - 1}/{len(stored.content)}"}
    return Answer(status=status, headers={**stored.headers, **place}, body=stored.content[start:end])


def _error(status: int, code: str, headers: Mapping[str, str]) -> Answer:
    text = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>As the campaign wants it.</Message></Error>"
    )
    return Answer(status=status, headers={"Content-Type": "application/xml", **headers}, body=text.encode())


def _cuts(body: bytes, chance: random.Random) -> list[int]:
    """A random place, and the places between the members of a tar: what comes then looks whole."""
    heads = [
        place
        for place in range(_BLOCK, len(body) - _BLOCK, _BLOCK)
        if body[place + 257 : place + 262] == b"ustar"
    ]
    return [chance.randrange(max(1, len(body))), chance.choice(heads or [0]) or len(body) // 2]


def _flipped(body: bytes, chance: random.Random) -> bytes:
    if not body:
        return body
    place = chance.randrange(len(body))
    return body[:place] + bytes([body[place] ^ 0x5A]) + body[place + 1 :]

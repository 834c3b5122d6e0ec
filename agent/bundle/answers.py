"""What one answer says about itself: which bytes of which object it holds; pure.

Servers differ: some answer a range with the whole, some with the range and status 200, some with
another range than they were asked for. So nothing is concluded from what was asked, nor from the status.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONTENT_RANGE = re.compile(r"bytes[ =](\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)
_MOST_WAIT_S = 1e6
_OK, _PARTIAL_CONTENT = 200, 206


class AnswerSenseless(ValueError):
    """An answer contradicts itself; the message is a clause for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The bytes that one answer's body holds.

    Attributes:
        start: offset of the first one.
        end: offset after the last one; None = as many as come.
        total: size of the whole object; None = not said.
    """

    start: int
    end: int | None
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """What tells one object from another of the same name.

    Attributes:
        etag: as the server sent it, quotes included; None = it sent none.
        version: of the object; None = not said.
    """

    etag: str | None
    version: str | None

    @property
    def can_resume(self) -> bool:
        """Whether a later answer can be known to be about the very same bytes."""
        return self.etag is not None and not self.etag.startswith("W/")

    def are_of(self, other: Validators) -> bool:
        """Whether an answer with these is about the same object as one with `other`."""
        return self.etag == other.etag and (
            None in {self.version, other.version} or self.version == other.version
        )


def part_of(status: int, headers: Mapping[str, str]) -> Part:
    """Which bytes this answer holds.

    Args:
        status: of the answer, which is no refusal.
        headers: of the answer; names in any case.

    Raises:
        AnswerSenseless: it doesn't say, or says two things.
    """
    if status not in {_OK, _PARTIAL_CONTENT}:
        raise AnswerSenseless(f"it has the status {status}, which no answer with a bundle has")
    length = _length(headers)
    content_range = headers.get("Content-Range")
    if content_range is not None:
        return _range(content_range, length)
    if status == _PARTIAL_CONTENT:
        raise AnswerSenseless("it is a part of the bundle (206), and does not say which one")
    return Part(start=0, end=length, total=length)


def validators_of(headers: Mapping[str, str]) -> Validators:
    """What this answer says about which object it is."""
    return Validators(etag=headers.get("ETag") or None, version=headers.get("x-amz-version-id") or None)


def retry_after_s(header: str | None) -> float:
    """Seconds that a server wants to be left alone; 0 where it says none, or a date."""
    text = (header or "").strip()
    return min(float(text), _MOST_WAIT_S) if text.isascii() and text.isdigit() else 0.0


def _range(content_range: str, length: int | None) -> Part:
    found = _CONTENT_RANGE.fullmatch(content_range.strip())
    if found is None:
        raise AnswerSenseless(f"it has the Content-Range {content_range[:100]!r}, which can't be read")
    start, end = int(found[1]), int(found[2]) + 1
    total = None if found[3] == "*" else int(found[3])
    if start >= end or (total is not None and end > total):
        raise AnswerSenseless(f"it has the impossible Content-Range {content_range[:100]!r}")
    if length is not None and length != end - start:
        raise AnswerSenseless(
            f"it announces {length} bytes, and its Content-Range {content_range[:100]!r} {end - start}"
        )
    return Part(start=start, end=end, total=total)


def _length(headers: Mapping[str, str]) -> int | None:
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        return None
    text = headers.get("Content-Length")
    if text is None:
        return None
    lengths = {length.strip() for length in text.split(",")}
    length = lengths.pop()
    if lengths or not (length.isascii() and length.isdigit()):
        raise AnswerSenseless(f"it has the Content-Length {text[:100]!r}")
    return int(length)

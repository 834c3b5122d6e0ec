"""Digests of a bundle while it arrives, and whether they are those that its server has announced."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import queue
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.threads import ThreadTask

if TYPE_CHECKING:
    from collections.abc import Mapping

_MD5_ETAG = re.compile(r'"?([0-9a-fA-F]{32})"?')
# With any other encryption (aws:kms, aws:kms:dsse, aws:fsx, a customer's key) the ETag is no digest of the content.
_CUSTOMER_KEY = "x-amz-server-side-encryption-customer-algorithm"
_OF_CONTENT = frozenset(["", "AES256"])
_DIGEST_BYTES = {"sha256": 32, "sha1": 20, "crc32": 4}  # those that are cheap here
_PIECES_AHEAD = 8
# Up to that much takes no time worth a thread.
_WITHOUT_THREAD_BYTES = 4 * 2**20
# A thread begins within a millisecond; on a host that is as busy as that, it would help nobody.
_BEGIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A digest that a server has announced.

    Attributes:
        algorithm: `md5`, `sha1`, `sha256` or `crc32`.
        digest: in lower-case hexadecimal.
        header: where it was announced.
        is_certain: it can't be anything else; False = it has the form of a digest, and is one with most servers.
    """

    algorithm: str
    digest: str
    header: str
    is_certain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """What has arrived is not what was announced."""

    announced: Announced
    found: str

    def __str__(self) -> str:
        announced = self.announced
        return f"its {announced.algorithm} is {self.found}, and {announced.header} says {announced.digest}"


def s3_digests(headers: Mapping[str, str], *, is_etag_certain: bool) -> tuple[Announced, ...]:
    """The digests of the whole object that an answer of S3 announces.

    Args:
        headers: of an answer; names in any case.
        is_etag_certain: the server is known to make ETags of this form with MD5 only.
    """
    announced = []
    etag = _MD5_ETAG.fullmatch(headers.get("ETag", ""))
    encryption = headers.get("x-amz-server-side-encryption", "")
    if etag is not None and encryption in _OF_CONTENT and _CUSTOMER_KEY not in headers:
        announced.append(
            Announced(algorithm="md5", digest=etag[1].lower(), header="its ETag", is_certain=is_etag_certain)
        )
    # Of a range, and of an object that was put together from parts, these are something else.
    if "Content-Range" in headers or headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return tuple(announced)
    for algorithm, size in _DIGEST_BYTES.items():
        header = f"x-amz-checksum-{algorithm}"
        digest = _decoded(headers.get(header, ""))
        if len(digest) == size:
            announced.append(Announced(algorithm=algorithm, digest=digest.hex(), header=header))
    return tuple(announced)


class _Digest(Protocol):
    def update(self, piece: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class DigestThread:
    """Digests of all pieces in order; of a large bundle in a thread, so that they take no time of whoever receives.

    Close it: only then has the thread ended for sure.
    """

    def __init__(self, announced: tuple[Announced, ...]) -> None:
        self._announced = announced
        self._digests: dict[str, _Digest] = {"sha256": hashlib.sha256()}
        for each in announced:
            if each.algorithm not in self._digests and (digest := _new(each.algorithm)) is not None:
                self._digests[each.algorithm] = digest
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_PIECES_AHEAD)
        self._task: ThreadTask | None = None
        self._size_bytes = 0
        self._without_thread_bytes: float = _WITHOUT_THREAD_BYTES
        self._error: BaseException | None = None

    def update(self, piece: bytes) -> None:
        """Take one more piece.

        Raises:
            BaseException: whatever the thread has met with an earlier one, such as MemoryError.
        """
        if self._error is not None:
            raise self._error
        self._size_bytes += len(piece)
        if self._task is None and self._size_bytes > self._without_thread_bytes:
            self._start()
        if self._task is None:
            self._take(piece)
        else:
            self._pieces.put(piece)

    def close(self) -> None:
        """Afterwards all pieces are in the digests, and no thread is left. More may come all the same."""
        if self._task is not None:
            self._pieces.put(None)
            self._task.wait()
            self._task = None

    def sha256(self) -> str:
        """Of all pieces so far, in hexadecimal."""
        self._finish()
        return self._digests["sha256"].hexdigest()

    def mismatches(self) -> list[Mismatch]:
        """Each announced digest that is not that of all pieces so far."""
        self._finish()
        return [
            Mismatch(announced=each, found=found)
            for each in self._announced
            if each.algorithm in self._digests
            and (found := self._digests[each.algorithm].hexdigest()) != each.digest
        ]

    def _start(self) -> None:
        """Start a thread, if that is possible; else do without, and don't ask again."""
        task = ThreadTask(self._work)
        task.start()
        if task.has_begun(_BEGIN_S):
            self._task = task
        else:
            self._without_thread_bytes = math.inf

    def _take(self, piece: bytes) -> None:
        for digest in self._digests.values():
            digest.update(piece)

    def _finish(self) -> None:
        self.close()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while (piece := self._pieces.get()) is not None:
                self._take(piece)
        except BaseException as error:  # noqa: BLE001 - raised again where the digests are wanted
            self._error = error
            # Whoever hands pieces on waits for room in the queue.
            while self._pieces.get() is not None:
                pass


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, piece: bytes, /) -> None:
        self._value = zlib.crc32(piece, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def _new(algorithm: str) -> _Digest | None:
    """None where this host forbids the algorithm (FIPS)."""
    if algorithm == "crc32":
        return _Crc32()
    try:
        return hashlib.new(algorithm, usedforsecurity=False)
    except ValueError:
        return None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""

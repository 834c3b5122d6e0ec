"""Chunks made by a thread of their own, one step ahead of whoever takes them."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

from agent.threads import ThreadTask

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_CHUNKS_AHEAD = 2
# A thread begins within a millisecond; on a host that is as busy as that, it would help nobody.
_BEGIN_S = 1.0


def read_ahead(chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
    """These chunks, in order, made by a thread before they are asked for; an exception comes where they had it.

    Decompressing lets go of the interpreter lock, so it takes no time of the one who writes files
    as long as a second core is idle. Where no thread can be had, nothing is made ahead. Close the
    iterator: only then has the thread ended for sure.
    """
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(_CHUNKS_AHEAD)
    is_stopped = False

    def make() -> None:
        last: BaseException | None = None
        try:
            for chunk in chunks:
                ready.put(chunk)
                if is_stopped:
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the chunks are taken
            last = error
        ready.put(last)

    task = ThreadTask(make)
    task.start()
    if not task.has_begun(_BEGIN_S):
        yield from chunks
        return
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        is_stopped = True
        # It may be waiting to put a chunk, until which it does not see that it should stop.
        while not task.wait(0.01):
            while not ready.empty():
                ready.get_nowait()

"""Chunks made by a thread of their own, one step ahead of whoever takes them."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_CHUNKS_AHEAD = 2


def read_ahead(chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
    """The same chunks, in order, and then the same exception if there is one.

    Decompressing lets go of the interpreter lock, so it takes no time of the one who writes files
    as long as a second core is idle. Close the iterator: only then has the thread ended for sure.
    """
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(_CHUNKS_AHEAD)
    stopped = threading.Event()

    def make() -> None:
        last: BaseException | None = None
        try:
            for chunk in chunks:
                ready.put(chunk)
                if stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the chunks are taken
            last = error
        ready.put(last)

    thread = threading.Thread(target=make, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        _join(thread, ready)


def _join(thread: threading.Thread, ready: queue.Queue[bytes | BaseException | None]) -> None:
    """Make room until the thread, which may be waiting to put a chunk, has seen that it should stop."""
    while thread.is_alive():
        while not ready.empty():
            ready.get_nowait()
        thread.join(0.01)

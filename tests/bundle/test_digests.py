"""The thread that computes digests while a bundle arrives: what it meets is met by whoever hands it the pieces."""

from __future__ import annotations

import hashlib
import threading
from typing import Any, cast

import pytest

from agent.bundle.digests import DigestThread

LARGE = 5 * 2**20


def test_a_small_bundle_needs_no_thread() -> None:
    """Where memory is short, Python may wait for ever for a thread that has died before its first step."""
    before = threading.active_count()
    digests = DigestThread(())
    digests.update(b"a small bundle")
    assert before == threading.active_count()
    assert hashlib.sha256(b"a small bundle").hexdigest() == digests.sha256()


@pytest.mark.parametrize("sizes", [(1, LARGE, 1), (LARGE,), (2**20,) * 7])
def test_a_large_bundle_has_the_same_digest_in_however_many_pieces_it_comes(sizes: tuple[int, ...]) -> None:
    """The first of them may be computed elsewhere than the rest."""
    digests = DigestThread(())
    for size in sizes:
        digests.update(bytes(size))
    assert hashlib.sha256(bytes(sum(sizes))).hexdigest() == digests.sha256()


def hand_on(digests: DigestThread, pieces: int) -> None:
    """More than there is room for, if nobody takes them."""
    for _ in range(pieces):
        digests.update(b"x")


@pytest.mark.timeout(20)
def test_a_thread_that_has_failed_holds_up_nobody() -> None:
    """Without memory it fails at any moment; a download that waits for it would hold up its group for ever."""
    digests = DigestThread(())
    digests.update(bytes(LARGE))
    digests.update(cast("bytes", cast("Any", "no bytes")))  # what no digest takes
    with pytest.raises(TypeError):
        hand_on(digests, 100)
    with pytest.raises(TypeError):
        digests.sha256()
    digests.close()

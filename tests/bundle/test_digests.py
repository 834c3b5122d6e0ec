"""The thread that computes digests while a bundle arrives: what it meets is met by whoever hands it the pieces."""

from __future__ import annotations

import hashlib
from typing import Any, cast

import pytest

from agent.bundle.digests import DigestThread
from agent.threads import ThreadTask
from tests.bundle.threads import thread_count

LARGE = 5 * 2**20


def test_a_small_bundle_needs_no_thread() -> None:
    """Most bundles are small, and starting a thread takes longer than their digests."""
    before = thread_count()
    digests = DigestThread(())
    digests.update(b"a small bundle")
    assert thread_count() <= before
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


def test_where_no_thread_can_be_had_the_digest_is_computed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes longer, and comes to the same."""
    monkeypatch.setattr(ThreadTask, "start", lambda _task: None)
    digests = DigestThread(())
    for size in (LARGE, 1, LARGE):
        digests.update(bytes(size))
    assert hashlib.sha256(bytes(2 * LARGE + 1)).hexdigest() == digests.sha256()

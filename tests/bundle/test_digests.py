"""The thread that computes digests while a bundle arrives: what it meets is met by whoever hands it the pieces."""

from __future__ import annotations

from typing import Any, cast

import pytest

from agent.bundle.digests import DigestThread


def hand_on(digests: DigestThread, pieces: int) -> None:
    """More than there is room for, if nobody takes them."""
    for _ in range(pieces):
        digests.update(b"x")


@pytest.mark.timeout(20)
def test_a_thread_that_has_failed_holds_up_nobody() -> None:
    """Without memory it fails at any moment; a download that waits for it would hold up its group for ever."""
    digests = DigestThread(())
    digests.update(cast("bytes", cast("Any", "no bytes")))  # what no digest takes
    with pytest.raises(TypeError):
        hand_on(digests, 100)
    with pytest.raises(TypeError):
        digests.sha256()
    digests.close()

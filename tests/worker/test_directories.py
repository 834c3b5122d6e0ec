"""What a command says when it can't keep its files."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from agent.errors import CommandFailure
from agent.worker.directories import keeping_in
from agent.worker.record import no_record

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "mounted read-only, for root as well: make it writable again"),
        (errno.ENOSPC, "Free some space there, or inodes"),
        (errno.EACCES, f"Let the agent's user (uid {os.geteuid()}) write there"),
        (errno.EMFILE, "raise LimitNOFILE of its service, and deploy again"),
    ],
)
def test_each_reason_has_its_own_advice(tmp_path: Path, number: int, advice: str) -> None:
    """A read-only disk has nothing to do with permissions, and nothing gets better by freeing space."""
    assert advice in no_record(OSError(number, os.strerror(number)), tmp_path).message
    with pytest.raises(CommandFailure) as caught, keeping_in(tmp_path):
        raise OSError(number, os.strerror(number))
    assert "deployment-directory-unwritable" == caught.value.error_id
    assert str(tmp_path) in caught.value.message
    assert advice in caught.value.message

"""A deployment group's directory: which names it may have, and whose turn it is to work in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from agent.errors import CommandFailure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def check_group_id(group_id: str, *, tracking_name: str) -> None:
    """Refuse a group whose directory would be one of the agent's own.

    Raises:
        CommandFailure: it would.
    """
    if group_id in {"deployment-instructions", "deployment-logs", tracking_name}:
        raise CommandFailure(
            "group-id-reserved",
            f"The deployment group id {group_id} is the name of a directory that the agent uses itself. "
            "Give the group another id.",
        )


@contextlib.contextmanager
def group_lock(group: Path) -> Iterator[None]:
    """Within the block nobody else, worker or `agentctl deploy`, works on this group.

    The lock lies on the directory itself and goes with its holder, however that ends.

    Raises:
        OSError: the directory can't be made.
    """
    group.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

"""A deployment group's directory: which names it may have, and whose turn it is to work in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.files import lock_holder, open_lock, take_lock

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


class GroupBusy(Exception):
    """Another process works on the deployment group.

    Attributes:
        holder: pid of whoever has taken the lock; None when the kernel does not tell.
    """

    def __init__(self, holder: int | None) -> None:
        super().__init__(holder)
        self.holder = holder


def group_lock_file(group: Path) -> Path:
    """What lies beside the group's directory, in which there is nothing but deployments."""
    return group.with_name(f".{group.name}.lock")


@contextlib.contextmanager
def group_lock(group: Path) -> Iterator[None]:
    """Within the block nobody else, worker or `agentctl deploy`, works on this group.

    The lock lies on a file beside the directory, see `open_lock`, and goes with its holder, however that ends.

    Raises:
        OSError: the directory can't be made.
    """
    group.mkdir(parents=True, exist_ok=True)
    descriptor = open_lock(group_lock_file(group))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def group_lock_at_once(group: Path) -> Iterator[None]:
    """Within the block nobody else works on this group, as within `group_lock`; whoever does is not waited for.

    Raises:
        GroupBusy: somebody has it.
        OSError: the directory can't be made.
    """
    group.mkdir(parents=True, exist_ok=True)
    descriptor = take_lock(group_lock_file(group))
    if descriptor is None:
        raise GroupBusy(lock_holder(group_lock_file(group)))
    try:
        yield
    finally:
        os.close(descriptor)

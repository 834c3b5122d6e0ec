"""A deployment group's directory: which names it may have, and whose turn it is to work in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.files import lock_holder

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


@contextlib.contextmanager
def group_lock(group: Path) -> Iterator[None]:
    """Within the block nobody else, worker or `agentctl deploy`, works on this group.

    The lock lies on the directory itself and goes with its holder, however that ends.

    Raises:
        OSError: the directory can't be made.
    """
    descriptor = _opened(group)
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
    descriptor = _opened(group)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GroupBusy(lock_holder(os.fstat(descriptor))) from None
        yield
    finally:
        os.close(descriptor)


def group_holder(group: Path) -> int | None:
    """Pid of whoever has taken the group's lock, see `lock_holder`; None when nobody has, or nobody knows.

    Raises:
        OSError: this user may not look.
    """
    try:
        status = os.stat(group)
    except FileNotFoundError:
        return None
    return lock_holder(status)


def _opened(group: Path) -> int:
    group.mkdir(parents=True, exist_ok=True)
    return os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

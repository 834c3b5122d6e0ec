"""How a bundle that can't be used is reported: the sentences that several modules need."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from agent.errors import CommandFailure

if TYPE_CHECKING:
    from pathlib import Path

_NO_SPACE = frozenset([errno.ENOSPC, errno.EDQUOT])
_FEW_INODES = 100_000  # which a large revision may take


def printable(name: bytes) -> str:
    """A member's name in quotes, as it can stand in a message whatever bytes it is made of."""
    text = name.decode("utf-8", "backslashreplace")
    return f"'{''.join(char if char.isprintable() else ascii(char)[1:-1] for char in text)}'"


def corrupt(bundle: Path, what: str) -> CommandFailure:
    """The bundle is damaged, or isn't what it is said to be; `what` is a clause without full stop."""
    return CommandFailure(
        "bundle-corrupt",
        f"The bundle {bundle} can't be unpacked: {what}. Build and upload the revision again.",
    )


def content_mismatch(name: str, way: str, mismatch: str, *, is_same: bool) -> CommandFailure:
    """What was downloaded, twice by now, isn't what its server has announced.

    `way` is empty, or begins with a blank and names the proxy; `mismatch` is a clause.
    """
    times = (
        "Two downloads brought the same bytes, so the object itself is damaged in the store, or its server says"
        " something wrong of it: upload the bundle again."
        if is_same
        else "Two downloads brought different bytes, so something damages them on their way: check proxies and the"
        " network, and deploy again."
    )
    return CommandFailure(
        "bundle-content-mismatch",
        f"The bundle {name} was downloaded{way}, and is not what was announced: {mismatch}. {times}",
    )


def outside(name: bytes, why: str) -> CommandFailure:
    """A member would be written, or would reach, outside of the deployment archive."""
    return CommandFailure(
        "archive-entry-outside",
        f"The bundle's member {printable(name)} {why}. Such a member could overwrite any file of this"
        " host, so nothing of the bundle was unpacked. Build the bundle without it.",
    )


def disk_full(what: Path | str, needed: str, free: str) -> CommandFailure:
    """Not enough room for `what`; `needed` and `free` say how much, with unit and verb."""
    return CommandFailure(
        "bundle-disk-full",
        f"There is not enough room for {what}: {needed} needed, {free} free."
        " Free some, or lower max_revisions, and deploy again.",
    )


def too_large(limit: int, size: int) -> CommandFailure:
    """The bundle unpacks to `size` bytes at least, and `limit` is allowed."""
    return CommandFailure(
        "archive-too-large",
        f"The bundle unpacks to {size} bytes or more, and archive_max_extraction_size of this host is {limit} bytes."
        " Make the revision smaller, or raise the limit.",
    )


def not_written(path: Path, error: OSError) -> CommandFailure:
    """The operating system refused to read or write below `path`."""
    if error.errno in _NO_SPACE:
        room = os.statvfs(path.parent)
        free_bytes, free_inodes = room.f_bavail * room.f_frsize, room.f_favail
        # The system has one error for both, and what was written is removed by now.
        may_be_inodes = room.f_files > 0 and free_inodes < _FEW_INODES
        ran_out = "its space or its inodes ran out" if may_be_inodes else "the disk became full"
        advice = (
            "Free some more of what is short (`du -x`, `du --inodes -x`)"
            if may_be_inodes
            else "Free some more"
        )
        return CommandFailure(
            "bundle-disk-full",
            f"There is not enough room for {path}: {ran_out} while it was written ({error.strerror})."
            f" Now that it is removed again, {free_bytes} bytes and {free_inodes} inodes are free."
            f" {advice}, and deploy again.",
        )
    at = f" at {printable(os.fsencode(error.filename))}" if isinstance(error.filename, str | bytes) else ""
    return CommandFailure(
        "archive-write-failed",
        f"{path} can't be read or written: {error.strerror or error}{at}. Look at its owner and mode, and at the kernel log.",
    )

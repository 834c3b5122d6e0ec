"""Whether a file that an Install has given other attributes is still that one, and as it was left, when that is undone."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from agent.listings import counts_seconds

if TYPE_CHECKING:
    import os

    from agent.install.journal.entries import Adjustment

_COARSEST_NS = 2_000_000_000  # FAT counts every other second


def is_same_holder(status: os.stat_result, was: Adjustment) -> bool:
    """Whether this can be the file that was adjusted: no owner is changed in place, and no setuid or setgid bit.

    One that somebody else has put there may have got the number of one that has been removed, and must get neither.
    """
    bits = stat.S_ISUID | stat.S_ISGID
    is_alike = status.st_uid == was.uid and status.st_mode & bits == was.mode & bits
    return is_alike and stat.S_ISREG(status.st_mode)


def has_content(status: os.stat_result, was: Adjustment) -> bool:
    """Whether nobody has written to this file since, as far as size and time tell: it has the old one, or the new."""
    if status.st_size != was.size:
        return False
    coarse_ns = _COARSEST_NS if counts_seconds(status.st_mtime_ns) else 1
    return any(abs(status.st_mtime_ns - time_ns) < coarse_ns for time_ns in (was.mtime_ns, was.new_mtime_ns))

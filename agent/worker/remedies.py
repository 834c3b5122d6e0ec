"""What to do where the system does not let us keep a file."""

from __future__ import annotations

import errno
import os


def remedy_for(error: OSError, where: str, *, otherwise: str) -> str:
    """What the operator is to do so that files can be kept there, as the beginning of a sentence.

    Args:
        error: what the system said.
        where: path of the file or directory.
        otherwise: the remedy for a reason that is not known here.
    """
    if error.errno == errno.EROFS:
        return "Its file system is mounted read-only, for root as well: make it writable again"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"Free some space there, or inodes (`df -h {where}; df -i {where}`)"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"Let the agent's user (uid {os.geteuid()}) write there"
    if error.errno == errno.EMFILE:
        return "The agent may open too few files: raise LimitNOFILE of its service"
    if error.errno == errno.ENFILE:
        return "All files that this host can have open are open: find out which process has them (`lsof`), or raise fs.file-max"
    return otherwise

"""Which links on the way to a directory are followed.

A link decides where root writes. So it counts only if whoever could have made it, or put it there, could as well
write to where it leads: it is root's, or the agent's user's, or belongs to the owner of the directory that it leads
to; and nobody but these can replace it, or a directory that it lies in. The kernel (`protected_symlinks`) and systemd
(the flag `CHASE_SAFE`) have rules of the same kind for temporary files.
"""

from __future__ import annotations

import fnmatch
import grp
import os
import pwd
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.install.posix.acl import ACCESS, place_acl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


class Changer(NamedTuple):
    """Somebody besides root and the agent's user who can change what lies in a directory.

    Attributes:
        uid: that user; None = more than one.
        why: how it comes, as a clause.
    """

    uid: int | None
    why: str


class LinkRule:
    """Tells whether a link is followed.

    Args:
        trusted: numbers of root, and of the user whom the agent runs as.
        followed: patterns (as of `fnmatch`) of paths of links that are followed whoever has made them.
    """

    def __init__(self, trusted: frozenset[int], followed: Sequence[str] = ()) -> None:
        self._trusted = trusted
        self._followed = tuple(followed)

    def why_not(
        self, link: bytes, status: os.stat_result, end: os.stat_result, changers: Iterable[Changer]
    ) -> str:
        """Why a link is not followed, as a clause; empty when it is.

        Args:
            link: its path, without links above it.
            status: of the link.
            end: of the directory that it leads to.
            changers: who can put something else in its place.
        """
        path = os.fsdecode(link)
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in self._followed):
            return ""
        if status.st_uid not in self._trusted and status.st_uid != end.st_uid:
            return f"{path} belongs to {user_name(status.st_uid)}, and what it leads to belongs to {user_name(end.st_uid)}"
        for changer in changers:
            if changer.uid is None or changer.uid != end.st_uid:
                return f"{changer.why}, and what the link leads to belongs to {user_name(end.st_uid)}"
        return ""

    def changers(
        self, directory: bytes, dir_fd: int, status: os.stat_result, entry: os.stat_result
    ) -> Iterator[Changer]:
        """Who can replace something in a directory.

        Args:
            directory: its path.
            dir_fd: a descriptor of it.
            status: of the directory.
            entry: of what lies in it.
        """
        where, mode = os.fsdecode(directory), status.st_mode
        if status.st_uid not in self._trusted:
            yield Changer(status.st_uid, f"the directory {where} belongs to {user_name(status.st_uid)}")
        if not mode & (stat.S_IWGRP | stat.S_IWOTH):
            return
        if mode & stat.S_ISVTX and (entry.st_uid in self._trusted or not stat.S_ISLNK(entry.st_mode)):
            # With the sticky bit, only its owner can move it away. Links of others are not followed there, as the
            # kernel does not: whoever made one first may have meant others to meet it.
            if entry.st_uid not in self._trusted:
                yield Changer(entry.st_uid, f"a directory in {where} belongs to {user_name(entry.st_uid)}")
            return
        if mode & stat.S_IWOTH:
            yield Changer(None, f"every user may write to the directory {where}")
        elif place_acl(dir_fd, ACCESS) is not None:
            # The bits of the group are the mask of all that the list lets in.
            yield Changer(None, f"an access control list lets others write to the directory {where}")
        elif status.st_gid != 0:
            group, uid = _group(status.st_gid)
            if uid not in self._trusted:
                yield Changer(uid, f"the group {group} may write to the directory {where}")


def link_rule(records: Path, followed: Sequence[str] = ()) -> LinkRule:
    """The rule for an agent.

    Args:
        records: the directory where it keeps what it knows of its Installs, which belongs to the user it runs as.
        followed: as for `LinkRule`.
    """
    try:
        owner = os.stat(records).st_uid
    except OSError:
        owner = os.geteuid()
    return LinkRule(frozenset({0, owner}), followed)


def user_name(uid: int) -> str:
    """The user's name, in words where there is none."""
    if uid == 0:
        return "root"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def _group(gid: int) -> tuple[str, int | None]:
    """The group's name; and the one user who is in it, if it is the group that is made for each user."""
    try:
        found = grp.getgrgid(gid)
        user = pwd.getpwnam(found.gr_name)
    except KeyError:
        return str(gid), None
    is_private = user.pw_gid == gid and set(found.gr_mem) <= {found.gr_name}
    return found.gr_name, user.pw_uid if is_private else None

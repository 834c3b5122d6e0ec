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
from agent.user_names import user_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


class Changer(NamedTuple):
    """Somebody besides root and the agent's user who can change what lies in a directory.

    Attributes:
        who: tells them apart.
        uid: that user; None = more than one.
        why: how it comes, as a clause.
    """

    who: str
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
        if self._is_followed(link):
            return ""
        path = os.fsdecode(link)
        if status.st_uid not in self._trusted and status.st_uid != end.st_uid:
            return f"{path} belongs to {user_name(status.st_uid)}, and what it leads to belongs to {user_name(end.st_uid)}"
        for changer in changers:
            if changer.uid is None or changer.uid != end.st_uid:
                return f"{changer.why}, and what the link leads to belongs to {user_name(end.st_uid)}"
        return ""

    def why_brought(self, directory: bytes, status: os.stat_result, changers: Iterable[Changer]) -> str:
        """Why somebody who may not write to a directory may have put it where it is, as a clause; empty when nobody may.

        The rule on links would not let him choose it by a link, either.

        Args:
            directory: its path, without links.
            status: of the directory.
            changers: who can put something else in its place.
        """
        if self._is_followed(directory):
            return ""
        for changer in changers:
            if changer.uid is None or changer.uid != status.st_uid:
                return f"{changer.why}, and what is there belongs to {user_name(status.st_uid)}"
        return ""

    def _is_followed(self, path: bytes) -> bool:
        return any(fnmatch.fnmatchcase(os.fsdecode(path), pattern) for pattern in self._followed)

    def changers(
        self, directory: bytes, dir_fd: int, status: os.stat_result, entry: os.stat_result
    ) -> list[Changer]:
        """Who can put something else in the place of what lies in a directory.

        Args:
            directory: its path.
            dir_fd: a descriptor of it.
            status: of the directory.
            entry: of what lies in it.
        """
        found = self.writers(directory, dir_fd, status)
        if not status.st_mode & stat.S_ISVTX or not found:
            return found
        # With the sticky bit, only its owner and that of the directory can move it away.
        owners = [writer for writer in found if writer.uid == status.st_uid]
        if entry.st_uid in self._trusted:
            return owners
        if stat.S_ISLNK(entry.st_mode):
            return found  # whoever made it first may have meant others to meet it; the kernel does not follow it, either
        where, owner = os.fsdecode(directory), user_name(entry.st_uid)
        return [
            *owners,
            Changer(f"user {entry.st_uid}", entry.st_uid, f"what lies in {where} belongs to {owner}"),
        ]

    def writers(self, directory: bytes, dir_fd: int, status: os.stat_result) -> list[Changer]:
        """Who can write to a directory at all.

        Args:
            directory: its path.
            dir_fd: a descriptor of it.
            status: of the directory.
        """
        where, found = os.fsdecode(directory), []
        if status.st_uid not in self._trusted:
            why = f"the directory {where} belongs to {user_name(status.st_uid)}"
            found.append(Changer(f"user {status.st_uid}", status.st_uid, why))
        if status.st_mode & stat.S_IWOTH:
            found.append(Changer("all", None, f"every user may write to the directory {where}"))
        elif status.st_mode & stat.S_IWGRP:
            # The bits of the group are the mask of all that a list lets in.
            if place_acl(dir_fd, ACCESS) is not None:
                why = f"an access control list lets others write to the directory {where}"
                found.append(Changer(f"list of {where}", None, why))
            else:
                group, uid = _group(status.st_gid)
                if uid not in self._trusted:
                    who = f"group {status.st_gid}" if uid is None else f"user {uid}"
                    found.append(Changer(who, uid, f"the group {group} may write to the directory {where}"))
        return found


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


def _group(gid: int) -> tuple[str, int | None]:
    """The group's name; and the one user who is in it, if it is the group that is made for each user."""
    try:
        found = grp.getgrgid(gid)
    except KeyError:
        return str(gid), None
    try:
        user = pwd.getpwnam(found.gr_name)
    except KeyError:
        return found.gr_name, None
    is_private = user.pw_gid == gid and set(found.gr_mem) <= {found.gr_name}
    return found.gr_name, user.pw_uid if is_private else None

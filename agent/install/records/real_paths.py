"""Where the directories of the last Install are now, and whose links lead there."""

from __future__ import annotations

import errno
import os
import pwd
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.install.records.manifest import is_in_state
from agent.logs import get_logger

if TYPE_CHECKING:
    from pathlib import Path

log = get_logger()

_MOST_LINKS = 40
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""Errors that say that there is nothing at a path; others say that nobody knows."""


class RealPaths:
    """Real paths of directories, each component looked at once.

    A link among the components that are not ours is followed: it was there when Install wrote
    below it. Where Install created a directory itself and a link stands now, the link is followed
    if the administrator of this host made it: who else swapped it would choose what we delete.

    Args:
        created: the directories that Install created, all of them before any is looked at, → the state
            that each was in then, empty when that is not known.
        links: knows whose links are followed.

    Attributes:
        swapped: real paths of those where a link stands by now that is not followed, → why not.
        followed: the same of those that are followed, → the directory that they lead to.
        untouched: real paths of those that are still in that state, → the state.
    """

    def __init__(self, created: dict[bytes, bytes], links: TrustedLinks) -> None:
        self._known: dict[bytes, bytes | None] = {b"/": b"/", b"": b"/"}
        self._created = created
        self._links = links
        self._moved: set[bytes] = set()
        self.swapped: dict[bytes, str] = {}
        self.followed: dict[bytes, bytes] = {}
        self.untouched: dict[bytes, bytes] = {}

    def of(self, path: bytes) -> bytes | None:
        """Real path of a directory; None when it is none any more.

        Raises:
            OSError: that can't be told: a file server does not answer, or a disk has an error.
        """
        if path in self._known:
            return self._known[path]
        real = self._look(path)
        self._known[path] = real
        return real

    def is_moved(self, path: bytes) -> bool:
        """Whether it is behind a link that stands where Install created a directory; to be asked after `of`."""
        return path in self._moved

    def _look(self, path: bytes) -> bytes | None:
        parent_path, _slash, name = path.rpartition(b"/")
        parent = self.of(parent_path)
        if parent is None:
            return None
        real = parent.rstrip(b"/") + b"/" + name
        state = self._created.get(path)
        try:
            status = os.lstat(real)
            if stat.S_ISLNK(status.st_mode):
                return self._behind_link(path, real, is_created=state is not None)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            return None
        if not stat.S_ISDIR(status.st_mode):
            if state is not None:
                log.warning("created_directory_is_gone", path=os.fsdecode(path), is_link=False)
            return None
        if parent_path in self._moved:
            self._moved.add(path)
        if state and is_in_state(status, state):
            self.untouched[real] = state
        return real

    def _behind_link(self, path: bytes, link: bytes, *, is_created: bool) -> bytes | None:
        if not is_created:
            real = os.path.realpath(link)
            return real if stat.S_ISDIR(os.lstat(real).st_mode) else None
        end = self._links.end_of(link)
        if end.directory is None:
            self.swapped[link] = end.why_not
            log.warning(
                "created_directory_is_gone", path=os.fsdecode(path), is_link=True, not_followed=end.why_not
            )
            return None
        log.info("created_directory_moved", path=os.fsdecode(path), now=os.fsdecode(end.directory))
        self.followed[link] = end.directory
        self._moved.add(path)
        return end.directory


class LinkEnd(NamedTuple):
    """Where a link leads.

    Attributes:
        directory: real path of the directory; None when the link is not to be followed.
        why_not: the reason for that, to go on after "because".
    """

    directory: bytes | None
    why_not: str = ""


class TrustedLinks:
    """Tells which links only the administrator of this host can have made, and can change.

    Args:
        users: whose links these are, by number.
    """

    def __init__(self, users: frozenset[int]) -> None:
        self._users = users
        self._others_may_change: dict[bytes, str] = {}

    def end_of(self, link: bytes) -> LinkEnd:
        """The directory that it leads to, if every link on the way there is such a one.

        Args:
            link: without links, but for the last component.
        """
        place, _slash, name = link.rpartition(b"/")
        place, ahead, links = place or b"/", [name], 0
        while ahead:
            name = ahead.pop()
            if name == b"..":
                place = place.rpartition(b"/")[0] or b"/"
            if name in {b"", b".", b".."}:
                continue
            path = place.rstrip(b"/") + b"/" + name
            try:
                status = os.lstat(path)
                if stat.S_ISLNK(status.st_mode):
                    links += 1
                    why_not = self._why_not(path, place, status.st_uid, links)
                    if why_not:
                        return LinkEnd(None, why_not)
                    target = os.readlink(path)
                    place = b"/" if target.startswith(b"/") else place
                    ahead += reversed(target.split(b"/"))
                    continue
            except FileNotFoundError:
                return LinkEnd(None, f"{os.fsdecode(path)} is not there (is its file system mounted?)")
            except OSError as error:
                return LinkEnd(None, f"{os.fsdecode(path)} can't be looked at: {error.strerror}")
            if not stat.S_ISDIR(status.st_mode):
                return LinkEnd(None, f"{os.fsdecode(path)} is no directory")
            place = path
        return LinkEnd(place)

    def _why_not(self, link: bytes, directory: bytes, uid: int, count: int) -> str:
        if count > _MOST_LINKS:
            return "it leads from link to link without end"
        if uid not in self._users:
            return f"{os.fsdecode(link)} belongs to {_user_name(uid)}, and not to root"
        return self._changed_by_others(directory)

    def _changed_by_others(self, directory: bytes) -> str:
        """Why others can put something else in the place of what is in this directory; empty when they can't."""
        known = self._others_may_change.get(directory)
        if known is None:
            known = self._who_changes(directory)
            if not known and directory != b"/":
                known = self._changed_by_others(directory.rpartition(b"/")[0] or b"/")
            self._others_may_change[directory] = known
        return known

    def _who_changes(self, directory: bytes) -> str:
        status = os.lstat(directory)
        if status.st_uid not in self._users:
            return f"the directory {os.fsdecode(directory)} belongs to {_user_name(status.st_uid)}, and not to root"
        # With the sticky bit, what is root's in there only root can move away.
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
            return f"others than root may write to the directory {os.fsdecode(directory)}"
        return ""


def trusted_links(records: Path) -> TrustedLinks:
    """Those of root, and of the user whom the agent runs as.

    Args:
        records: the directory where the agent keeps what it knows of its Installs, which is that user's.
    """
    try:
        owner = os.stat(records).st_uid
    except OSError:
        owner = os.geteuid()
    return TrustedLinks(frozenset({0, owner}))


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"

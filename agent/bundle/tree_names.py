"""Names below the root of a tree under construction, which lead nowhere else.

Every name is resolved by us, one component after the other, through directory descriptors that are
opened without following links. So a member can't leave the tree through a link that an earlier
member made, nor through one that another user puts in the way meanwhile.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from agent.bundle.failures import outside, printable
from agent.errors import CommandFailure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_OPEN_DIRECTORIES = 128
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeNames:
    """Resolves names, and gives them to what is new. The last one that gets a name has it, except that a directory stays.

    Each method raises CommandFailure `archive-entry-outside` where a link is on the way, and `archive-members-conflict`
    where something is a directory and is to be something else, too.

    Args:
        root: of the tree.
        on_directory: called with the path of each directory that is made because something lies in it.
    """

    def __init__(self, root: Path, on_directory: Callable[[bytes], None]) -> None:
        self._root = os.open(root, _DIRECTORY)
        self._open: dict[bytes, int] = {}
        self._on_directory = on_directory

    def close(self) -> None:
        """Let go of all directories."""
        for descriptor in self._open.values():
            os.close(descriptor)
        os.close(self._root)

    def _place(self, name: bytes) -> tuple[int, bytes]:
        """Descriptor of the directory of `name`, made if need be, and the last component."""
        parent, _, base = name.rpartition(b"/")
        descriptor = self._open.get(parent)
        return (self.directory(parent) if descriptor is None else descriptor), base

    def directory(self, path: bytes) -> int:
        """A descriptor of this directory, good until the next call."""
        if not path:
            return self._root
        known = path
        while known and known not in self._open:
            known = known.rpartition(b"/")[0]
        descriptor = self._open.get(known, self._root)
        at = len(known)
        while at < len(path):
            start = at + 1 if at else 0
            at = path.find(b"/", start)
            at = len(path) if at < 0 else at
            descriptor = self._enter(descriptor, path[start:at], path[:at])
        return descriptor

    def new_file(self, name: bytes, mode: int) -> int:
        """A new, empty file with this name, open for writing."""
        parent, base = self._place(name)
        try:
            return os.open(base, _NEW_FILE, mode, dir_fd=parent)
        except FileExistsError:
            self._make_way(parent, base, name)
            return os.open(base, _NEW_FILE, mode, dir_fd=parent)

    def make_directory(self, name: bytes, mode: int) -> None:
        """Make a directory, unless there is one."""
        parent, base = self._place(name)
        try:
            os.mkdir(base, mode, dir_fd=parent)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode):
                return
            os.unlink(base, dir_fd=parent)
            os.mkdir(base, mode, dir_fd=parent)

    def make_symlink(self, name: bytes, target: bytes) -> tuple[int, bytes]:
        """Make a symbolic link; descriptor of its directory, and its last component."""
        parent, base = self._place(name)
        try:
            os.symlink(target, base, dir_fd=parent)
        except FileExistsError:
            self._make_way(parent, base, name)
            os.symlink(target, base, dir_fd=parent)
        return parent, base

    def make_hard_link(self, name: bytes, target: bytes) -> os.stat_result:
        """Give what has the name `target` another one; its status.

        Raises:
            FileNotFoundError: nothing has it.
        """
        # Both every time: placing the second may close the descriptor of the first.
        source, source_base = self._place(target)
        os.stat(source_base, dir_fd=source, follow_symlinks=False)
        parent, base = self._place(name)
        keep = os.dup(parent)
        try:
            source, source_base = self._place(target)
            try:
                os.link(source_base, base, src_dir_fd=source, dst_dir_fd=keep, follow_symlinks=False)
            except FileExistsError:
                self._make_way(keep, base, name)
                os.link(source_base, base, src_dir_fd=source, dst_dir_fd=keep, follow_symlinks=False)
        finally:
            os.close(keep)
        parent, base = self._place(name)
        return os.stat(base, dir_fd=parent, follow_symlinks=False)

    def _enter(self, parent: int, base: bytes, path: bytes) -> int:
        try:
            descriptor = os.open(base, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            os.mkdir(base, 0o755, dir_fd=parent)
            self._on_directory(path)
            descriptor = os.open(base, _DIRECTORY, dir_fd=parent)
        except OSError as error:
            raise self._not_a_directory(parent, base, path, error) from error
        if len(self._open) >= _OPEN_DIRECTORIES:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[path] = descriptor
        return descriptor

    def _not_a_directory(self, parent: int, base: bytes, path: bytes, error: OSError) -> Exception:
        mode = os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            return outside(path + b"/", "leads through a symbolic link that an earlier member made")
        return error if stat.S_ISDIR(mode) else _conflict(path)

    def _make_way(self, parent: int, base: bytes, name: bytes) -> None:
        """The last member of a name wins, but never by writing through the earlier one."""
        try:
            os.unlink(base, dir_fd=parent)
        except IsADirectoryError as error:
            raise _conflict(name) from error


def _conflict(name: bytes) -> CommandFailure:
    return CommandFailure(
        "archive-members-conflict",
        f"The bundle holds {printable(name)} twice: once as a directory and once as something else."
        " Build the bundle so that each name has one meaning.",
    )

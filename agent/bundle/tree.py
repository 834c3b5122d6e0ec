"""A directory tree under construction that nothing can be written outside of: see `TreeNames`."""

from __future__ import annotations

import os
import stat
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from agent.archive_index import DIRECTORY, LINK, UNKNOWN, IndexWriter
from agent.bundle.failures import outside, printable, too_large
from agent.bundle.tree_names import TreeNames
from agent.errors import CommandFailure
from agent.files import write_all
from agent.listings import DIGEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from agent.bundle.limits import ArchiveLimits

KEEP_OWNER = -1
_MAX_DEPTH = 200  # even removing a deeper tree fails in many programs
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


class MemberAttributes(NamedTuple):
    """What is set on an entry beside its content (a named tuple: one is made for each of 50,000 files).

    `mode` holds permission and special bits; `uid` and `gid` may be KEEP_OWNER.
    """

    mode: int
    mtime_ns: int
    uid: int = KEEP_OWNER
    gid: int = KEEP_OWNER


def clean_name(raw: bytes) -> bytes:
    """A member's name relative to the tree, without `.` and doubled slashes; empty = the tree itself.

    Raises:
        CommandFailure: `archive-entry-outside`, the name is absolute or has a `..`;
            `archive-entry-unsupported`, it has too many components.
    """
    if raw.startswith(b"/"):
        raise outside(raw, "has an absolute name")
    if (
        len(raw) < 2 * _MAX_DEPTH
        and b"./" not in raw
        and b"//" not in raw
        and b"\0" not in raw
        and not raw.endswith((b"/", b"."))
    ):
        return raw
    if b"\0" in raw:
        raise outside(raw, "has a zero byte in its name")
    parts = [part for part in raw.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise outside(raw, "has '..' in its name")
    if len(parts) > _MAX_DEPTH:
        raise CommandFailure(
            "archive-entry-unsupported",
            f"The bundle's member {printable(raw[:80])}... lies {len(parts)} directories deep; {_MAX_DEPTH} is what"
            " programs can be expected to cope with. Build the bundle without it.",
        )
    return b"/".join(parts)


class Tree:
    """Puts files, links and directories below `root`, which must exist and be ours alone.

    A context: the umask of this process is 0 within it, so that no file needs a chmod of its own.
    Names must come from `clean_name` and must not be empty. A name that comes again replaces what
    it was before, except that a directory stays one.
    """

    def __init__(self, root: Path, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._directories: dict[bytes, MemberAttributes] = {}
        self._bytes = 0
        self._umask = 0
        self._index = IndexWriter()
        self._names = TreeNames(root, lambda path: self._index.note(path, DIRECTORY))

    def __enter__(self) -> Tree:
        self._umask = os.umask(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.umask(self._umask)
        self._names.close()

    def add_file(
        self, name: bytes, attributes: MemberAttributes, size: int, content: Iterable[bytes | memoryview]
    ) -> None:
        """Make a new file with this content, of `size` bytes."""
        self._check_file(name, attributes, size)
        descriptor = self._names.new_file(name, attributes.mode & ~_SPECIAL_BITS)
        digest = blake2b(digest_size=DIGEST_BYTES)
        try:
            for piece in content:
                written = os.write(descriptor, piece)
                if written < len(piece):
                    write_all(descriptor, memoryview(piece)[written:])
                digest.update(piece)
            self._complete(descriptor, attributes)
            self._index.add(name, os.fstat(descriptor), digest.hexdigest().encode())
        finally:
            os.close(descriptor)

    def add_sparse_file(
        self,
        name: bytes,
        attributes: MemberAttributes,
        size: int,
        content: Iterable[tuple[int, Iterable[bytes | memoryview]]],
    ) -> None:
        """Make a new file of `size` bytes with holes: these pieces at these offsets, and nothing else.

        Holes count as unpacked bytes: whatever reads the file meets them as zeros.
        """
        self._check_file(name, attributes, size)
        descriptor = self._names.new_file(name, attributes.mode & ~_SPECIAL_BITS)
        try:
            for offset, pieces in content:
                os.lseek(descriptor, offset, os.SEEK_SET)
                for piece in pieces:
                    write_all(descriptor, piece)
            os.ftruncate(descriptor, size)
            self._complete(descriptor, attributes)
            self._index.note(name, UNKNOWN)
        finally:
            os.close(descriptor)

    def _check_file(self, name: bytes, attributes: MemberAttributes, size: int) -> None:
        self.count(size)
        mode = attributes.mode
        if mode & (stat.S_ISUID | stat.S_ISGID) and self._limits.reject_unsafe_permissions:
            raise CommandFailure(
                "archive-unsafe-permissions",
                f"The bundle's file {printable(name)} has mode {mode:04o}, which is setuid or setgid, and"
                " reject_unsafe_permissions_in_bundle is set on this host. Build the bundle without these bits.",
            )

    def _complete(self, descriptor: int, attributes: MemberAttributes) -> None:
        self._own(descriptor, attributes)
        if attributes.mode & _SPECIAL_BITS:  # last, since writing and chown take them away
            os.fchmod(descriptor, attributes.mode)
        os.utime(descriptor, ns=(attributes.mtime_ns, attributes.mtime_ns))

    def add_directory(self, name: bytes, attributes: MemberAttributes) -> None:
        """Make a directory; its attributes are set by `finish`, when nothing changes them."""
        if name not in self._directories:
            # Nobody gets in who won't be let in later; ourselves always, even if we aren't root.
            self._names.make_directory(name, attributes.mode & 0o777 | 0o700)
            self._index.note(name, DIRECTORY)
        self._directories[name] = attributes

    def add_symlink(self, name: bytes, target: bytes, attributes: MemberAttributes) -> None:
        """Make a symbolic link to `target`, wherever that points."""
        if self._limits.reject_symlinks:
            raise CommandFailure(
                "archive-symlink-refused",
                f"The bundle's member {printable(name)} is a symbolic link, and reject_symlinks_in_bundle is"
                " set on this host. Build the bundle without symbolic links.",
            )
        if not target or b"\0" in target:
            raise CommandFailure(
                "archive-entry-unsupported",
                f"The bundle's member {printable(name)} is a symbolic link that leads nowhere: {printable(target)}."
                " Build the bundle without it.",
            )
        parent, base = self._names.make_symlink(name, target)
        self._index.note(name, LINK)
        if attributes.uid != KEEP_OWNER or attributes.gid != KEEP_OWNER:
            os.chown(base, attributes.uid, attributes.gid, dir_fd=parent, follow_symlinks=False)
        times = (attributes.mtime_ns, attributes.mtime_ns)
        os.utime(base, ns=times, dir_fd=parent, follow_symlinks=False)

    def add_hard_link(self, name: bytes, target: bytes) -> None:
        """Give the file of an earlier member, `target`, another name.

        Raises:
            CommandFailure: `archive-link-target-missing`; there is no such member before this one.
        """
        if name == target:
            return
        try:
            status = self._names.make_hard_link(name, target)
            is_link = stat.S_ISLNK(status.st_mode)
            self._index.note(name, LINK if is_link else UNKNOWN)
        except FileNotFoundError as error:
            raise CommandFailure(
                "archive-link-target-missing",
                f"The bundle's member {printable(name)} is a hard link to {printable(target)}, which the"
                " bundle doesn't hold before it. Build the bundle again, with both of them.",
            ) from error

    def count(self, size: int) -> None:
        """Take note of bytes to be unpacked.

        Raises:
            CommandFailure: `archive-too-large`; with them, the limit is passed.
        """
        self._bytes += size
        limit = self._limits.max_extraction_size_bytes
        if limit is not None and self._bytes > limit:
            raise too_large(limit, self._bytes)

    def finish(self) -> IndexWriter:
        """Give all directories their owners, modes and times, the deepest first.

        Returns:
            The index of all that is in the tree.
        """
        for name in sorted(self._directories, reverse=True):
            attributes = self._directories[name]
            descriptor = self._names.directory(name)
            self._own(descriptor, attributes)
            os.fchmod(descriptor, attributes.mode)
            os.utime(descriptor, ns=(attributes.mtime_ns, attributes.mtime_ns))
            self._index.identify(name, os.fstat(descriptor))
        return self._index

    def _own(self, descriptor: int, attributes: MemberAttributes) -> None:
        if attributes.uid != KEEP_OWNER or attributes.gid != KEEP_OWNER:
            os.fchown(descriptor, attributes.uid, attributes.gid)

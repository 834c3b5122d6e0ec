"""Files with several names in the archive, which are to have several names again."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from agent.install.posix.copying import READ, SMALL_BYTES
from agent.listings import stream_digest

if TYPE_CHECKING:
    from agent.install.apply.copies import Copies
    from agent.install.apply.waiting import WaitingFiles
    from agent.install.attributes.of_new_directories import HandedDown
    from agent.install.model.attributes import Attributes
    from agent.install.posix.places import Places

_ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_IMPOSSIBLE = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOENT})


class _FirstName(NamedTuple):
    """Where the first of several names of a file waits, and what is known of it."""

    real: bytes
    place: bytes
    attributes: Attributes | None
    handed_down: HandedDown
    inode: int
    digest: bytes
    has_acl: bool


class HardLinks:
    """Stages the names of files that have several: the first is copied, the others are linked to it.

    Args:
        places: of the directories of the host.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._first: dict[tuple[int, int], _FirstName] = {}  # by device and inode in the archive

    def stage(self, position: int, waiting: WaitingFiles, copies: Copies) -> None:
        """Stage one name.

        Args:
            position: in the planned files.
            waiting: the files of its directory.
            copies: of these.
        """
        files, comparison = waiting.files, waiting.comparison
        name, place = files.names[position], waiting.place_of(position)
        there = comparison.status(name) if files.may_replace(name) else None
        old_inode = 0 if there is None else there.st_ino
        attributes = files.attributes.get(name)
        descriptor = os.open(name, READ, dir_fd=comparison.source_fd)
        try:
            source = os.fstat(descriptor)
            identity = source.st_dev, source.st_ino
            first = self._first.get(identity)
            if (
                first is None
                or first.attributes is not attributes
                or first.handed_down != waiting.handed_down
                or not self._gets_another_name(first, waiting, place)
            ):
                digest = comparison.digest_of_source(name, source)
                if digest is None and source.st_size > SMALL_BYTES:
                    # The end of one name changes the others' ctime: without a digest, they would not count as ours.
                    digest = _digest_of_all(descriptor)
                copy = copies.copy(position, descriptor, source, old_inode, digest)
                first = _FirstName(waiting.real, place, attributes, waiting.handed_down, *copy)
                self._first.setdefault(identity, first)
                return
        finally:
            os.close(descriptor)
        status = os.stat(place, dir_fd=waiting.dir_fd, follow_symlinks=False)
        waiting.note(position, old_inode, status, first.digest, has_acl=first.has_acl)

    def _gets_another_name(self, first: _FirstName, waiting: WaitingFiles, place: bytes) -> bool:
        """Give the first one's file another name; False where that is impossible, or would trust others.

        Whoever may write to the first one's directory may have put another file there. So it only gets a name where the
        same users may write, and by a descriptor that has been looked at.
        """
        places = self._places
        # The descriptor of this directory must outlive the look-up of the other one.
        target_fd = os.dup(waiting.dir_fd)
        try:
            if places.writers(first.real) != places.writers(waiting.real):
                return False
            file_fd = os.open(first.place, _ITSELF, dir_fd=places.of(first.real))
            try:
                if os.fstat(file_fd).st_ino != first.inode:
                    return False
                os.link(f"/proc/self/fd/{file_fd}", place, dst_dir_fd=target_fd, follow_symlinks=True)
            finally:
                os.close(file_fd)
        except OSError as error:
            if error.errno in _IMPOSSIBLE:
                return False
            raise
        finally:
            os.close(target_fd)
            waiting.open_again()
        return True


def _digest_of_all(descriptor: int) -> bytes:
    """Digest of the content of an open file, which is read from its beginning again afterwards."""
    with open(descriptor, "rb", buffering=0, closefd=False) as stream:
        digest = stream_digest(stream)
        stream.seek(0)
    return digest

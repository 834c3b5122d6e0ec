"""Finding out quickly which files are there already, just as they are to be."""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.archive_index import ArchiveIndex
    from agent.install.planned import PlannedFiles
    from agent.install.previous import PreviousFiles
    from agent.install.staged import Staged


_WORTH_OPENING = 8  # names in a directory, since opening it takes as long as looking at some of them


def unknown_names(
    files: PlannedFiles, previous: PreviousFiles, index: ArchiveIndex, staged: Staged, *, is_root: bool
) -> Iterator[tuple[int, os.stat_result | None]]:
    """The names that need a closer look; the other files are there already, just as they are to be.

    This is the loop that an Install without changes consists of: it opens nothing, and makes two
    calls for each file.

    Yields:
        The position of the name, and the status of what is there if that is known to have another content.
    """
    known, entries = previous.of(files.directory.real), index.of(files.source_directory)
    if files.attributes or files.links or not known or not entries:
        yield from ((position, None) for position in range(len(files.names)))
        return
    with (
        _statuses(files.source_directory, len(files.names)) as status_in_archive,
        _statuses(files.directory.real, len(files.names)) as status_here,
    ):
        for position, name in enumerate(files.names):
            fields, entry = known.get(name), entries.get(name)
            if not fields or entry is None:
                yield position, None
                continue
            # The index holds the status of the archive's file, and the manifest that of ours.
            try:
                source, there = status_in_archive(name), status_here(name)
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENAMETOOLONG}:
                    raise
                yield position, None
                continue
            of_source = b"%d %d %d %d " % (
                source.st_ino,
                source.st_size,
                source.st_mtime_ns,
                source.st_ctime_ns,
            )
            of_ours = b"f %d %d %d %d " % (there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns)
            if not entry.startswith(of_source) or not fields.startswith(of_ours):
                yield position, None
            elif fields[len(of_ours) : -2] != entry[len(of_source) :]:
                yield position, there
            elif (
                there.st_mode == source.st_mode
                and there.st_nlink == source.st_nlink == 1
                and there.st_mtime_ns == source.st_mtime_ns
                and (not is_root or (there.st_uid == source.st_uid and there.st_gid == source.st_gid))
                and fields.endswith(b" -")
            ):
                staged.lines[position] = fields
                staged.unchanged += 1
            else:
                yield position, None


@contextlib.contextmanager
def _statuses(directory: bytes, count: int) -> Iterator[Callable[[bytes], os.stat_result]]:
    """What tells the status of a name in this directory, without following links; to be asked so many times."""
    if count < _WORTH_OPENING:
        prefix = directory.rstrip(b"/") + b"/"
        yield lambda name: os.lstat(prefix + name)
        return
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield partial(os.stat, dir_fd=descriptor, follow_symlinks=False)
    finally:
        os.close(descriptor)

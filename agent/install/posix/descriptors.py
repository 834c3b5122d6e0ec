"""Directories, opened without following a link at any component of their path."""

from __future__ import annotations

import os
from collections import OrderedDict

_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_OPEN = 128


class Descriptors:
    """Descriptors of directories by real path, a bounded number of them kept open.

    They stand for the places only (O_PATH): good for everything that takes `dir_fd`, also where
    we may not list the directory. Use each descriptor before the next call, and close in the end.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self._other_names: dict[bytes, bytes] = {}

    def close(self) -> None:
        """Afterwards none is open."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def of(self, real: bytes) -> int:
        """Descriptor of this directory.

        Raises:
            OSError: it is not there, or is not a directory; a link is none.
        """
        known = self._open.get(real)
        if known is not None:
            self._open.move_to_end(real)
            return known
        descriptor = self._opened(real, _FLAGS)
        self._open[real] = descriptor
        if len(self._open) > _MOST_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def opened(self, real: bytes) -> int:
        """A new descriptor of this directory, to list it; it is the caller's to close.

        Raises:
            OSError: as above, and where we may not list it.
        """
        return self._opened(real, _LIST)

    def _opened(self, real: bytes, flags: int) -> int:
        if real == b"/":
            return os.open(b"/", flags)
        above, _slash, name = real.rpartition(b"/")
        return os.open(self._other_names.get(real, name), flags, dir_fd=self.of(above or b"/"))

    def name_is(self, real: bytes, name: bytes | None) -> None:
        """Until told otherwise, the directory that is to be at `real` goes by another name there; None ends it."""
        if name is None:
            self._other_names.pop(real, None)
        else:
            self._other_names[real] = name

    def forget(self, real: bytes) -> None:
        """What was opened for this path is something else from now on."""
        descriptor = self._open.pop(real, None)
        if descriptor is not None:
            os.close(descriptor)

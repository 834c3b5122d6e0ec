"""The hidden names that an Install makes, of its token and of numbers that its journal tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_NEW = b".install-%b-%d.new"


_LONGEST_KEPT = 220  # of 255 bytes, so that what is added to the name has room


def hidden_prefix(token: bytes) -> bytes:
    """What all hidden names of an Install begin with."""
    return b".install-%b-" % token


def new_name(token: bytes, number: int) -> bytes:
    """Hidden name of what is to have its place soon; afterwards, of what had it before."""
    return _NEW % (token, number)


def new_names(token: bytes, first: int) -> Callable[[int], bytes]:
    """Such names of many, by what their number has above the first one: one call for each, and not two."""
    return lambda position: _NEW % (token, first + position)


def old_name(token: bytes, number: int) -> bytes:
    """Hidden name of what had that place before, where names can't be exchanged."""
    return b".install-%b-%d.old" % (token, number)


def kept_name(token: bytes, name: bytes) -> bytes:
    """Name of a directory that has to give way to what is to have its name, when others have put files into it."""
    return b"%b.kept-%b" % (name[:_LONGEST_KEPT], token)

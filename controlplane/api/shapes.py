"""Decoding requests and encoding answers by the shapes of a service model."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.model import Shape

EncodeTimestamp = Callable[[float], Any]
LATEST_TIME = 253402300799.0
"""The end of the year 9999."""
LARGEST_NUMBER = 2**53
_TRUE_OR_FALSE = (bool,)


class InvalidMemberError(ValueError):
    """A member of a request does not fit its shape; `path` names it, `is_missing` tells that it is absent."""

    def __init__(self, path: tuple[str, ...], reason: str, *, is_missing: bool = False) -> None:
        super().__init__(f"{'.'.join(path) or 'The request'} {reason}.")
        self.path = path
        self.is_missing = is_missing


def decode(shape: Shape | None, value: Any, path: tuple[str, ...] = ()) -> Any:
    """The value as the operation takes it: timestamps are seconds since 1970, absent members are left out.

    Raises InvalidMemberError. Members the model doesn't know are refused rather than dropped: a caller that
    sends one expects it to have an effect.
    """
    if shape is None:
        return {}
    if shape.type_name == "structure":
        return _decode_structure(shape, value, path)
    if shape.type_name == "list":
        return _decode_list(shape, value, path)
    if shape.type_name == "map":
        return _decode_map(shape, value, path)
    if shape.type_name == "timestamp":
        return _decode_timestamp(value, path)
    return _decode_scalar(shape, value, path)


def encode(shape: Shape, value: Any, timestamp: EncodeTimestamp) -> Any:
    """The value as it goes on the wire; None members are left out. A member the model lacks is a KeyError."""
    if shape.type_name == "structure":
        return {
            name: encode(shape.members[name], member, timestamp)
            for name, member in value.items()
            if member is not None
        }
    if shape.type_name == "list":
        return [encode(shape.member, member, timestamp) for member in value]
    if shape.type_name == "timestamp":
        return timestamp(value)
    return value.value if isinstance(value, Enum) else value


def _decode_structure(shape: Shape, value: Any, path: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidMemberError(path, "must be a structure")
    given = {name: member for name, member in value.items() if member is not None}
    for name in given:
        if name not in shape.members:
            raise InvalidMemberError((*path, str(name)), "is not a member this endpoint knows")
    for name in shape.required_members:
        if given.get(name) in (None, ""):
            raise InvalidMemberError((*path, name), "is required", is_missing=True)
    return {name: decode(shape.members[name], member, (*path, name)) for name, member in given.items()}


def _decode_list(shape: Shape, value: Any, path: tuple[str, ...]) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidMemberError(path, "must be a list")
    return [decode(shape.member, member, path) for member in value]


def _decode_map(shape: Shape, value: Any, path: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidMemberError(path, "must be a map")
    return {
        decode(shape.key, key, path): decode(shape.value, member, (*path, str(key)))
        for key, member in value.items()
    }


def _decode_timestamp(value: Any, path: tuple[str, ...]) -> float:
    if isinstance(value, dt.datetime):
        return value.timestamp()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and 0 <= value <= LATEST_TIME:
        return float(value)
    raise InvalidMemberError(path, "must be a time in seconds since 1970")


_SCALARS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "character": (str,),
    "boolean": _TRUE_OR_FALSE,
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
}


def _decode_scalar(shape: Shape, value: Any, path: tuple[str, ...]) -> Any:
    allowed = _SCALARS[shape.type_name]
    if not isinstance(value, allowed) or (isinstance(value, bool) and allowed is not _TRUE_OR_FALSE):
        raise InvalidMemberError(path, f"must be of type {shape.type_name}")
    if isinstance(value, str):
        _check_text(shape, value, path)
    elif isinstance(value, (int, float)) and abs(value) > LARGEST_NUMBER:
        raise InvalidMemberError(path, "is too large a number")
    return value


def _check_text(shape: Shape, value: str, path: tuple[str, ...]) -> None:
    metadata = shape.metadata
    shortest, longest = metadata.get("min", 0), metadata.get("max")
    if not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidMemberError(path, "holds half of a surrogate pair, which is no character")
    if len(value) < shortest or (longest is not None and len(value) > longest):
        raise InvalidMemberError(path, f"has {len(value)} characters, {shortest} to {longest} are allowed")
    if metadata.get("enum") and value not in metadata["enum"]:
        raise InvalidMemberError(path, f"is {value!r}, must be one of {', '.join(metadata['enum'])}")
    pattern = metadata.get("pattern")
    if pattern and re.fullmatch(pattern, value) is None:
        raise InvalidMemberError(path, f"is {value!r}, must match {pattern}")

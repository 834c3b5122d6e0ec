"""One entry of `acls`: `[d[efault]:][u[ser]|g[roup]|m[ask]|o[ther]]:name:permissions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.appspec.model import AclEntry, AclKind
from agent.appspec.reading import quoted

if TYPE_CHECKING:
    from agent.appspec.document import Node
    from agent.appspec.reading import Reading

_DEFAULT = frozenset({"d", "default"})
_NAMELESS = frozenset({AclKind.MASK, AclKind.OTHER})
_KINDS = {
    "u": AclKind.USER,
    "user": AclKind.USER,
    "g": AclKind.GROUP,
    "group": AclKind.GROUP,
    "m": AclKind.MASK,
    "mask": AclKind.MASK,
    "o": AclKind.OTHER,
    "other": AclKind.OTHER,
}
_BITS = {"r": 4, "w": 2, "x": 1, "-": 0}
_NO_NAME = "\0"  # which no entry has: such texts are refused before
_USE_MODE = "use mode for the owner, the group and others"
_OCTAL = frozenset("01234567")


def read_acl(reading: Reading, node: Node) -> AclEntry | None:
    """The entry; None when it is wrong, which is noted then."""
    text = reading.nonempty(node, "each item of acls")
    if text is None:
        return None
    parts = [part.strip() for part in text.split(":")]
    is_default = parts[0] in _DEFAULT
    if is_default:
        del parts[0]
    parts = _with_all_parts(parts)
    problem = _problem(reading, parts, text, is_default=is_default)
    if problem:
        reading.refuse(node, problem)
        return None
    kind, name, letters = _KINDS[parts[0]], parts[1], parts[2]
    return AclEntry(kind=kind, name=name, permissions=_permissions(letters) or 0, is_default=is_default)


def _with_all_parts(parts: list[str]) -> list[str]:
    """`bob:rw` is about the user bob, `m:rw` about the mask and `o:r` about others, as `setfacl` has it."""
    if len(parts) != 2:
        return parts
    first, letters = parts
    if first in _KINDS:
        # Whether `u:rw` is about the owner, or about a user of that name, is not for us to guess.
        return [first, "" if _KINDS[first] in _NAMELESS else _NO_NAME, letters]
    return ["user", first, letters]


def _problem(reading: Reading, parts: list[str], text: str, *, is_default: bool) -> str:
    if len(parts) != 3:
        return f"an entry of acls looks like u:bob:rw or d:g:staff:rx, not {quoted(text)}"
    word, _name, letters = parts
    kind = _KINDS.get(word)
    if kind is None:
        expected = "must start with u, g, m or o (or with d: before that)"
        hint = reading.nearest(word, ("user", "group", "mask", "other"))
        return f"{quoted(text)} {expected}, not with {quoted(word)}{hint}"
    problem = _name_problem(kind, parts, text, is_default=is_default)
    if problem:
        return problem
    if _permissions(letters) is None:
        expected = "must be made of r, w, x and -, or be one octal digit"
        return f"the permissions {quoted(letters)} of {quoted(text)} {expected}"
    return ""


def _name_problem(kind: AclKind, parts: list[str], text: str, *, is_default: bool) -> str:
    word, name, letters = parts
    if name == _NO_NAME or (not is_default and not name and kind is not AclKind.MASK):
        advice = f"for the owner or the owning group write d:{word}::{letters}" if is_default else _USE_MODE
        return f"{quoted(text)} names no user or group; {advice}"
    if name and kind is AclKind.MASK:
        return f"{quoted(text)} gives the mask a name; write m::{letters}"
    if name and kind is AclKind.OTHER:
        return f"{quoted(text)} is about others, who have no name; use mode for them, or d:o::{letters}"
    return ""


def _permissions(letters: str) -> int | None:
    """0 to 7; nothing at all is 0, and a letter may come twice, as the existing agents have it."""
    if len(letters) == 1 and letters in _OCTAL:
        return int(letters)
    if not set(letters) <= set(_BITS):
        return None
    bits = 0
    for letter in letters:
        bits |= _BITS[letter]
    return bits

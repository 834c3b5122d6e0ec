"""One entry of `acls`: `[d[efault]:][u[ser]|g[roup]|m[ask]]:name:permissions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.appspec.model import AclEntry, AclKind
from agent.appspec.reading import quoted

if TYPE_CHECKING:
    from agent.appspec.document import Node
    from agent.appspec.reading import Reading

_DEFAULT = frozenset({"d", "default"})
_OTHER = frozenset({"o", "other"})
_KINDS = {
    "u": AclKind.USER,
    "user": AclKind.USER,
    "g": AclKind.GROUP,
    "group": AclKind.GROUP,
    "m": AclKind.MASK,
    "mask": AclKind.MASK,
}
_BITS = {"r": 4, "w": 2, "x": 1, "-": 0}
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
    problem = _problem(reading, parts, text)
    if problem:
        reading.refuse(node, problem)
        return None
    kind, name, letters = _KINDS[parts[0]], parts[1], parts[2]
    return AclEntry(kind=kind, name=name, permissions=_permissions(letters) or 0, is_default=is_default)


def _with_all_parts(parts: list[str]) -> list[str]:
    """`bob:rw` is about the user bob, and `m:rw` about the mask, as `setfacl` has it."""
    if len(parts) != 2:
        return parts
    first, letters = parts
    if first in _KINDS or first in _OTHER:
        return [first, "", letters]
    return ["user", first, letters]


def _problem(reading: Reading, parts: list[str], text: str) -> str:
    if len(parts) != 3:
        return f"an entry of acls looks like u:bob:rw or d:g:staff:rx, not {quoted(text)}"
    kind, name, letters = parts
    if kind in _OTHER or (not name and kind in _KINDS and _KINDS[kind] is not AclKind.MASK):
        return f"{quoted(text)} names no user or group; use mode for the owner, the group and others"
    if kind not in _KINDS:
        expected = "must start with u, g or m (or with d: before that)"
        hint = reading.nearest(kind, ("user", "group", "mask"))
        return f"{quoted(text)} {expected}, not with {quoted(kind)}{hint}"
    if _KINDS[kind] is AclKind.MASK and name:
        return f"{quoted(text)} gives the mask a name; write m::{letters}"
    if _permissions(letters) is None:
        expected = "must be made of r, w, x and -, or be one octal digit"
        return f"the permissions {quoted(letters)} of {quoted(text)} {expected}"
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

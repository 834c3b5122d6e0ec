"""The section `permissions`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agent.appspec.acls import read_acl
from agent.appspec.model import EVERYTHING, AclEntry, ObjectType, Permission, SelinuxContext
from agent.appspec.reading import kind_of, listed, nearest, quoted

if TYPE_CHECKING:
    from agent.appspec.document import Node
    from agent.appspec.reading import Reading

_KEYS = ("object", "pattern", "except", "owner", "group", "mode", "acls", "context", "type")
_CONTEXT_KEYS = ("user", "name", "type", "range", "role")
_TYPES = tuple(kind.value for kind in ObjectType)
_MODE = re.compile(r"[0-7]{1,4}")
_LABEL = re.compile(r"[A-Za-z0-9_.-]+")
_SENSITIVITY = r"s(?:1[0-5]|[0-9])"
_CATEGORY = r"c(?:102[0-3]|10[01][0-9]|[1-9][0-9]{0,2}|0)"
_CATEGORIES = rf"{_CATEGORY}(?:[.,]{_CATEGORY})*"
_LEVEL = rf"{_SENSITIVITY}(?:-{_SENSITIVITY})?(?::{_CATEGORIES})?"
_RANGE = re.compile(rf"{_LEVEL}|{_SENSITIVITY}(?::{_CATEGORIES})?-{_SENSITIVITY}(?::{_CATEGORIES})?")


def read_permissions(reading: Reading, node: Node | None) -> tuple[Permission, ...]:
    """The entries that are valid; problems of the others are noted."""
    if node is None:
        return ()
    found = [
        _read_permission(reading, item)
        for item in reading.items(node, "permissions", "entries with an object")
    ]
    return tuple(permission for permission in found if permission is not None)


def _read_permission(reading: Reading, node: Node) -> Permission | None:
    what = "this entry of permissions"
    values = reading.mapping(node, what, _KEYS)
    if values is None:
        return None
    before = len(reading.problems)
    object_node = reading.required(node, values, "object", what)
    target = None if object_node is None else reading.nonempty(object_node, "object")
    pattern = reading.nonempty(values["pattern"], "pattern") if "pattern" in values else EVERYTHING
    types = _read_types(reading, values.get("type"))
    permission = Permission(
        object=target or "",
        pattern=pattern or EVERYTHING,
        exceptions=_read_exceptions(reading, values.get("except")),
        owner=reading.nonempty(values["owner"], "owner") if "owner" in values else None,
        group=reading.nonempty(values["group"], "group") if "group" in values else None,
        mode=_read_mode(reading, values.get("mode")),
        acls=_read_acls(reading, values.get("acls"), types),
        context=_read_context(reading, values.get("context")),
        types=types,
        line=node.line,
    )
    return permission if len(reading.problems) == before else None


def _read_exceptions(reading: Reading, node: Node | None) -> tuple[str, ...]:
    return () if node is None else reading.texts(node, "except") or ()


def _read_mode(reading: Reading, node: Node | None) -> str | None:
    """As written: 0644 without quotes is not what YAML makes of it (420), but 0644."""
    if node is None:
        return None
    text = reading.text(node, "mode")
    if text is None or _MODE.fullmatch(text):
        return text
    hint = ""
    if text.startswith("0o"):
        hint = "; leave the 0o out"
    elif any(letter.isalpha() for letter in text):
        hint = "; letters such as u+x don't work here"
    reading.refuse(
        node, f"mode must be one to four octal digits such as 644 or 4755, not {quoted(text)}{hint}"
    )
    return None


def _read_types(reading: Reading, node: Node | None) -> frozenset[ObjectType]:
    everything = frozenset(ObjectType)
    if node is None:
        return everything
    types = set()
    for item in reading.items(node, "type", "file and directory"):
        text = reading.text(item, "type")
        if text in _TYPES:
            types.add(ObjectType(text))
        elif text is not None:
            reading.refuse(item, f"type must be {listed(_TYPES)}, not {quoted(text)}{nearest(text, _TYPES)}")
    return frozenset(types) or everything


def _read_acls(reading: Reading, node: Node | None, types: frozenset[ObjectType]) -> tuple[AclEntry, ...]:
    if node is None:
        return ()
    entries: dict[tuple[object, ...], AclEntry] = {}
    for item in reading.items(node, "acls", "entries such as u:bob:rw"):
        entry = read_acl(reading, item)
        if entry is None:
            continue
        if entry.is_default and ObjectType.FILE in types:
            reading.refuse(
                item, f"{str(entry)!r} is for new files of a directory; add type: [directory] to this entry"
            )
        key = (entry.is_default, entry.kind, entry.name)
        if key in entries:
            reading.refuse(
                item, f"acls has two entries for the same {entry.kind.value} {entry.name}".rstrip()
            )
        entries[key] = entry
    return tuple(entries.values())


def _read_context(reading: Reading, node: Node | None) -> SelinuxContext | None:
    if node is None:
        return None
    values = reading.mapping(node, "context", _CONTEXT_KEYS)
    if values is None:
        return None
    if "role" in values:
        reading.refuse(values["role"], "context can't set a role: files have none of their own")
    type_node = reading.required(node, values, "type", "context")
    type_name = None if type_node is None else _read_label(reading, type_node, "the type of context")
    user_node = values.get("user", values.get("name"))
    user = None if user_node is None else _read_label(reading, user_node, "the user of context")
    level = _read_range(reading, values.get("range"))
    return None if type_name is None else SelinuxContext(type=type_name, user=user, range=level)


def _read_label(reading: Reading, node: Node, what: str) -> str | None:
    text = reading.nonempty(node, what)
    if text is not None and not _LABEL.fullmatch(text):
        reading.refuse(node, f"{what} must be a name such as httpd_sys_content_t, not {quoted(text)}")
        return None
    return text


def _read_range(reading: Reading, node: Node | None) -> str | None:
    if node is None:
        return None
    text = reading.text(node, "the range of context")
    if text is not None and not _RANGE.fullmatch(text):
        message = f"the range of context must be like s0 or s0-s0:c0.c1023 (s0 to s15, c0 to c1023), not {kind_of(node)}"
        reading.refuse(node, message)
        return None
    return text

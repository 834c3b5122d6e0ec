"""The section `permissions`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agent.appspec.acls import read_acl
from agent.appspec.document import Scalar
from agent.appspec.misplaced import MISPLACED, note_misplaced
from agent.appspec.model import EVERYTHING, AclEntry, ObjectType, Permission, SelinuxContext
from agent.appspec.reading import as_written, kind_of, listed, quoted

if TYPE_CHECKING:
    from agent.appspec.document import Node
    from agent.appspec.reading import Reading

_KEYS = ("object", "pattern", "except", "owner", "group", "mode", "acls", "context", "type")
_CONTEXT_KEYS = ("user", "name", "type", "range", "role")
_TYPES = tuple(kind.value for kind in ObjectType)
_MODE = re.compile(r"[0-7]{1,4}")
# Without quotes this is a number for YAML, which existing agents read as such: with zeros before it, in groups.
_MODE_NUMBER = re.compile(r"0*(?P<digits>[0-7](_?[0-7]){0,3})")
_LABEL = re.compile(r"[A-Za-z0-9_.-]+")
_SENSITIVITY = r"s0*(?:1[0-5]|[0-9])"
_CATEGORY = r"c0*(?:102[0-3]|10[01][0-9]|[1-9][0-9]{0,2}|0)"
_CATEGORY_SPAN = rf"{_CATEGORY}(?:\.{_CATEGORY})?"
_CATEGORIES = rf"{_CATEGORY_SPAN}(?:,{_CATEGORY_SPAN})*"
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
    values = reading.mapping(node, what, _KEYS, MISPLACED)
    if values is None:
        return None
    note_misplaced(reading, node, what)
    before = len(reading.problems)
    if "object" not in values:
        what = f"{what} {as_written(node)}"
    object_node = reading.required(
        node, values, "object", what, expected="object: the file or directory that it is about"
    )
    target = None if object_node is None else reading.trimmed(object_node, "object")
    types = _read_types(reading, reading.unless_false(values, "type"))
    permission = Permission(
        object=target or "",
        pattern=_read_pattern(reading, values.get("pattern")),
        exceptions=_read_exceptions(reading, reading.unless_false(values, "except")),
        owner=reading.nonempty(values["owner"], "owner") if "owner" in values else None,
        group=reading.nonempty(values["group"], "group") if "group" in values else None,
        mode=_read_mode(reading, values.get("mode")),
        acls=_read_acls(reading, values.get("acls"), types),
        context=_read_context(reading, values.get("context")),
        types=types,
        line=node.line,
    )
    return permission if len(reading.problems) == before else None


def _read_pattern(reading: Reading, node: Node | None) -> str:
    if node is None:
        return EVERYTHING
    pattern = reading.text(node, "pattern")
    if pattern == "":
        reading.warn(node, "an empty pattern matches nothing, so this entry has no effect")
    return EVERYTHING if pattern is None else pattern


def _read_exceptions(reading: Reading, node: Node | None) -> tuple[str, ...]:
    return () if node is None else reading.texts(node, "except") or ()


def _read_mode(reading: Reading, node: Node | None) -> str | None:
    """As written: 0644 without quotes is not what YAML makes of it (420), but 0644."""
    if node is None:
        return None
    text = reading.trimmed(node, "mode")
    if text is None:
        return None
    if _MODE.fullmatch(text):
        return text
    if isinstance(node, Scalar) and node.is_plain and (number := _MODE_NUMBER.fullmatch(text)):
        return number["digits"].replace("_", "")
    expected = "mode must be one to four octal digits such as 644 or 4755"
    reading.refuse(node, f"{expected}, not {quoted(text)}{_mode_hint(text)}")
    return None


def _mode_hint(text: str) -> str:
    if text.lower().startswith("0o"):
        return "; leave the 0o out"
    if re.search(r"[+=-][rwxXst]", text):
        return "; letters such as u+x don't work here"
    odd = re.search(r"[^0-7]", text)
    if odd is not None:
        return f"; {quoted(odd.group())} is not an octal digit"
    return f"; it has {len(text)} digits"


def _read_types(reading: Reading, node: Node | None) -> frozenset[ObjectType]:
    everything = frozenset(ObjectType)
    if node is None:
        return everything
    types = set()
    for item in reading.items(node, "type", "file and directory"):
        text = reading.trimmed(item, "type")
        if text in _TYPES:
            types.add(ObjectType(text))
        elif text is not None:
            hint = reading.nearest(text, _TYPES)
            reading.refuse(item, f"type must be {listed(_TYPES)}, not {quoted(text)}{hint}")
    return frozenset(types) or everything


def _read_acls(reading: Reading, node: Node | None, types: frozenset[ObjectType]) -> tuple[AclEntry, ...]:
    if node is None:
        return ()
    entries: dict[tuple[object, ...], AclEntry] = {}
    for item in reading.items(node, "acls", "entries such as u:bob:rw"):
        entry = read_acl(reading, item)
        if entry is None:
            continue
        if entry.is_default and ObjectType.DIRECTORY not in types:
            reading.refuse(
                item, f"{str(entry)!r} is for new files of a directory; write type: [directory] in this entry"
            )
        key = (entry.is_default, entry.kind, entry.name)
        if key in entries:
            whom = f"{entry.kind.value} {entry.name}".rstrip()
            reading.warn(
                item, f"acls has two entries for the same {whom}; the last one, {str(entry)!r}, counts"
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
        role = kind_of(values["role"])
        reading.warn(values["role"], f"the role of context is ignored ({role}): files have none of their own")
    what = "context" if "type" in values else f"context {as_written(node)}"
    type_node = reading.required(node, values, "type", what, expected="type, such as httpd_sys_content_t")
    type_name = None if type_node is None else _read_label(reading, type_node, "the type of context")
    user = _read_user(reading, values)
    level = _read_range(reading, values.get("range"))
    return None if type_name is None else SelinuxContext(type=type_name, user=user, range=level)


def _read_user(reading: Reading, values: dict[str, Node]) -> str | None:
    """Existing agents read `name` only, so a `user` in another form is ignored."""
    node = values.get("user")
    if isinstance(node, Scalar) and _LABEL.fullmatch(node.text):
        return node.text
    if node is not None:
        reading.warn(node, f"the user of context is ignored: it must be a name, not {kind_of(node)}")
    return _read_label(reading, values["name"], "the name of context") if "name" in values else None


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
    if text is None:
        return None
    if not _RANGE.fullmatch(text):
        expected = "the range of context must be like s0 or s0-s0:c0.c1023 (s0 to s15, c0 to c1023)"
        reading.refuse(node, f"{expected}, not {quoted(text)}")
        return None
    problem = _range_problem(text)
    if problem:
        reading.refuse(node, f"the range of context {quoted(text)} {problem}")
        return None
    return _normalized_range(text)


def _normalized_range(text: str) -> str:
    """As SELinux takes it: `s00:c05.c5` is `s0:c5`."""
    plain = re.sub(r"(?<=[sc])0+(?=[0-9])", "", text)
    return re.sub(r"c([0-9]+)\.c\1(?![0-9])", r"c\1", plain)


def _range_problem(text: str) -> str:
    """What is wrong with a range that looks like one: an order upside down, or a category twice."""
    low, *rest = (int(number) for number in re.findall(r"s([0-9]+)", text))
    if rest and rest[0] < low:
        return f"goes down from s{low} to s{rest[0]}; the lower one comes first"
    for group in re.findall(r":([c0-9.,]+)", text):
        seen: set[int] = set()
        for part in group.split(","):
            first, _dot, last = part.replace("c", "").partition(".")
            if last and int(last) < int(first):
                return f"goes down from c{first} to c{last}; the lower one comes first"
            categories = range(int(first), int(last or first) + 1)
            if not seen.isdisjoint(categories):
                return f"has a category of {quoted(part)} twice"
            seen.update(categories)
    return ""

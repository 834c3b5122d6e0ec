"""What stands in an AppSpec where no agent looks for it, though its author meant something by it.

Agents ignore it, so that a deployment of nothing but that is green and does nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agent.appspec.document import Mapping, Scalar, Sequence
from agent.appspec.reading import quoted
from agent.protocol import LIFECYCLE_EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.appspec.document import Node
    from agent.appspec.reading import Reading

SECTIONS = ("files", "permissions", "hooks")
MISPLACED = frozenset({*SECTIONS, *LIFECYCLE_EVENTS})

_ALIKE = 0.8
_MOST_LOOKED_AT = 200
_TYPE = re.compile(r"AWS::(?P<service>[A-Za-z0-9]+)::\S*")
_PLATFORMS = {"ECS": "Amazon ECS", "Lambda": "AWS Lambda"}


def note_misplaced(reading: Reading, node: Node, what: str) -> None:
    """Sections and events inside an entry of another section, whose keys have been read."""
    for key, value in node.items if isinstance(node, Mapping) else ():
        if key.text in MISPLACED and not isinstance(value, Scalar):
            belongs = "at the top of the file" if key.text in SECTIONS else "below hooks"
            message = (
                f"{quoted(key.text)} is ignored inside {what}; it belongs {belongs}: indent its lines less"
            )
            reading.warn_of_loss(key, message)


def note_misplaced_at_top(reading: Reading, document: Mapping) -> None:
    """Events and sections in other letters among the keys of the file, which have been read."""
    looked_at = 0
    for key, value in document.items:
        if key.text in LIFECYCLE_EVENTS:
            message = f"{quoted(key.text)} is ignored here; it belongs below hooks: indent its lines"
            (reading.warn if isinstance(value, Scalar) else reading.warn_of_loss)(key, message)
        elif _has_content(value) and looked_at < _MOST_LOOKED_AT:
            looked_at += 1
            if section := _section_alike(key.text):
                message = f"{quoted(key.text)} is no key of an AppSpec; did you mean {quoted(section)}?"
                reading.lose(key, message)
    for key in document.repeated:
        if key.text in SECTIONS:
            reading.lose(key, f"the file has the key {quoted(key.text)} twice; the last one counts")


def platform_problem(document: Mapping) -> tuple[Scalar, str] | None:
    """The key that shows that this AppSpec is for another compute platform, and how to say so."""
    for key, value in document.items:
        if key.text.lower() == "resources" and _has_content(value):
            found = next(_resource_types(value), None)
            if found is not None:
                platform = _PLATFORMS.get(found[1], f"resources of {found[1]}")
                return key, _for_platform(platform, f"its resources are of the type {quoted(found[0])}")
            if _has_hooks_of_others(document) and _is_like_resources(value):
                return key, _for_platform("Amazon ECS or AWS Lambda", "it has resources")
    for key, value in document.items:
        # With files to install, somebody has written the hooks of a host in a wrong form.
        if key.text.lower() == "hooks" and _names_functions(value) and not _has_files(document):
            return key, _for_platform("Amazon ECS or AWS Lambda", "its hooks name functions, and no scripts")
    return None


def _has_hooks_of_others(document: Mapping) -> bool:
    """Whether hooks are a list, as other platforms have it, or there are none."""
    return all(
        isinstance(value, Sequence) or not _has_content(value)
        for key, value in document.items
        if key.text.lower() == "hooks"
    )


def _has_files(document: Mapping) -> bool:
    return any(key.text == "files" and _has_content(value) for key, value in document.items)


def _is_like_resources(value: Node) -> bool:
    """Whether these are mappings by name, with a type or properties each, as the other platforms have them."""
    named = value.items if isinstance(value, Sequence) else (value,)
    entries = [entry for item in named[:10] if isinstance(item, Mapping) for _name, entry in item.items[:10]]
    return any(
        key.text.lower() in {"type", "properties"}
        for entry in entries
        if isinstance(entry, Mapping)
        for key, _value in entry.items
    )


def _for_platform(platform: str, why: str) -> str:
    return (
        f"this is an AppSpec for {platform} ({why}), but this agent deploys to hosts; deploy it with an application of "
        "that platform, or give the revision an AppSpec with files and hooks for EC2 and on-premises hosts"
    )


def _resource_types(value: Node) -> Iterator[tuple[str, str]]:
    """Types such as `AWS::ECS::Service` in the first nodes, with the service in them."""
    nodes = [value]
    for _step in range(_MOST_LOOKED_AT):
        if not nodes:
            return
        node = nodes.pop(0)
        if isinstance(node, Sequence):
            nodes += node.items[:_MOST_LOOKED_AT]
        elif isinstance(node, Mapping):
            nodes += [item for _key, item in node.items[:_MOST_LOOKED_AT]]
        elif (found := _TYPE.fullmatch(node.text.strip()[:200])) is not None:
            yield found.group(), found["service"]


def _names_functions(hooks: Node) -> bool:
    """Whether this is a list such as `- BeforeInstall: "name-of-a-function"`."""
    return (
        isinstance(hooks, Sequence)
        and bool(hooks.items)
        and all(
            isinstance(item, Mapping)
            and bool(item.items)
            and all(isinstance(value, Scalar) and not value.is_null for _key, value in item.items)
            for item in hooks.items
        )
    )


def _section_alike(name: str) -> str:
    """The section whose name was hardly meant otherwise: in other letters, or with a slip of the pen."""
    if name in SECTIONS or len(name) > 20:
        return ""
    # Only a file with a mistake needs it.
    from difflib import SequenceMatcher  # noqa: PLC0415

    alike = [(SequenceMatcher(None, name.lower(), section).ratio(), section) for section in SECTIONS]
    ratio, section = max(alike)
    return section if ratio >= _ALIKE else ""


def _has_content(value: Node) -> bool:
    return not isinstance(value, Scalar) and bool(value.items)

"""install.json, as the existing agents write it: what an Install does, one instruction after the other."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from agent.install.model.steps import PlannedDirectory, PlannedFiles
from agent.install.records.install_json import _COPY, _quoted, _text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.appspec import AclEntry
    from agent.install.model.attributes import Attributes
    from agent.install.plan.plan import InstallPlan


def instructions_of(plan: InstallPlan) -> Iterator[bytes]:
    """What it says of this plan: one line of JSON, made piece by piece, since it is long; each is made of whole instructions."""
    yield b'{"instructions":['
    separator = b""
    for step in plan.steps:
        if isinstance(step, PlannedDirectory):
            text = f'{{"type":"mkdir","directory":{_quoted(step.directory.path)}}}'.encode()
        else:
            text = _copies(step)
        yield separator + text
        separator = b","
    for instruction in _all_permission_instructions(plan):
        yield separator + json.dumps(instruction, ensure_ascii=False, separators=(",", ":")).encode()
        separator = b","
    yield b"]}"


def _copies(files: PlannedFiles) -> bytes:
    """The instructions of all these files."""
    begin = _COPY + _quoted(files.source_directory + b"/").encode()[:-1]
    middle = b'","destination":' + _quoted(files.prefix).encode()[:-1]
    names = files.names
    if not _is_plain(b"".join(names)):
        names = [_quoted(name).encode()[1:-1] for name in names]
    return b",".join([b'%b%b%b%b"}' % (begin, name, middle, name) for name in names])


_PLAIN = re.compile(rb"[ !#-\[\]-~]*")


def _is_plain(text: bytes) -> bool:
    """Whether it stands in JSON as it is."""
    return _PLAIN.fullmatch(text) is not None


def _all_permission_instructions(plan: InstallPlan) -> Iterator[dict[str, Any]]:
    """Entry by entry, files before directories."""
    # Names are referred to, since the paths of 100,000 files would take 10 MB.
    by_entry: dict[int, tuple[Attributes, dict[bytes, list[bytes]], list[bytes]]] = {}
    for step in plan.steps:
        if isinstance(step, PlannedFiles):
            prefix = step.prefix
            for name, attributes in step.attributes.items():
                _, files, _ = by_entry.setdefault(attributes.number, (attributes, {}, []))
                files.setdefault(prefix, []).append(name)
        elif step.attributes is not None:
            _, _, directories = by_entry.setdefault(step.attributes.number, (step.attributes, {}, []))
            directories.append(step.directory.path)
    for attributes, files, directories in by_entry.values():
        own = tuple(entry for entry in attributes.permission.acls if not entry.is_default)
        for prefix, names in files.items():
            for name in names:
                yield from _permission_instructions(prefix + name, attributes, own)
        for path in directories:
            yield from _permission_instructions(path, attributes, attributes.permission.acls)


def _permission_instructions(
    place: bytes, attributes: Attributes, acl: tuple[AclEntry, ...]
) -> Iterator[dict[str, Any]]:
    """In the existing agents' order; owner and group are set before the mode all the same."""
    permission, path = attributes.permission, _text(place)
    if permission.mode is not None:
        yield {"type": "chmod", "mode": permission.mode.rjust(3, "0"), "file": path}
    if permission.owner is not None or permission.group is not None:
        yield {
            "type": "chown",
            "owner": _name(permission.owner),
            "group": _name(permission.group),
            "file": path,
        }
    if acl:
        yield {"type": "setfacl", "acl": [str(entry) for entry in acl], "file": path}
    context = permission.context
    if context is not None:
        label = {"user": context.user, "role": None, "type": context.type, "range": context.range}
        yield {"type": "semanage", "context": label, "file": path}


def _name(name: str | None) -> str | int | None:
    return int(name) if name is not None and name.isascii() and name.isdigit() else name

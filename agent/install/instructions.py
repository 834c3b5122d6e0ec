"""Writing the group's install.json, cleanup file and manifest."""

from __future__ import annotations

import json
import os
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from agent.files import sync_directory
from agent.install.destinations import Directory
from agent.install.records import LABEL_PREFIX, MANIFEST_HEADER, content_digest, escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agent.deployments.group_files import GroupFiles
    from agent.install.attributes import Attributes
    from agent.install.plan import InstallPlan, Step


def stage_records(files: GroupFiles, token: str, plan: InstallPlan, records: list[bytes | None]) -> None:
    """Afterwards the three files are on the disk beside their places, waiting for `publish_records`."""
    cleanup = b"".join(line + b"\n" for line in _cleanup_lines(plan))
    _write(files.staged(files.cleanup, token), (cleanup,))
    _write(files.staged(files.instructions, token), _instructions(plan))
    _write(files.staged(files.manifest, token), _manifest(plan, records, content_digest(cleanup)))
    sync_directory(files.directory)


def publish_records(files: GroupFiles, token: str) -> None:
    """Afterwards the staged files have their places. May be called again."""
    for path in (files.instructions, files.manifest, files.cleanup):
        staged = files.staged(path, token)
        if staged.exists():
            staged.replace(path)
    sync_directory(files.directory)


def discard_records(files: GroupFiles, token: str) -> None:
    """Afterwards there are no staged files. May be called again."""
    for path in (files.instructions, files.manifest, files.cleanup):
        files.staged(path, token).unlink(missing_ok=True)


def _write(path: Path, parts: Iterable[bytes]) -> None:
    with path.open("wb") as stream:
        os.fchmod(stream.fileno(), 0o644)
        for part in parts:
            stream.write(part)
        stream.flush()
        os.fsync(stream.fileno())


def _cleanup_lines(plan: InstallPlan) -> Iterator[bytes]:
    for step in plan.steps:
        # A name with a newline would make the other agents delete something else.
        if b"\n" not in step.path:
            yield step.path
    for number, attributes in plan.attributes.items():
        path = plan.steps[number].path
        if attributes.permission.context is not None and b"\n" not in path:
            yield LABEL_PREFIX + path


def _instructions(plan: InstallPlan) -> Iterator[bytes]:
    """One line of JSON, made piece by piece: it is long."""
    yield b'{"instructions":['
    for number, step in enumerate(plan.steps):
        if isinstance(step, Directory):
            text = f'{{"type":"mkdir","directory":{_quoted(step.path)}}}'
        else:
            text = f'{{"type":"copy","source":{_quoted(step.source)},"destination":{_quoted(step.path)}}}'
        yield (f",{text}" if number else text).encode()
    separator = "," if plan.steps else ""
    for instruction in _all_permission_instructions(plan):
        yield (separator + json.dumps(instruction, ensure_ascii=False, separators=(",", ":"))).encode()
        separator = ","
    yield b"]}"


def _all_permission_instructions(plan: InstallPlan) -> Iterator[dict[str, Any]]:
    """Entry by entry, files before directories."""
    by_entry: dict[int, list[int]] = {}
    for number, attributes in plan.attributes.items():
        by_entry.setdefault(id(attributes), []).append(number)
    for numbers in by_entry.values():
        attributes = plan.attributes[numbers[0]]
        for is_directory in (False, True):
            for number in numbers:
                step = plan.steps[number]
                if isinstance(step, Directory) == is_directory:
                    yield from _permission_instructions(step, attributes)


def _permission_instructions(step: Step, attributes: Attributes) -> Iterator[dict[str, Any]]:
    """In the existing agents' order; owner and group are set before the mode all the same."""
    permission, path = attributes.permission, _text(step.path)
    if permission.mode is not None:
        yield {"type": "chmod", "mode": permission.mode.rjust(3, "0"), "file": path}
    if permission.owner is not None or permission.group is not None:
        yield {
            "type": "chown",
            "owner": _name(permission.owner),
            "group": _name(permission.group),
            "file": path,
        }
    if permission.acls:
        yield {"type": "setfacl", "acl": [str(entry) for entry in permission.acls], "file": path}
    context = permission.context
    if context is not None:
        label = {"user": context.user, "role": None, "type": context.type, "range": context.range}
        yield {"type": "semanage", "context": label, "file": path}


def _name(name: str | None) -> str | int | None:
    return int(name) if name is not None and name.isascii() and name.isdigit() else name


def _quoted(path: bytes) -> str:
    return encode_basestring(_text(path))


def _text(path: bytes) -> str:
    return path.decode("utf-8", "replace")


def _manifest(plan: InstallPlan, records: list[bytes | None], cleanup_digest: bytes) -> Iterator[bytes]:
    yield MANIFEST_HEADER + cleanup_digest + b"\n"
    place = b""
    for step, record in zip(plan.steps, records, strict=True):
        if isinstance(step, Directory):
            place = step.path
            yield b"c " + escape(place) + b"\n"
            continue
        if step.directory.path != place:
            place = step.directory.path
            yield b"d " + escape(place) + b"\n"
        if record is not None:
            yield record + b" " + escape(step.name) + b"\n"
    for number, attributes in plan.attributes.items():
        context = attributes.permission.context
        if context is not None:
            fields = (context.type, context.user or "-", context.range or "-")
            yield b"s " + " ".join(fields).encode() + b" " + escape(plan.steps[number].path) + b"\n"

"""Writing the group's install.json, cleanup file and manifest."""

from __future__ import annotations

import json
import os
import re
from hashlib import blake2b
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from agent.files import replace_file, sync_directory
from agent.install.planned import PlannedDirectory, PlannedFiles
from agent.install.records import LABEL_PREFIX, MANIFEST_HEADER
from agent.listings import DIGEST_BYTES, content_digest, escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agent.deployments.group_files import GroupFiles
    from agent.install.attributes import Attributes
    from agent.install.planned import InstallPlan
    from agent.install.staged import Staged


def stage_records(
    files: GroupFiles, token: str, plan: InstallPlan, staged: list[Staged], deployment_id: str
) -> None:
    """Afterwards the three files are on the disk beside their places, waiting for `publish_records`."""
    cleanup = b"".join(_cleanup(plan))
    _write(files.staged(files.cleanup, token), (cleanup,))
    digest = _write(files.staged(files.instructions, token), _instructions(plan))
    named = (content_digest(cleanup), digest, escape(os.fsencode(deployment_id)))
    header = MANIFEST_HEADER + b" ".join(named) + b"\n"
    _write(files.staged(files.manifest, token), _manifest(plan, staged, header))
    sync_directory(files.directory)


def publish_records(files: GroupFiles, token: str) -> None:
    """Afterwards the staged files have their places. May be called again."""
    for path in (files.instructions, files.manifest, files.cleanup):
        staged = files.staged(path, token)
        if staged.exists():
            staged.replace(path)
    sync_directory(files.directory)


def claim_paths(files: GroupFiles, paths: Iterable[bytes]) -> None:
    """Afterwards these are among what the last Install created, as far as its records go."""
    lines = b"".join(path + b"\n" for path in paths if b"\n" not in path)
    cleanup = files.cleanup.read_bytes() + lines
    manifest = files.manifest.read_bytes()
    header, _end, rest = manifest.partition(b"\n")
    magic, version, _digest, *rest_of_header = header.split(b" ")
    claimed = b"".join(
        b"d " + escape(path.rpartition(b"/")[0]) + b"\n" + b" " + escape(path.rpartition(b"/")[2]) + b"\n"
        for path in paths
    )
    header = b" ".join((magic, version, content_digest(cleanup), *rest_of_header))
    # The other way round, a crash in between would leave a manifest that fits, and lacks them.
    replace_file(files.manifest, header + b"\n" + claimed + rest)
    replace_file(files.cleanup, cleanup)


def discard_records(files: GroupFiles, token: str) -> None:
    """Afterwards there are no staged files. May be called again."""
    for path in (files.instructions, files.manifest, files.cleanup):
        files.staged(path, token).unlink(missing_ok=True)


def _write(path: Path, parts: Iterable[bytes]) -> bytes:
    """Afterwards the file is on the disk; the digest of its content."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    with path.open("wb") as stream:
        os.fchmod(stream.fileno(), 0o644)
        for part in parts:
            stream.write(part)
            digest.update(part)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest().encode()


def _cleanup(plan: InstallPlan) -> Iterator[bytes]:
    """One line per path. A name with a newline would make the other agents delete something else."""
    for step in plan.steps:
        if isinstance(step, PlannedDirectory):
            if b"\n" not in step.directory.path:
                yield step.directory.path + b"\n"
            continue
        prefix = step.prefix
        if b"\n" not in prefix:
            yield b"".join([prefix + name + b"\n" for name in step.names if b"\n" not in name])
    for path, attributes, _ in plan.attributes():
        if attributes.permission.context is not None and b"\n" not in path:
            yield LABEL_PREFIX + path + b"\n"


def _instructions(plan: InstallPlan) -> Iterator[bytes]:
    """One line of JSON, made piece by piece: it is long."""
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
    begin = b'{"type":"copy","source":' + _quoted(files.source_directory + b"/").encode()[:-1]
    middle = b'","destination":' + _quoted(files.prefix).encode()[:-1]
    names = files.names
    if not _is_plain(b"".join(names)):
        names = [_quoted(name).encode()[1:-1] for name in names]
    return b",".join([b'%b%b%b%b"}' % (begin, name, middle, name) for name in names])


_PLAIN = re.compile(rb"[ !#-\[\]-~]*")


def _is_plain(text: bytes) -> bool:
    """Whether it is the same in JSON."""
    return _PLAIN.fullmatch(text) is not None


def _all_permission_instructions(plan: InstallPlan) -> Iterator[dict[str, Any]]:
    """Entry by entry, files before directories."""
    # Names are referred to, since the paths of 100,000 files would take 10 MB.
    by_entry: dict[int, tuple[Attributes, dict[bytes, list[bytes]], list[bytes]]] = {}
    for step in plan.steps:
        if isinstance(step, PlannedFiles):
            prefix = step.prefix
            for name, attributes in step.attributes.items():
                _, files, _ = by_entry.setdefault(id(attributes), (attributes, {}, []))
                files.setdefault(prefix, []).append(name)
        elif step.attributes is not None:
            _, _, directories = by_entry.setdefault(id(step.attributes), (step.attributes, {}, []))
            directories.append(step.directory.path)
    for attributes, files, directories in by_entry.values():
        for prefix, names in files.items():
            for name in names:
                yield from _permission_instructions(prefix + name, attributes)
        for path in directories:
            yield from _permission_instructions(path, attributes)


def _permission_instructions(place: bytes, attributes: Attributes) -> Iterator[dict[str, Any]]:
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


def _manifest(plan: InstallPlan, staged: list[Staged], header: bytes) -> Iterator[bytes]:
    yield header
    place = b""
    results = iter(staged)
    for step in plan.steps:
        if isinstance(step, PlannedDirectory):
            place = step.directory.path
            yield b"c " + escape(place) + b"\n"
            continue
        if step.directory.path != place:
            place = step.directory.path
            yield b"d " + escape(place) + b"\n"
        lines = next(results).lines
        yield b"".join(
            [b"%b %b\n" % (fields, escape(name)) for fields, name in zip(lines, step.names, strict=True)]
        )
    for path, attributes, _ in plan.attributes():
        context = attributes.permission.context
        if context is not None:
            fields = (context.type, context.user or "-", context.range or "-")
            yield b"s " + " ".join(fields).encode() + b" " + escape(path) + b"\n"

"""Writing the group's install.json, cleanup file and manifest."""

from __future__ import annotations

import os
from hashlib import blake2b
from itertools import chain, count
from typing import TYPE_CHECKING, NamedTuple

from agent.files import is_there, replace_file, sync_directory
from agent.install.apply.install_json import instructions_of
from agent.install.model.steps import PlannedDirectory
from agent.install.records.install_json import InstructionsDigest, moved
from agent.install.records.manifest import (
    LABEL_PREFIX,
    NOT_REPEATABLE,
    UNKNOWN_STATE,
    ManifestHeader,
    encode_mount_points,
    state_of_record,
)
from agent.install.records.previous import fitting_records
from agent.listings import DIGEST_BYTES, content_digest, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from agent.deployments.group_files import GroupFiles
    from agent.install.apply.own_directories import StatesToRecord
    from agent.install.compare.repetition import Repetition
    from agent.install.model.request import InstallRequest
    from agent.install.plan.plan import InstallPlan


_PIECE_BYTES = 128 * 1024  # so that what is done next with a piece finds it in the processor's cache


class StagedRecord(NamedTuple):
    """One of the two files that other agents read, as it waits beside its place."""

    digest: bytes
    state: bytes


def stage_instructions(
    files: GroupFiles, token: str, request: InstallRequest, plan: InstallPlan, *, syncs: bool
) -> StagedRecord:
    """Write install.json beside its place, where it waits for `publish_records`.

    Args:
        files: the group's.
        token: of this Install.
        request: what is to be installed.
        plan: of this Install.
        syncs: whether it is to be on the disk then.
    """
    place, archive, repetition = (
        files.staged(files.instructions, token),
        os.fsencode(request.archive),
        plan.repetition,
    )
    if repetition is not None:
        with open(files.instructions, "rb") as stream:
            state = _write(place, moved(stream, repetition.header.archive, archive), syncs=syncs)
        return StagedRecord(repetition.header.instructions, state)
    digest = InstructionsDigest(archive)
    state = _write(place, _digested(instructions_of(plan), digest.update), syncs=syncs)
    return StagedRecord(digest.hexdigest(), state)


def stage_cleanup(files: GroupFiles, token: str, plan: InstallPlan, *, syncs: bool) -> StagedRecord:
    """Write the cleanup file beside its place, where it waits for `publish_records`.

    Args:
        files: the group's.
        token: of this Install.
        plan: of this Install.
        syncs: whether it is to be on the disk then.
    """
    place, repetition = files.staged(files.cleanup, token), plan.repetition
    if repetition is not None:
        return StagedRecord(repetition.header.cleanup, _write(place, (repetition.cleanup,), syncs=syncs))
    digest = blake2b(digest_size=DIGEST_BYTES)
    state = _write(place, _digested(_cleanup(plan), digest.update), syncs=syncs)
    return StagedRecord(digest.hexdigest().encode(), state)


def stage_manifest(
    files: GroupFiles,
    token: str,
    request: InstallRequest,
    plan: InstallPlan,
    listed: Iterable[bytes],
    *,
    cleanup: StagedRecord,
    instructions: StagedRecord,
    syncs: bool,
) -> None:
    """Write the manifest beside its place, where it waits for `publish_records`.

    Args:
        files: the group's.
        token: of this Install.
        request: what was to be installed.
        plan: of this Install.
        listed: what `manifest_lines` says of it.
        cleanup: the cleanup file that it is to fit.
        instructions: the install.json that it is to fit.
        syncs: whether all three are to be on the disk then.
    """
    header = ManifestHeader(
        cleanup=cleanup.digest,
        cleanup_state=cleanup.state,
        instructions=instructions.digest,
        instructions_state=instructions.state,
        asked=plan.asked,
        archive=os.fsencode(request.archive),
        deployment_id=os.fsencode(request.deployment_id),
    )
    _write(files.staged(files.manifest, token), chain((header.encoded(),), _joined(listed)), syncs=syncs)
    if syncs:
        sync_directory(files.directory)


def publish_records(files: GroupFiles, token: str) -> None:
    """Let the staged files take their places. May be called again."""
    for path in (files.instructions, files.manifest, files.cleanup):
        staged = files.staged(path, token)
        if is_there(staged):
            staged.replace(path)
    sync_directory(files.directory)


def claim_paths(files: GroupFiles, paths: Collection[bytes]) -> None:
    """Add these to what the last Install created, as far as its records tell."""
    lines = b"".join(path + b"\n" for path in paths if b"\n" not in path)
    records = fitting_records(files)
    known = records.cleanup or b""
    cleanup = known[: known.rfind(b"\n") + 1] + lines  # a last line without its end is unfinished
    if records.header is not None:
        claimed = b"".join(
            b"d - - %b\n %b\n" % (escape(path.rpartition(b"/")[0]), escape(path.rpartition(b"/")[2]))
            for path in paths
        )
        header = records.header._replace(
            cleanup=content_digest(cleanup), cleanup_state=UNKNOWN_STATE, asked=NOT_REPEATABLE
        )
        # The other way round, a crash in between would leave a manifest that fits, and lacks them.
        mounted = encode_mount_points(records.mount_points)
        replace_file(files.manifest, header.encoded() + claimed + records.listed + mounted)
    replace_file(files.cleanup, cleanup)


def discard_records(files: GroupFiles, token: str) -> None:
    """Remove the staged files. May be called again."""
    for path in (files.instructions, files.manifest, files.cleanup):
        files.staged(path, token).unlink(missing_ok=True)


def _write(path: Path, parts: Iterable[bytes], *, syncs: bool) -> bytes:
    """Write the file, and wait for the disk if it `syncs`; the state that the file is in then."""
    with path.open("wb") as stream:
        os.fchmod(stream.fileno(), 0o644)
        stream.writelines(parts)
        stream.flush()
        if syncs:
            os.fsync(stream.fileno())
        return state_of_record(os.fstat(stream.fileno()))


def _digested(parts: Iterable[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    """These parts in larger pieces, with each of which a digest is updated."""
    for piece in _joined(parts):
        update(piece)
        yield piece


def _joined(parts: Iterable[bytes]) -> Iterator[bytes]:
    """These parts in larger pieces: with many small directories, writing them takes half the time."""
    some: list[bytes] = []
    length = 0
    for part in parts:
        some.append(part)
        length += len(part)
        if length >= _PIECE_BYTES:
            yield b"".join(some)
            some.clear()
            length = 0
    yield b"".join(some)


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


def manifest_lines(
    plan: InstallPlan, lines_of: Callable[[int], bytes], states: StatesToRecord
) -> Iterator[bytes]:
    """The manifest but for its header, as lines. To be made when everything has its place.

    Args:
        plan: of the Install.
        lines_of: the lines of the planned files with this number, which is asked for once, in order.
        states: of directories.
    """
    if plan.repetition is not None:
        yield from _repeated(plan, plan.repetition, lines_of, states)
        return
    place = b""
    numbers = count()
    for step in plan.steps:
        if isinstance(step, PlannedDirectory):
            place = step.directory.path
            yield b"d c %b %b\n" % (states.of(step), escape(place))
            continue
        if step.directory.path != place:
            place = step.directory.path
            yield b"d - %b %b\n" % (states.which(step.directory.real), escape(place))
        yield lines_of(next(numbers))
    for path, attributes, _ in plan.attributes():
        context = attributes.permission.context
        if context is not None:
            fields = (context.type, context.user or "-", context.range or "-")
            yield b"s " + " ".join(fields).encode() + b" " + escape(path) + b"\n"
    yield encode_mount_points(plan.mount_points)


def _repeated(
    plan: InstallPlan, repetition: Repetition, lines_of: Callable[[int], bytes], states: StatesToRecord
) -> Iterator[bytes]:
    """The lines of the last manifest, but for those about what is planned, or was looked at."""
    directories = {path: b"c " + now.state for path, now in repetition.states.items() if now.is_lasting}
    lines: dict[bytes, list[bytes]] = {}
    numbers = count()
    for step in plan.steps:
        path = step.directory.path
        if isinstance(step, PlannedDirectory):
            directories[path] = b"c " + states.of(step)
        else:
            lines.setdefault(path, []).extend(lines_of(next(numbers)).split(b"\n")[:-1])
    yield from repetition.listed.changed(directories, lines)
    yield encode_mount_points(repetition.mount_points)

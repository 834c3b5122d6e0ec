"""A bundle on disk → its deployment archive."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from agent.archive_index import index_of
from agent.bundle.failures import corrupt, disk_full, not_written, too_large
from agent.bundle.inflate import compression_of
from agent.bundle.replacement import holds_appspec, replaced_directory
from agent.bundle.stream import ByteStream
from agent.bundle.tar_bundle import unpack_tar
from agent.bundle.tar_headers import BLOCK_BYTES, HeaderInvalid, parse_header
from agent.bundle.tree import Tree
from agent.bundle.zip_bundle import unpack_zip
from agent.bundle.zip_directory import ZipDirectory
from agent.errors import CommandFailure
from agent.logs import get_logger
from agent.protocol import BundleType

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.archive_index import IndexWriter
    from agent.bundle.limits import ArchiveLimits

log = get_logger()

_MOST_NAMES = 10
_ZIP = (b"PK\3\4", b"PK\5\6", b"PK\7\10")
_OTHER_FORMATS = {
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"Rar!": "a rar archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"<?xml": "an XML document, maybe an error page",
    b"<!DOCTYPE": "an HTML page, maybe an error page",
    b"<html": "an HTML page, maybe an error page",
    b"{": "a JSON text, maybe an error message",
}


def unpack_bundle(
    bundle: Path, bundle_type: BundleType, archive: Path, limits: ArchiveLimits, appspec_names: Sequence[str]
) -> None:
    """Afterwards `archive` is what the bundle holds, instead of whatever it was before.

    Modes, times, links and (as root, unless the limits say otherwise) owners are those of the
    bundle; setuid and setgid bits count in a tar only. `archive` itself has mode 0755 and is ours.
    If one top-level directory has the AppSpec that the top lacks, what is in it is all that counts.

    Args:
        bundle: the file.
        bundle_type: TAR and TGZ may each be compressed with gzip, bzip2, xz or not at all.
        archive: its parent directory must exist. If anything fails, nothing of the bundle is left.
        limits: this host's.
        appspec_names: paths that an AppSpec may have, relative to the archive.

    Raises:
        CommandFailure: the bundle is damaged or refused, or the archive can't be written.
    """
    try:
        descriptor = os.open(bundle, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise not_written(bundle, error) from error
    try:
        _check_format(descriptor, bundle, bundle_type)
        with replaced_directory(archive) as fresh:
            unpack = _unpack_zip if bundle_type is BundleType.ZIP else _unpack_tar
            index, unpacked = unpack(descriptor, bundle, fresh.path, limits), fresh.path
            fresh.path = without_top_directory(unpacked, appspec_names)
            top = os.fsencode(fresh.path.name) if fresh.path != unpacked else b""
            index.write(index_of(archive), top=top)
    finally:
        os.close(descriptor)


def without_top_directory(unpacked: Path, appspec_names: Sequence[str]) -> Path:
    """The one directory in `unpacked` that has the AppSpec which `unpacked` itself lacks; else `unpacked`.

    What lies beside it (`__MACOSX`, `.DS_Store`) is left out, as the existing agents do it.
    """
    if holds_appspec(unpacked, appspec_names):
        return unpacked
    with os.scandir(unpacked) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    found = [
        name for name, is_directory in names if is_directory and holds_appspec(unpacked / name, appspec_names)
    ]
    visible = [name for name in found if not name.startswith(".")] or found
    if len(visible) != 1:
        return unpacked
    left_out = sorted(name for name, _is_directory in names if name != visible[0])
    if left_out:
        log.warning(
            "bundle_files_left_out", beside=visible[0], number=len(left_out), names=left_out[:_MOST_NAMES]
        )
    return unpacked / visible[0]


def _unpack_tar(descriptor: int, bundle: Path, fresh: Path, limits: ArchiveLimits) -> IndexWriter:
    with contextlib.closing(ByteStream(descriptor, bundle)) as stream:
        if not stream.is_compressed:
            _check_room(fresh, bundle, os.fstat(descriptor).st_size, 0)
        with Tree(fresh, limits) as tree:
            unpack_tar(stream, tree, keeps_owners=os.geteuid() == 0 and not limits.ignore_ownership)
            return tree.finish()


def _unpack_zip(descriptor: int, bundle: Path, fresh: Path, limits: ArchiveLimits) -> IndexWriter:
    directory = ZipDirectory(descriptor, bundle)
    size, compressed = directory.totals()
    if compressed > os.fstat(descriptor).st_size:
        raise corrupt(bundle, "its members overlap, as they do in archives made to fill a disk")
    if limits.max_extraction_size_bytes is not None and size > limits.max_extraction_size_bytes:
        raise too_large(limits.max_extraction_size_bytes, size)
    _check_room(fresh, bundle, size, directory.member_count)
    with Tree(fresh, limits) as tree:
        unpack_zip(descriptor, directory, tree)
        return tree.finish()


def _check_format(descriptor: int, bundle: Path, bundle_type: BundleType) -> None:
    beginning = os.pread(descriptor, BLOCK_BYTES, 0)
    seen = _format_of(beginning)
    is_zip = bundle_type is BundleType.ZIP
    if seen is None or (seen == "a zip" if is_zip else seen.startswith("a tar")):
        return
    raise CommandFailure(
        "bundle-type-wrong",
        f"The bundle {bundle} can't be unpacked: the revision says that its type is {bundle_type.value}, but it"
        f" looks like {seen}. Register the revision with the right bundle type, or upload the right file.",
    )


def _format_of(beginning: bytes) -> str | None:
    """What a file looks like that begins so; None = can't be told."""
    if beginning.startswith(_ZIP):
        return "a zip"
    if compression_of(beginning) is not None:
        return "a tar, compressed"
    if _is_tar(beginning):
        return "a tar"
    text = beginning.lstrip()
    return next((name for magic, name in _OTHER_FORMATS.items() if text.startswith(magic)), None)


def _is_tar(beginning: bytes) -> bool:
    """By its first header's checksum: the oldest tars have no other mark, and begin with any name at all."""
    try:
        return len(beginning) == BLOCK_BYTES and bool(parse_header(beginning).name)
    except HeaderInvalid:
        return beginning[257:262] == b"ustar"


def _check_room(fresh: Path, bundle: Path, size: int, count: int) -> None:
    """Know before the disk is full, while there is still room for everybody else."""
    room = os.statvfs(fresh)
    free = room.f_bavail * room.f_frsize
    if size > free:
        raise disk_full(fresh.parent, f"{size} bytes for what {bundle.name} holds are", f"{free} bytes are")
    if room.f_files and count > room.f_favail:
        raise disk_full(
            fresh.parent, f"{count} inodes for what {bundle.name} holds are", f"{room.f_favail} are"
        )

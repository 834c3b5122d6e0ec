"""A bundle on disk → its deployment archive."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from agent.archive_index import index_of
from agent.bundle.failures import corrupt, disk_full, not_written, printable, too_large
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
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from agent.archive_index import IndexWriter
    from agent.bundle.limits import ArchiveLimits

log = get_logger()

_MOST_NAMES = 10
_ZIP = (b"PK\3\4", b"PK\5\6", b"PK\7\10")
_OTHER_FORMATS = {
    b"LZIP": "compressed with lzip",
    b"\x89LZO": "compressed with lzop",
    b"\x1f\x9d": "compressed with compress",
    b"\x5d\0\0": "compressed with lzma",
    b"\x04\x22\x4d\x18": "compressed with lz4",
    b"\x7fELF": "a program",
    b"Rar!": "a rar archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"<?xml": "an XML document, maybe an error page",
    b"<!DOCTYPE": "an HTML page, maybe an error page",
    b"<html": "an HTML page, maybe an error page",
    b"<HTML": "an HTML page, maybe an error page",
    b"<!doctype": "an HTML page, maybe an error page",
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
        bundle_type: TAR and TGZ may each be compressed with gzip, bzip2, xz, zstd or not at all.
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
        with replaced_directory(archive) as fresh, unchanged(descriptor, bundle):
            unpack = _unpack_zip if bundle_type is BundleType.ZIP else _unpack_tar
            index, unpacked = unpack(descriptor, bundle, fresh.path, limits), fresh.path
            fresh.path = without_top_directory(unpacked, appspec_names)
            top = os.fsencode(fresh.path.name) if fresh.path != unpacked else b""
            index.write(index_of(archive), top=top)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def unchanged(descriptor: int, bundle: Path) -> Iterator[None]:
    """What is read of the file within is one file: a local bundle is the user's, who may be writing it just now.

    Raises:
        CommandFailure: `bundle-local-changed`; also in place of what its being half written led to.
    """
    before = os.fstat(descriptor)
    try:
        yield
    except CommandFailure as failure:
        _check_unchanged(before, os.fstat(descriptor), bundle, failure)
        raise
    _check_unchanged(before, os.fstat(descriptor), bundle, None)


def _check_unchanged(
    before: os.stat_result, now: os.stat_result, bundle: Path, cause: CommandFailure | None
) -> None:
    if (before.st_size, before.st_mtime_ns) != (now.st_size, now.st_mtime_ns):
        raise CommandFailure(
            "bundle-local-changed",
            f"The bundle {bundle} was written to while it was unpacked: it had {before.st_size} bytes, and has"
            f" {now.st_size} now. Nothing of it was kept. Wait until it is complete, and deploy again.",
        ) from cause


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
    found = _format_of(beginning)
    is_zip = bundle_type is BundleType.ZIP
    if found is not None and (found == "a zip" if is_zip else found.startswith("a tar")):
        return
    # A program may stand in front of a zip, and what is too short for a tar's first header was cut off.
    if found is None and (is_zip or len(beginning) < BLOCK_BYTES) and not _is_text(beginning):
        return
    seen = f"looks like {found}" if found is not None else "is none"
    if found is None or "maybe" in found:
        shown = beginning[:60] if _is_text(beginning) else beginning[:16]
        seen += f": it begins with {printable(shown)}"
        if found is None and _is_text(beginning):
            seen += ", maybe an error message"
    raise CommandFailure(
        "bundle-type-wrong",
        f"The bundle {bundle} can't be unpacked: the revision says that its type is {bundle_type.value}, but it"
        f" {seen}. {_advice(seen)}",
    )


def _advice(seen: str) -> str:
    if seen.startswith(("looks like a zip", "looks like a tar")):
        right = "zip" if seen.startswith("looks like a zip") else "tgz" if "compressed" in seen else "tar"
        return f"Register the revision with the bundle type {right}."
    if "error" in seen:
        return "Look at the step that made or fetched the file before it was uploaded: what it got was an answer, no bundle."
    return "Upload the file that was meant, made with tar or zip, and register that revision."


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


def _is_text(beginning: bytes) -> bool:
    """Whether these bytes are text to a reader; empty ones are none."""
    text = beginning.decode("utf-8", "ignore")
    return (
        bool(text)
        and len(text.encode()) > len(beginning) - 4
        and all(char.isprintable() or char.isspace() for char in text)
    )


def _is_tar(beginning: bytes) -> bool:
    """By its first header's checksum: the oldest tars have no other mark, and begin with any name at all."""
    if len(beginning) == BLOCK_BYTES and not beginning.strip(b"\0"):
        return True  # a tar of nothing
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

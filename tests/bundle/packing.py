"""Archives made from lists of members, honest ones and hostile ones."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Pack = Callable[..., bytes]

MTIME = 1_500_000_000


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member; `link` of a hard or symbolic one is its target."""

    name: str
    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    mode: int = 0o644
    link: str = ""
    uid: int = 0
    gid: int = 0


def file(name: str, content: bytes = b"content", mode: int = 0o644, uid: int = 0, gid: int = 0) -> Member:
    return Member(name=name, content=content, mode=mode, uid=uid, gid=gid)


def directory(name: str, mode: int = 0o755) -> Member:
    return Member(name=name, type=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Member:
    return Member(name=name, type=tarfile.SYMTYPE, link=target, mode=0o777)


def hard_link(name: str, target: str) -> Member:
    return Member(name=name, type=tarfile.LNKTYPE, link=target)


def tar_bytes(*members: Member, pax: bool = False) -> bytes:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT
    ) as archive:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.mode, info.linkname, info.mtime = member.type, member.mode, member.link, MTIME
            info.uid, info.gid, info.size = member.uid, member.gid, len(member.content)
            archive.addfile(info, io.BytesIO(member.content))
    return out.getvalue()


def tgz_bytes(*members: Member) -> bytes:
    return gzip.compress(tar_bytes(*members), compresslevel=1, mtime=0)


def zip_bytes(*members: Member, system: int = 3, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    types = {tarfile.REGTYPE: 0o100000, tarfile.DIRTYPE: 0o040000, tarfile.SYMTYPE: 0o120000}
    with zipfile.ZipFile(out, "w", method) as archive:
        for member in members:
            is_directory = member.type == tarfile.DIRTYPE
            info = zipfile.ZipInfo(member.name + "/" * is_directory, time.localtime(MTIME)[:6])
            info.create_system = system
            info.compress_type = method
            info.external_attr = (types.get(member.type, 0o010000) | member.mode) << 16
            archive.writestr(info, member.link or member.content)
    return out.getvalue()


def tree_of(root: Path) -> dict[str, tuple[str, int, bytes | str]]:
    """What lies below: relative path → kind, permission bits, and content or target."""
    found: dict[str, tuple[str, int, bytes | str]] = {}
    for path in sorted(root.rglob("*")):
        name, mode = str(path.relative_to(root)), path.lstat().st_mode & 0o7777
        if path.is_symlink():
            found[name] = ("link", 0o777, os.readlink(path))
        elif path.is_dir():
            found[name] = ("directory", mode, b"")
        else:
            found[name] = ("file", mode, path.read_bytes())
    return found

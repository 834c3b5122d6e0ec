"""File trees as data: written from it, and read back into it."""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

MTIME_NS = 1_500_000_000 * 10**9

ACL_NAMES = ("system.posix_acl_access", "system.posix_acl_default")


def write_tree(root: Path, tree: dict[str, Any]) -> None:
    """Make what the mapping describes: a text is a file, a name that ends with / a directory.

    A file with more to say is a mapping: content, mode, link (a symbolic link), same_as (a hard link).
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, value in tree.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod((value or {}).get("mode", 0o755))
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        described = value if isinstance(value, dict) else {"content": value}
        if "link" in described:
            path.symlink_to(described["link"])
        elif "same_as" in described:
            path.hardlink_to(root / described["same_as"])
        else:
            content = described.get("content", "")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            path.chmod(described.get("mode", 0o644))
        os.utime(path, ns=(MTIME_NS, described.get("mtime_ns", MTIME_NS)), follow_symlinks=False)


def read_tree(root: Path) -> dict[str, Any]:
    """The same mapping for what is there; mode is left out where it is 0644 or 0755."""
    seen: dict[str, Any] = {}
    for name, found in everything_about(root).items():
        mode = stat.S_IMODE(found.mode)
        if name == ".":
            continue
        if stat.S_ISLNK(found.mode):
            seen[name] = {"link": os.fsdecode(found.content or b"")}
        elif stat.S_ISDIR(found.mode):
            seen[name + "/"] = None if mode == 0o755 else {"mode": mode}
        else:
            content = (found.content or b"").decode("utf-8", "surrogateescape")
            seen[name] = content if mode == 0o644 else {"content": content, "mode": mode}
    return seen


def give_acl(path: Path, *entries: tuple[int, int, int], is_default: bool = False) -> None:
    """Give it this list: tag, permissions and id of each entry, in the order of the kernel."""
    packed = b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, ACL_NAMES[is_default], struct.pack("<I", 2) + packed)


def acl_for(uid: int, permissions: int) -> list[tuple[int, int, int]]:
    """Entries that let this user have these permissions, beside those of mode 0755."""
    none = 0xFFFFFFFF
    return [
        (0x01, 7, none),
        (0x02, permissions, uid),
        (0x04, 5, none),
        (0x10, 7, none),
        (0x20, 5, none),
    ]


class Found(NamedTuple):
    """All that is to be known about one name in a tree; `content` of a link is its target."""

    inode: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    content: bytes | None
    acls: tuple[bytes | None, ...]

    def as_delivered(self) -> Found:
        """Without what no two Installs of one revision have in common."""
        own_time = not stat.S_ISDIR(self.mode)
        return self._replace(inode=0, mtime_ns=self.mtime_ns if own_time else 0)


def everything_about(root: Path) -> dict[str, Found]:
    """Relative name → all that must be the same after an undo. `.` is the root itself."""
    seen: dict[str, Found] = {}
    top = os.fsencode(root)
    if os.path.lexists(top):
        seen["."] = _found(top)
        _walk(top, b"", seen)
    return dict(sorted(seen.items()))


def _walk(directory: bytes, prefix: bytes, seen: dict[str, Found]) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            name = prefix + entry.name
            seen[os.fsdecode(name)] = _found(entry.path)
            if entry.is_dir(follow_symlinks=False):
                _walk(entry.path, name + b"/", seen)


def _found(path: bytes) -> Found:
    status = os.lstat(path)
    content: bytes | None = None
    acls: tuple[bytes | None, ...] = ()
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    else:
        present = os.listxattr(path)
        acls = tuple(os.getxattr(path, name) if name in present else None for name in ACL_NAMES)
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb", buffering=0) as stream:
                content = stream.readall()
    return Found(
        status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content, acls
    )

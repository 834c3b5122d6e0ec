"""File trees as data: written from it, and read back into it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

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
    for path in _all_paths(root):
        name = path.relative_to(root).as_posix()
        status = path.lstat()
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            seen[name] = {"link": os.readlink(path)}
        elif stat.S_ISDIR(status.st_mode):
            seen[name + "/"] = None if mode == 0o755 else {"mode": mode}
        else:
            content = path.read_bytes().decode("utf-8", "surrogateescape")
            seen[name] = content if mode == 0o644 else {"content": content, "mode": mode}
    return seen


def everything_about(root: Path) -> dict[str, tuple[Any, ...]]:
    """All that must be the same after an undo: kind, inode, mode, owner, times, content, ACLs."""
    seen = {}
    for path in [root, *_all_paths(root)]:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            content: object = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        else:
            content = None
        acls = () if path.is_symlink() else tuple(_acl(path, name) for name in ACL_NAMES)
        owner = (status.st_uid, status.st_gid)
        name = path.relative_to(root).as_posix()
        seen[name] = (status.st_ino, status.st_mode, *owner, status.st_mtime_ns, content, acls)
    return seen


def _all_paths(root: Path) -> list[Path]:
    found = []
    for directory, directories, files in os.walk(root):
        found += [Path(directory, name) for name in directories + files]
    return sorted(found)


def _acl(path: Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name)
    except OSError:
        return None

"""Paths inside a deployment archive, by arithmetic."""

from __future__ import annotations


def leaves_archive(path: str) -> bool:
    """Whether `..` leads out of the archive at any point; a leading slash is the archive itself."""
    depth = 0
    for component in path.split("/"):
        if component == "..":
            depth -= 1
        elif component not in {"", "."}:
            depth += 1
        if depth < 0:
            return True
    return False

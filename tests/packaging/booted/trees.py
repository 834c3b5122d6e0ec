"""Debian roots as directories."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.packaging.booted.started_command import StartedCommand

if TYPE_CHECKING:
    from pathlib import Path

_OPTIONS = (
    "--quiet",
    "--variant=minbase",
    "--include=systemd,systemd-sysv,dbus",
    # To be quick, documentation is left out; but not ours, later.
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    '--customize-hook=rm "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"',
)
_SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
_RELEASE = "bookworm"


def start_debian(kept: Path, scratch: Path) -> tuple[list[StartedCommand], Path]:
    """A minimal Debian is being made, unless one is kept from last time; and its file, once the commands have ended."""
    tar = kept / f"debian-{_RELEASE}.tar"
    if tar.exists():
        return [], tar
    unfinished = scratch / tar.name
    sources = next(path for path in _SOURCES if os.path.exists(path))
    script = f'mmdebstrap "$@" {_RELEASE} "{unfinished}" {sources} && mv "{unfinished}" "{tar}"'
    if unfinished == tar:
        script = script.partition(" && ")[0]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    return [StartedCommand(["sh", "-c", script, "sh", *_OPTIONS], environment)], tar


def unpack(tar: Path, tree: Path) -> Path:
    """The tree, which is as the tar says."""
    tree.mkdir()
    subprocess.run(["tar", "-xpf", str(tar), "--numeric-owner", "-C", str(tree)], check=True)
    return tree

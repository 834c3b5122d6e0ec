"""Bundles for whole deployments, packed by the standard library and the usual tools."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def appspec(destination: Path, hooks: Mapping[str, str] | None = None, source: str = "app") -> str:
    """An AppSpec that installs one directory; `hooks` maps events to script names."""
    lines = [
        "version: 0.0",
        "os: linux",
        "files:",
        f"  - source: {source}",
        f"    destination: {destination}",
    ]
    if hooks:
        lines.append("hooks:")
    for event, script in (hooks or {}).items():
        lines += [f"  {event}:", f"    - location: {script}", "      timeout: 60"]
    return "\n".join(lines) + "\n"


def pack(kind: str, members: Mapping[str, str | bytes], top: str = "") -> bytes:
    """A bundle of these files as tar, tgz or zip; scripts (`*.sh`) are executable."""
    prefix = f"{top}/" if top else ""
    buffer = io.BytesIO()
    encoded = {
        prefix + name: text.encode() if isinstance(text, str) else text for name, text in members.items()
    }
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in encoded.items():
                info = zipfile.ZipInfo(name)
                info.external_attr = (0o100755 if name.endswith(".sh") else 0o100644) << 16
                archive.writestr(info, content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tgz" else "w") as tar:
        for name, content in encoded.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if name.endswith(".sh") else 0o644
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()

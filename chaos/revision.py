"""A small application whose hooks write down that they ran."""
# ruff: noqa: S311 - reproducible, not secret

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import random
import tarfile
import zipfile
from typing import TYPE_CHECKING

from chaos.schedule import BundleType, Script

if TYPE_CHECKING:
    from pathlib import Path

HOOK_EVENTS = ("ApplicationStop", "BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService")
TIMED_OUT_EVENT = "AfterInstall"
FAILING_EVENT = "ValidateService"
_SLOW_EVENT = "ApplicationStart"
_FILES = 240
_LARGE_BYTES = 96 * 1024
_HOOK = """\
#!/bin/sh
echo "$DEPLOYMENT_ID $LIFECYCLE_EVENT start $$" >> {marks}
echo "output of $LIFECYCLE_EVENT"
{body}
echo "$DEPLOYMENT_ID $LIFECYCLE_EVENT end $$" >> {marks}
{ending}
"""
# Children in sessions of their own, of which one's parent has gone and one ignores SIGTERM.
_LINGERING = """\
setsid sleep 600 &
(setsid sleep 601 > /dev/null 2>&1 &)
setsid sh -c 'trap "" TERM; sleep 602; sleep 603' &
sleep 604
"""


@functools.lru_cache(maxsize=16)
def content_of(number: int) -> dict[str, bytes]:
    """The files of this revision: some stay the same, some change, some come and go."""
    files: dict[str, bytes] = {}
    for index in range(_FILES):
        if index % 7 == number % 7:
            continue
        version = number if index % 3 == 0 else 0
        files[f"d{index % 5}/f{index}"] = f"{index} {version}\n".encode() * (1 + index % 40)
    files["revision"] = f"{number}\n".encode()
    # Does not get smaller: downloads have a middle in which they can break off.
    files["large"] = random.Random(number).randbytes(_LARGE_BYTES)
    return files


def make_bundle(
    number: int, script: Script, bundle_type: BundleType, *, destination: Path, marks: Path
) -> bytes:
    """The revision, packed.

    What must be there comes last: a bundle that has lost its beginning still looks like one.
    """
    texts = {f"app/{name}": content for name, content in content_of(number).items()}
    for event in HOOK_EVENTS:
        body = "sleep 0.05"
        if script is Script.SLOW and event == _SLOW_EVENT:
            body = "sleep 1.5"
        if script is Script.TIMED_OUT and event == TIMED_OUT_EVENT:
            body = _LINGERING
        ending = "exit 3" if script is Script.FAILING and event == FAILING_EVENT else ""
        texts[f"hooks/{event}.sh"] = _HOOK.format(marks=marks, body=body, ending=ending).encode()
    texts["appspec.yml"] = _appspec(script, destination).encode()
    return _zip(texts) if bundle_type is BundleType.ZIP else _tar(texts, bundle_type)


def _tar(texts: dict[str, bytes], bundle_type: BundleType) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = _mode(name)
            archive.addfile(info, io.BytesIO(content))
    packed = buffer.getvalue()
    return gzip.compress(packed, 1) if bundle_type is BundleType.TGZ else packed


def _zip(texts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in texts.items():
            info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            info.external_attr = (0o100000 | _mode(name)) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def _mode(name: str) -> int:
    return 0o755 if name.endswith(".sh") else 0o644


def _appspec(script: Script, destination: Path) -> str:
    lines = ["version: 0.0", "os: linux", "files:", "  - source: app", f"    destination: {destination}"]
    lines.append("hooks:")
    for event in HOOK_EVENTS:
        timeout_s = 1 if script is Script.TIMED_OUT and event == TIMED_OUT_EVENT else 60
        lines += [f"  {event}:", f"    - location: hooks/{event}.sh", f"      timeout: {timeout_s}"]
    return "\n".join(lines) + "\n"


def digest_of(files: dict[str, bytes]) -> str:
    """One value for a whole tree: names and contents."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def read_tree(directory: Path) -> dict[str, bytes]:
    """The files that lie there."""
    found = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, directory)] = file.read()
    return found

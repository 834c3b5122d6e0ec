"""The trees that are installed, and three revisions of each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TREES = "10000x4k,50000x1k,1x1g,django,headers"
DJANGO = "Django==5.2.4"
UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}
NEXT_BYTE = bytes((value + 1) % 256 for value in range(256))


class Case(Enum):
    """What the revision is, compared with the one before."""

    FRESH = "fresh"
    SAME = "nothing changed"
    FEW = "1 % changed"
    ALL = "everything changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revisions:
    """The bundles of a tree.

    Attributes:
        bundles: the tar of each case; that of a fresh one is also that in which nothing changed.
        files: what is in each of them, relative to the tree.
        changed: what differs from the case before.
        size_bytes: room that one copy of the tree takes.
    """

    bundles: dict[Case, Path]
    files: list[str]
    changed: dict[Case, list[str]]
    size_bytes: int

    def sample(self, case: Case) -> list[str]:
        """Up to 64 files to watch: half of them from those that change."""
        return sorted({*_spread(self.changed[case], 32), *_spread(self.files, 32)})


def make_revisions(name: str, scratch: Path, destinations: dict[str, Path], downloads: Path) -> Revisions:
    """The bundles of a tree. Size is preserved where the content changes, so that it tells nothing.

    Args:
        name: of the tree.
        scratch: where there is room for all of them.
        destinations: name of an AppSpec in each bundle → where that one installs the tree.
        downloads: where that is kept which has to be downloaded.
    """
    source = scratch / "source"
    tree = source / "tree"
    tree.mkdir(parents=True)
    fill(name, tree, downloads)
    for appspec, destination in destinations.items():
        text = f"version: 0.0\nos: linux\nfiles:\n  - source: tree\n    destination: {destination}\n"
        (source / appspec).write_text(text)
    paths = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    changed: dict[Case, list[Path]] = {Case.SAME: [], Case.FEW: paths[::100], Case.ALL: paths}
    bundles = {Case.FRESH: _packed(source, scratch / "first.tar")}
    bundles[Case.SAME] = bundles[Case.FRESH]
    for case in (Case.FEW, Case.ALL):
        for path in changed[case]:
            _change(path, 100 if case is Case.FEW and len(paths) == 1 else 1)
        bundles[case] = _packed(source, scratch / f"{case.name}.tar")
    names = {path: str(path.relative_to(tree)) for path in paths}
    size = sum(max(path.stat().st_blocks * 512, 4096) for path in paths)
    remove(source)
    return Revisions(
        bundles=bundles,
        files=list(names.values()),
        changed={case: [names[path] for path in some] for case, some in changed.items()},
        size_bytes=size,
    )


def fill(name: str, tree: Path, downloads: Path) -> None:
    """Put the files of a tree there: `django`, `headers`, or count x size, such as 10000x4k."""
    sized = re.fullmatch(r"(\d+)x(\d+)([kmg])", name)
    if sized:
        _fill_sized(tree, int(sized[1]), int(sized[2]) * UNITS[sized[3]])
    elif name == "django":
        archive = _downloaded(downloads, "django-*.tar.gz", _download_django)
        subprocess.run(["tar", "-xzf", archive, "-C", tree, "--strip-components=1"], check=True)
    elif name == "headers":
        package = _downloaded(downloads, "linux-headers-*-common_*.deb", _download_headers)
        subprocess.run(["dpkg", "-x", package, tree], check=True)
    else:
        sys.exit(f"There is no tree named {name}. Choose from {TREES}, or say count x size: 200x4k.")


def _fill_sized(tree: Path, count: int, size: int) -> None:
    for number in range(count):
        path = tree / f"d{number // 100:04d}" / f"f{number:06d}"
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as stream:
            for start in range(0, size, 2**20):
                stream.write(os.urandom(min(2**20, size - start)))


def _downloaded(downloads: Path, pattern: str, download: Callable[[Path], object]) -> Path:
    downloads.mkdir(parents=True, exist_ok=True)
    if not any(downloads.glob(pattern)):
        download(downloads)
    return max(downloads.glob(pattern))


def _download_django(downloads: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", DJANGO]
    subprocess.run(pip, cwd=downloads, check=True)


def _download_headers(downloads: Path) -> None:
    search = ["apt-cache", "search", "--names-only", r"^linux-headers-[0-9].*-common$"]
    found = subprocess.run(search, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\n")
    names = [line.split()[0] for line in found if line]
    newest = max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    subprocess.run(["apt-get", "download", "-q", newest], cwd=downloads, check=True)


def _packed(source: Path, bundle: Path) -> Path:
    subprocess.run(["tar", "-cf", bundle, "-C", source, "."], check=True)
    return bundle


def _change(path: Path, part: int) -> None:
    """Every byte of the file is another one, or of its middle `part`th; and it is a minute younger."""
    status = path.stat()
    with path.open("r+b") as stream:
        length = status.st_size // part
        start = (status.st_size - length) // 2
        while length > 0:
            stream.seek(start)
            block = stream.read(min(length, 2**20)).translate(NEXT_BYTE)
            stream.seek(start)
            stream.write(block)
            start, length = start + len(block), length - len(block)
        if not status.st_size:
            stream.write(b"\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 60 * 10**9))


def _spread(names: list[str], count: int) -> list[str]:
    return names[:: max(1, len(names) // count)][:count]


def remove(*paths: Path) -> None:
    """Afterwards the paths are gone."""
    subprocess.run(["rm", "-rf", "--", *paths], check=True)

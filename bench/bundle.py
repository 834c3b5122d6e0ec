"""Unpacking bundles, beside the tools that agents used to call: `tar -xzpf`, `tar -xpf`, `unzip -q`.

    python bench/bundle.py [--directory /dev/shm] [--rounds 5]

The two methods take turns, so that a busy machine burdens both. Times in seconds; `ratio` is ours
divided by the tool's, of the minimums. Aims: tgz of small files 1.0, zip 0.65, large files 0.6.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent.bundle import ArchiveLimits
from agent.bundle.unpack import unpack_bundle
from agent.protocol import BundleType

if TYPE_CHECKING:
    from collections.abc import Callable

TOOLS = {
    BundleType.TGZ: (["tar", "-xzpf"], "-C"),
    BundleType.TAR: (["tar", "-xpf"], "-C"),
    BundleType.ZIP: (["unzip", "-q"], "-d"),
}


@dataclass
class Times:
    """Wall and CPU seconds of the rounds so far; CPU includes children."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def take(self, work: Callable[[], object]) -> None:
        cpu, wall = _cpu_s(), time.perf_counter()
        work()
        self.wall_s.append(time.perf_counter() - wall)
        self.cpu_s.append(_cpu_s() - cpu)

    def __str__(self) -> str:
        median = statistics.median(self.wall_s)
        return f"{min(self.wall_s):7.3f} {median:7.3f} {statistics.median(self.cpu_s):7.3f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    directory = Path("/dev/shm")  # noqa: S108 - where a disk does not count
    parser.add_argument("--directory", type=Path, default=directory, help="a file system with 4 GB of room")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{'':24}{'tool: min  median     cpu':>25} {'ours: min  median     cpu':>26}  ratio (cpu)")
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        root = Path(scratch)
        for name, fill in (("20000 x 4 KiB", _fill_small), ("500 MB in 5 files", _fill_large)):
            source = root / "source"
            source.mkdir()
            fill(source)
            for bundle_type in TOOLS:
                bundle = _packed(source, root, bundle_type)
                _compare(f"{bundle_type.value} {name}", bundle, bundle_type, root, options.rounds)
                bundle.unlink()
            shutil.rmtree(source)


def _fill_small(source: Path) -> None:
    text = b"Lorem ipsum dolor sit amet, consectetur adipisici elit. "
    for number in range(20_000):
        path = source / f"d{number // 100:03d}" / f"f{number:05d}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((os.urandom(1024) + text * 60)[:4096])


def _fill_large(source: Path) -> None:
    block = os.urandom(300_000) + b"<html><body>Lorem ipsum</body></html>" * 19_000
    for number in range(5):
        with (source / f"large{number}").open("wb") as stream:
            for _ in range(100):
                stream.write(os.urandom(4000) + block[:996_000])


def _packed(source: Path, root: Path, bundle_type: BundleType) -> Path:
    bundle = root / f"bundle.{bundle_type.value}"
    if bundle_type is BundleType.ZIP:
        subprocess.run(["zip", "-qr", bundle, "."], cwd=source, check=True)
    else:
        how = "-czf" if bundle_type is BundleType.TGZ else "-cf"
        subprocess.run(["tar", how, bundle, "-C", source, "."], check=True)
    return bundle


def _compare(name: str, bundle: Path, bundle_type: BundleType, root: Path, rounds: int) -> None:
    tool, ours = Times(), Times()
    command, into = TOOLS[bundle_type]
    archive = root / "archive"
    for _ in range(rounds):
        archive.mkdir()
        tool.take(lambda: subprocess.run([*command, bundle, into, archive], check=True))
        shutil.rmtree(archive)
        ours.take(lambda: unpack_bundle(bundle, bundle_type, archive, ArchiveLimits(), ()))
        shutil.rmtree(archive)
    ratio = min(ours.wall_s) / min(tool.wall_s)
    cpu = min(ours.cpu_s) / min(tool.cpu_s)
    print(f"{name:24}{tool!s:>25} {ours!s:>26}  {ratio:5.2f} ({cpu:.2f})")


def _cpu_s() -> float:
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()

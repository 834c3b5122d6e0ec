"""Install beside `cp -a` and `rsync -a --delete`: the same trees, the same file systems, in turns.

    python bench/install.py [--rounds 5] [--trees 10000x4k,django] [--on directory,ext4] [--beside CHECKOUT]

Every revision is a tar that is unpacked anew, as a deployment does it; Install runs in a forked
process with the options of a worker, and waits for the disk as a worker does. Four cases, one
after the other: fresh, nothing changed, 1 % changed (of a single file: 1 % of its bytes), everything
changed. `cp -a` always copies into an empty place, `rsync` brings the previous revision up to date.
With `--beside`, the Install of another checkout takes its turns, too.

Seconds are those of the whole process, from its start to its end; CPU is that of all its processes, by the file.
`x cp -a` divides by what `cp -a` took: the minimums, then the medians, then the CPU. Peak memory is that of the
largest process above what it had when it was forked. In an extra run another process looks at 64
destinations all the time, and the result is compared with the archive. On an image, `no sync` is
the minimum of extra runs that do not wait for the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.installer import Installer
from bench.taken import Taken, spawned
from bench.trees import TREES, Case, Revisions, make_revisions, remove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).resolve().parent.parent
DIRECTORY = "directory"
MAKE_FILE_SYSTEM = {
    # Inodes for small files, and no thread that goes on making the file system while we measure.
    "ext4": ["mkfs.ext4", "-q", "-F", "-i", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}

# Who brings the revision to its place.
OURS, BESIDE, COPY, RSYNC = "ours", "beside", "cp -a", "rsync"

AIMS = {Case.FRESH: "1.0", Case.SAME: "0.3", Case.FEW: "0.4", Case.ALL: "1.3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How long a destination was missing at most, and how often each was looked at."""

    longest_s: float
    interval_s: float

    def __str__(self) -> str:
        seen = f"{1000 * self.longest_s:.2f} ms" if self.longest_s else "0"
        return f"{seen} (looked every {1000 * self.interval_s:.2f} ms)"


@dataclass
class Figures:
    """Everything that was measured of one tree, on one file system."""

    taken: dict[tuple[Case, str], list[Taken]] = field(default_factory=lambda: defaultdict(list))
    unsynced: dict[Case, list[Taken]] = field(default_factory=lambda: defaultdict(list))
    gaps: dict[Case, Gap] = field(default_factory=dict)


class Place:
    """A file system where everybody has a directory."""

    def __init__(self, path: Path, installers: dict[str, Installer]) -> None:
        self._path = path
        self._installers = installers
        self._tools = [COPY, RSYNC] if shutil.which("rsync") else [COPY]
        self.methods = [*installers, *self._tools]

    def unpack(self, bundle: Path, case: Case) -> dict[str, Path]:
        """The deployment archive of a new deployment, of each who installs."""
        return {
            name: installer.unpack(bundle, f"d-{case.name}") for name, installer in self._installers.items()
        }

    def run(self, method: str, archives: dict[str, Path], *, durable: bool = True) -> Taken:
        """Let one of them do its work."""
        # Nobody waits for what somebody else has written.
        subprocess.run(["sync", "-f", self._path], check=True)
        if method in self._installers:
            return self._installers[method].install(archives[method], durable=durable)
        tree, destination = archives[OURS] / "tree", self._path / method
        if method == RSYNC:
            return spawned(["rsync", "-a", "--delete", f"{tree}/", f"{destination}/"])
        taken = spawned(["cp", "-a", str(tree), str(destination)])
        remove(destination)
        return taken

    def clear(self) -> None:
        """Remove everything, and give an image's blocks back."""
        places = [self._path / method for method in self._tools]
        for name in self._installers:
            places += (self._path / name).iterdir()
        remove(*places)
        subprocess.run(["fstrim", self._path], check=False, stderr=subprocess.DEVNULL)


def main() -> None:
    """Measure and print."""
    options = _options()
    has_images = any(kind in MAKE_FILE_SYSTEM for kind in options.on.split(","))
    if has_images and os.geteuid() == 0 and not options.in_namespace:
        again = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--in-namespace"]
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *again])  # noqa: S606
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not shutil.which("rsync"):
        print("rsync is left out, which is not there")
    with tempfile.TemporaryDirectory(prefix="bench-install-", dir=options.directory) as scratch:
        for name in options.trees.split(","):
            measure(name, Path(scratch), options)


def measure(name: str, scratch: Path, options: argparse.Namespace) -> None:
    """All cases of one tree."""
    path = scratch / "place"
    path.mkdir()
    checkouts = {OURS: CHECKOUT} | ({BESIDE: options.beside} if options.beside else {})
    with contextlib.ExitStack() as stack:
        installers = {who: Installer(where, path / who, f"{who}.yml") for who, where in checkouts.items()}
        for installer in installers.values():
            stack.callback(installer.close)
        destinations = {f"{who}.yml": installer.destination for who, installer in installers.items()}
        revisions = make_revisions(name, scratch, destinations, options.downloads)
        for kind in options.on.split(","):
            if kind != DIRECTORY and os.geteuid():
                print(f"{name} on {kind} is left out: only root can mount an image\n")
                continue
            size_bytes = (6 + 4 * len(installers)) * revisions.size_bytes + 2**30
            with file_system(kind, path, size_bytes):
                for who in installers:
                    (path / who).mkdir()
                figures = _measured(Place(path, installers), revisions, installers, kind, options.rounds)
                remove(*(path / who for who in installers))
            where = f"below {options.directory}" if kind == DIRECTORY else f"on {kind} in an image"
            count = len(revisions.files)
            print(f"{name}: {count} files, {revisions.size_bytes / 2**20:.0f} MiB, {where}")
            show(figures, count)
    path.rmdir()
    remove(*revisions.bundles.values())


def _measured(
    place: Place, revisions: Revisions, installers: dict[str, Installer], kind: str, rounds: int
) -> Figures:
    figures = Figures()
    for number in range(rounds):
        _take_turns(place, revisions, number, figures)
        if kind != DIRECTORY:
            _without_sync(place, revisions, figures)
    _watch(place, revisions, installers[OURS].destination, figures)
    return figures


def _take_turns(place: Place, revisions: Revisions, number: int, figures: Figures) -> None:
    turn = number % len(place.methods)
    for case in Case:
        archives = place.unpack(revisions.bundles[case], case)
        for method in place.methods[turn:] + place.methods[:turn]:
            figures.taken[case, method].append(place.run(method, archives))
    place.clear()


def _without_sync(place: Place, revisions: Revisions, figures: Figures) -> None:
    for case in Case:
        archives = place.unpack(revisions.bundles[case], case)
        figures.unsynced[case].append(place.run(OURS, archives, durable=False))
    place.clear()


def _watch(place: Place, revisions: Revisions, destination: Path, figures: Figures) -> None:
    """Once more, with the reinstalls watched; and each result is what the archive holds."""
    for case in Case:
        archives = place.unpack(revisions.bundles[case], case)
        install = partial(place.run, OURS, archives)
        if case is Case.FRESH:
            install()
        else:
            paths = [f"{destination}/{name}" for name in revisions.sample(case)]
            figures.gaps[case] = watched(paths, install)
        tree = archives[OURS] / "tree"
        subprocess.run(["diff", "-rq", "--no-dereference", tree, destination], check=True)
    place.clear()


@contextlib.contextmanager
def file_system(kind: str, path: Path, size_bytes: int) -> Iterator[None]:
    """A new file system at `path`, in a file beside it; or whatever is there."""
    if kind == DIRECTORY:
        yield
        return
    image = path.with_suffix(".image")
    with image.open("wb") as stream:
        stream.truncate(size_bytes)
    subprocess.run([*MAKE_FILE_SYSTEM[kind], image], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", image, path], check=True)
    try:
        yield
    finally:
        # Lazy: after an interruption somebody may still be busy there, and nobody else sees this mount.
        subprocess.run(["umount", "--lazy", path], check=True)
        image.unlink()


def watched(paths: list[str], work: Callable[[], object]) -> Gap:
    """Do the work while another process looks whether the paths are there."""
    forking = multiprocessing.get_context("fork")
    reader, writer = forking.Pipe(duplex=False)
    stopped = forking.RawValue("b", 0)
    process = forking.Process(target=_look, args=(paths, stopped, writer))
    process.start()
    writer.close()
    reader.recv()
    try:
        work()
    finally:
        stopped.value = 1
    gap: Gap = reader.recv()
    process.join()
    return gap


def _look(paths: list[str], stopped: Any, answers: Any) -> None:
    missing_since: dict[str, float] = {}
    longest, looks, start = 0.0, 0, time.perf_counter()
    while not stopped.value:
        looks += 1
        if looks == 2:
            answers.send(None)  # now the work may begin
        for path in paths:
            if os.path.lexists(path):
                if path in missing_since:
                    longest = max(longest, time.perf_counter() - missing_since.pop(path))
            else:
                missing_since.setdefault(path, time.perf_counter())
    end = time.perf_counter()
    longest = max([longest, *(end - since for since in missing_since.values())])
    answers.send(Gap(longest_s=longest, interval_s=(end - start) / looks))


def show(figures: Figures, count: int) -> None:
    """One table; `count` files were installed."""
    print(f"  {'':18} {'':7}{'seconds':>15} {'CPU of':>12} {'x cp -a':>20}")
    columns = f"{'min':>8}{'median':>8}{'a file':>12}{'min':>8}{'median':>8}{'CPU':>6}{'aim':>6}"
    print(f"  {'':18} {'':7}{columns}{'peak':>11}{'no sync':>9}  missing")
    for case in Case:
        label = case.value
        copy = figures.taken[case, COPY]
        for method in (OURS, BESIDE, COPY, RSYNC):
            taken = figures.taken[case, method]
            if not taken:
                continue
            line = f"  {label:18} {method:7}{_times(taken, count)}"
            label = ""
            if method != COPY:
                line += f"{_ratios(taken, copy)}{AIMS[case] if method == OURS else '':>6}"
            if method in {OURS, BESIDE}:
                line += f"{max(one.peak_kib for one in taken) / 1024:+7.1f} MiB"
            if method == OURS:
                unsynced = [one.wall_s for one in figures.unsynced[case]]
                line += f"{f'{min(unsynced):.3f}' if unsynced else '-':>9}  {figures.gaps.get(case, '-')}"
            print(line)
    print(flush=True)


def _times(taken: list[Taken], count: int) -> str:
    wall = [one.wall_s for one in taken]
    cpu = min(one.cpu_s for one in taken) / count
    return f"{min(wall):8.3f}{statistics.median(wall):8.3f}{cpu * 1e6:9.1f} us"


def _ratios(ours: list[Taken], theirs: list[Taken]) -> str:
    wall, other = ([one.wall_s for one in taken] for taken in (ours, theirs))
    cpu, other_cpu = (min(one.cpu_s for one in taken) for taken in (ours, theirs))
    medians = statistics.median(wall) / statistics.median(other)
    return f"{min(wall) / min(other):8.2f}{medians:8.2f}{cpu / max(other_cpu, 1e-6):6.2f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    directory = Path("/dev/shm")  # noqa: S108 - where a disk does not count
    downloads = Path.home() / ".cache" / "codedeploy-host-agent-bench"
    kinds = f"some of {','.join([DIRECTORY, *MAKE_FILE_SYSTEM])}; all but the first are new images, for which root is needed"
    parser.add_argument("--directory", type=Path, default=directory, help="room for twenty times the tree")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trees", default=TREES, help=f"some of {TREES}; any count x size will do")
    parser.add_argument("--on", default=f"{DIRECTORY},ext4", help=kinds)
    parser.add_argument(
        "--beside", type=Path, metavar="CHECKOUT", help="another checkout, to be measured as well"
    )
    parser.add_argument("--downloads", type=Path, default=downloads, help="where Django and headers are kept")
    parser.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

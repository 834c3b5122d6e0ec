"""Install beside `cp -a` and `rsync -a --delete`: the same trees, the same file system, in turns.

    python bench/install.py [--rounds 5] [--trees 10000x4k,django] [--image ext4] [--directory /dev/shm]

Every revision is a tar that is unpacked anew, as a deployment does it; Install runs in a forked
process with the options of a worker, and waits for the disk as a worker does. Four cases, one
after the other: fresh, nothing changed, 1 % changed (of a single file: 1 % of its bytes), everything
changed. Seconds are those of the whole process, from its start to its end. `x cp -a` and `x rsync`
are ours divided by theirs, of the minimums, of the CPU seconds in brackets; `cp -a` always copies
into an empty place, `rsync` brings the previous revision up to date. Peak memory is that of the
largest process above what it had when it was forked. In an extra run another process looks at 64
destinations all the time, and the result is compared with the archive. On an image, `no sync` is
the minimum of extra runs that do not wait for the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.appspec import read_appspec
from agent.bundle import ArchiveLimits
from agent.bundle.unpack import unpack_bundle
from agent.deployments.layout import DeploymentRoot
from agent.install import InstallOptions, InstallRequest, install
from agent.protocol import BundleType
from bench.trees import TREES, Case, Revisions, make_revisions, remove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GROUP = "bench"
MAKE_FILE_SYSTEM = {
    # Inodes for small files, and no thread that goes on making the file system while we measure.
    "ext4": ["mkfs.ext4", "-q", "-F", "-i", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}


class Method(Enum):
    """Who brings the revision to its place."""

    OURS = "ours"
    COPY = "cp -a"
    RSYNC = "rsync"


AIMS = {Case.FRESH: "1.0", Case.SAME: "0.3", Case.ALL: "1.5"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one process took; `peak_kib` is 0 when it is not known."""

    wall_s: float
    cpu_s: float
    peak_kib: int = 0


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
    """Everything that was measured of one tree."""

    taken: dict[tuple[Case, Method], list[Taken]] = field(default_factory=lambda: defaultdict(list))
    unsynced: dict[Case, list[Taken]] = field(default_factory=lambda: defaultdict(list))
    gaps: dict[Case, Gap] = field(default_factory=dict)


class Place:
    """A file system with a deployment root, and three destinations."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root = DeploymentRoot(path=path / "root")
        self.destinations = {method: path / method.name.lower() for method in Method}

    def unpack(self, bundle: Path, deployment_id: str) -> Path:
        """The deployment archive of a new deployment, as DownloadBundle leaves it."""
        directory = self._root.deployment(GROUP, deployment_id)
        directory.path.mkdir(parents=True)
        unpack_bundle(bundle, BundleType.TAR, directory.archive, ArchiveLimits(), ())
        return directory.archive

    def install(self, archive: Path, *, durable: bool = True) -> Taken:
        """Install in a process of its own."""
        self._root.instructions.mkdir(exist_ok=True)
        request = InstallRequest(
            appspec=read_appspec(archive, "appspec.yml"),
            archive=archive,
            instructions_directory=self._root.instructions,
            group_id=GROUP,
            deployment_id=archive.parent.name,
            options=InstallOptions(processes=len(os.sched_getaffinity(0)), durable=durable),
        )
        self._settle()
        return forked(lambda: install(request))

    def run(self, method: Method, archive: Path) -> Taken:
        """Let one of the three do its work."""
        destination = self.destinations[method]
        if method is Method.OURS:
            return self.install(archive)
        self._settle()
        if method is Method.RSYNC:
            return spawned(["rsync", "-a", "--delete", f"{archive}/tree/", f"{destination}/"])
        taken = spawned(["cp", "-a", f"{archive}/tree", str(destination)])
        remove(destination)
        return taken

    def keep_only(self, archive: Path) -> None:
        """Remove all other archives."""
        remove(*(path for path in self._root.group(GROUP).iterdir() if path != archive.parent))

    def clear(self) -> None:
        """Remove everything, and give an image's blocks back."""
        remove(self._root.path, *self.destinations.values())
        subprocess.run(["fstrim", self._path], check=False, stderr=subprocess.DEVNULL)

    def _settle(self) -> None:
        """Nobody waits for what somebody else has written."""
        subprocess.run(["sync", "-f", self._path], check=True)


def main() -> None:
    """Measure and print."""
    options = _options()
    if options.image and not options.in_namespace:
        again = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--in-namespace"]
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *again])  # noqa: S606
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="bench-install-", dir=options.directory) as scratch:
        for name in options.trees.split(","):
            measure(name, Path(scratch), options)


def measure(name: str, scratch: Path, options: argparse.Namespace) -> None:
    """All cases of one tree."""
    path = scratch / "place"
    path.mkdir()
    revisions = make_revisions(name, scratch, path / Method.OURS.name.lower(), options.downloads)
    place = Place(path)
    figures = Figures()
    with file_system(options.image, path, 10 * revisions.size_bytes + 2**30):
        for number in range(options.rounds):
            _take_turns(place, revisions, number, figures)
            if options.image:
                _without_sync(place, revisions, figures)
        _watch(place, revisions, figures)
    where = f"on {options.image} in an image" if options.image else f"below {options.directory}"
    print(f"{name}: {len(revisions.files)} files, {revisions.size_bytes / 2**20:.0f} MiB, {where}")
    show(figures)
    path.rmdir()
    remove(*revisions.bundles.values())


def _take_turns(place: Place, revisions: Revisions, number: int, figures: Figures) -> None:
    methods = list(Method)
    turn = number % len(methods)
    for case in Case:
        archive = place.unpack(revisions.bundles[case], f"d-{case.name}")
        for method in methods[turn:] + methods[:turn]:
            figures.taken[case, method].append(place.run(method, archive))
        place.keep_only(archive)
    place.clear()


def _without_sync(place: Place, revisions: Revisions, figures: Figures) -> None:
    for case in Case:
        archive = place.unpack(revisions.bundles[case], f"d-{case.name}")
        figures.unsynced[case].append(place.install(archive, durable=False))
        place.keep_only(archive)
    place.clear()


def _watch(place: Place, revisions: Revisions, figures: Figures) -> None:
    """Once more, with the reinstalls watched; and each result is what the archive holds."""
    destination = place.destinations[Method.OURS]
    for case in Case:
        archive = place.unpack(revisions.bundles[case], f"d-{case.name}")
        if case is Case.FRESH:
            place.install(archive)
        else:
            paths = [f"{destination}/{name}" for name in revisions.sample(case)]
            figures.gaps[case] = watched(paths, partial(place.install, archive))
        subprocess.run(["diff", "-rq", "--no-dereference", archive / "tree", destination], check=True)
        place.keep_only(archive)
    place.clear()


@contextlib.contextmanager
def file_system(kind: str | None, path: Path, size_bytes: int) -> Iterator[None]:
    """A new file system at `path`, in a file beside it; or, when there is no kind, whatever is there."""
    if kind is None:
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


def spawned(command: list[str]) -> Taken:
    """What a tool takes."""
    start = time.perf_counter()
    return _ended(os.posix_spawnp(command[0], command, os.environ), command[0], start)


def forked(work: Callable[[], object]) -> Taken:
    """What `work` takes in a forked process."""
    reader, writer = os.pipe()
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        _work(work, writer)
    os.close(writer)
    taken_before = int(os.read(reader, 32) or b"0")
    os.close(reader)
    return _ended(pid, "install", start, taken_before)


def _work(work: Callable[[], object], writer: int) -> NoReturn:
    status = 1
    try:
        os.write(writer, b"%d" % resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - nothing may escape into the copy of the caller
        traceback.print_exc()
    finally:
        os._exit(status)


def _ended(pid: int, name: str, start: float, rss_kib: int | None = None) -> Taken:
    try:
        _, status, usage = os.wait4(pid, 0)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"{name} failed: {os.waitstatus_to_exitcode(status)}")
    peak = 0 if rss_kib is None else usage.ru_maxrss - rss_kib
    return Taken(wall_s=wall, cpu_s=usage.ru_utime + usage.ru_stime, peak_kib=peak)


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


def show(figures: Figures) -> None:
    """One table."""
    columns = f"{'min':>9}{'median':>9}{'cpu':>9}{'x cp -a':>15}{'aim':>5}{'x rsync':>15}{'peak':>11}"
    print(f"  {'seconds':26}{columns}{'no sync':>9}  missing")
    for case in Case:
        ours, copy, rsync = (figures.taken[case, method] for method in Method)
        ratios = f"{_ratio(ours, copy):>15}{AIMS.get(case, ''):>5}{_ratio(ours, rsync):>15}"
        peak = f"{max(taken.peak_kib for taken in ours) / 1024:+.1f} MiB"
        unsynced = [taken.wall_s for taken in figures.unsynced[case]]
        no_sync = f"{min(unsynced):.3f}" if unsynced else "-"
        gap = figures.gaps.get(case, "-")
        print(f"  {case.value:20}{'ours':6}{_times(ours)}{ratios}{peak:>11}{no_sync:>9}  {gap}")
        for method in (Method.COPY, Method.RSYNC):
            print(f"  {'':20}{method.value:6}{_times(figures.taken[case, method])}")
    print(flush=True)


def _times(taken: list[Taken]) -> str:
    wall = [one.wall_s for one in taken]
    cpu = min(one.cpu_s for one in taken)
    return f"{min(wall):9.3f}{statistics.median(wall):9.3f}{cpu:9.3f}"


def _ratio(ours: list[Taken], theirs: list[Taken]) -> str:
    wall = min(taken.wall_s for taken in ours) / min(taken.wall_s for taken in theirs)
    cpu = min(taken.cpu_s for taken in ours) / max(min(taken.cpu_s for taken in theirs), 1e-6)
    return f"{wall:.2f} ({cpu:.2f})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    directory = Path("/dev/shm")  # noqa: S108 - where a disk does not count
    downloads = Path.home() / ".cache" / "codedeploy-host-agent-bench"
    parser.add_argument("--directory", type=Path, default=directory, help="room for ten times the tree")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trees", default=TREES, help=f"some of {TREES}; any count x size will do")
    parser.add_argument("--image", choices=MAKE_FILE_SYSTEM, help="measure on this file system; needs root")
    parser.add_argument("--downloads", type=Path, default=downloads, help="where Django and headers are kept")
    parser.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

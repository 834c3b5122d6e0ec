"""Hook scripts: what the runner adds to each, and what much output costs.

    env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m bench.hooks [--rounds 5]

Each figure is measured in a process of its own, forked as a worker is. The methods of one figure
take turns within a round, since the machine is noisy; minimum and median of the rounds are shown.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pwd
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.appspec import HookScript
from agent.lifecycle.context import HookContext
from agent.lifecycle.environment import DEFAULT_PATH, HookEnvironment
from agent.lifecycle.run import run_event

if TYPE_CHECKING:
    from collections.abc import Callable


SCRIPTS = 200
OUTPUT_MB = 100


def context(directory: Path) -> HookContext:
    """An event of a deployment below this directory."""
    return HookContext(
        event="AfterInstall",
        deployment_id="d-BENCH0001",
        archive=directory / "deployment-archive",
        scripts_of="d-BENCH0001",
        environment=HookEnvironment(inherited={"PATH": DEFAULT_PATH}, deployment={}, additions={}),
        scripts_log=directory / "logs" / "scripts.log",
        deployments_log=directory / "deployment-logs" / "bench-deployments.log",
    )


def write_script(directory: Path, name: str, body: str) -> None:
    path = directory / "deployment-archive" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def event(directory: Path, name: str, *, times: int = 1, runas: str | None = None) -> None:
    run_event([HookScript(location=name, runas=runas)] * times, context(directory))


def run_isolated(function: Callable[[], Any]) -> Any:
    """What `function` returns, computed in a forked process."""
    forking = multiprocessing.get_context("fork")
    reader, writer = forking.Pipe(duplex=False)
    process = forking.Process(target=lambda: writer.send(function()))
    process.start()
    writer.close()
    answer = reader.recv()
    process.join()
    return answer


def measured(work: Callable[[], None]) -> tuple[float, float, int]:
    """Seconds, CPU seconds of this process alone, and how much its peak memory grew, in KiB."""

    def child() -> list[float]:
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return [seconds, cpu, after.ru_maxrss - before.ru_maxrss]

    seconds, cpu, grown = run_isolated(child)
    return seconds, cpu, int(grown)


def compare(rounds: int, methods: dict[str, Callable[[], None]], *, per: int, unit: str) -> None:
    figures: dict[str, list[tuple[float, float, int]]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, work in methods.items():
            figures[name].append(measured(work))
    for name, results in figures.items():
        wall = [seconds * 1000 / per for seconds, _, _ in results]
        cpu = min(cpu * 1000 / per for _, cpu, _ in results)
        grown = max(grown for _, _, grown in results)
        print(
            f"  {name:44} min {min(wall):8.2f}  median {statistics.median(wall):8.2f}  "
            f"own CPU {cpu:6.2f} {unit}  peak memory +{grown / 1024:.1f} MiB"
        )


def trivial_scripts(directory: Path, rounds: int) -> None:
    print(f"{SCRIPTS} scripts that do nothing, in one event (ms each)")
    write_script(directory, "true.sh", ":")
    path = directory / "deployment-archive" / "true.sh"

    def bare() -> None:
        subprocess.run(["sh", "-c", f"for i in $(seq {SCRIPTS}); do {path}; done"], check=True)

    def popen() -> None:
        for _ in range(SCRIPTS):
            subprocess.run([path], check=True, capture_output=True)

    def one_by_one() -> None:
        for _ in range(SCRIPTS):
            event(directory, "true.sh")

    methods: dict[str, Callable[[], None]] = {
        "a loop in sh": bare,
        "subprocess.run, output captured": popen,
        "run_event": lambda: event(directory, "true.sh", times=SCRIPTS),
        "run_event, an event for each script": one_by_one,
    }
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody").pw_name
        methods["run_event, runas: nobody"] = lambda: event(directory, "true.sh", times=SCRIPTS, runas=user)
    compare(rounds, methods, per=SCRIPTS, unit="ms")


def much_output(directory: Path, rounds: int) -> None:
    print(f"one script that prints {OUTPUT_MB} MB (ms)")
    lines = OUTPUT_MB * 10**6 // 60
    write_script(
        directory,
        "lines.sh",
        f"yes 12345678901234567890123456789012345678901234567890123456789 | head -n {lines}",
    )
    write_script(directory, "endless.sh", f"head -c {OUTPUT_MB}000000 /dev/zero")
    script = directory / "deployment-archive" / "lines.sh"

    def to_file() -> None:
        with (directory / "plain").open("wb") as file:
            subprocess.run([script], check=True, stdout=file)

    compare(
        rounds,
        {
            "lines of 60 bytes, straight into a file": to_file,
            "lines of 60 bytes, run_event": lambda: event(directory, "lines.sh"),
            "no line ends, run_event": lambda: event(directory, "endless.sh"),
        },
        per=1,
        unit="ms",
    )


def recorder_memory(directory: Path) -> None:
    print("the process that records the output (KiB)")
    write_script(directory, "look.sh", "sleep 0.5")

    def child() -> dict[str, int]:
        sizes: dict[str, int] = {}

        def look() -> None:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            recorder = next(
                pid for pid in children if Path(f"/proc/{pid}/comm").read_text() == "hook-output\n"
            )
            rollup = Path(f"/proc/{recorder}/smaps_rollup").read_text().splitlines()[1:]
            kib = {line.split(":")[0]: int(line.split()[1]) for line in rollup}
            sizes.update(RSS=kib["Rss"], PSS=kib["Pss"], USS=kib["Private_Clean"] + kib["Private_Dirty"])

        run_event([HookScript(location="look.sh")], replace(context(directory), on_ended=look))
        return sizes

    print("  " + json.dumps(run_isolated(child)))


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    directory = Path(tempfile.mkdtemp(prefix="bench-hooks-", dir="/dev/shm"))
    directory.chmod(0o755)
    try:
        trivial_scripts(directory, rounds)
        much_output(directory, rounds)
        recorder_memory(directory)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()

"""`python -m chaos`: harm real agents at random moments, and check that they tell the truth."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.conditions import build_clock
from chaos.faults import FaultKind, NetworkFault, S3Fault
from chaos.listening import CUT, EXPIRED, OTHER
from chaos.run import Outcome, Run, Slot
from chaos.schedule import make_schedule
from chaos.servers import Servers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_CLONE_NEWNS = 0x00020000


def main() -> int:
    """Run the campaign; 0 when there was no violation."""
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _break_off)
    _keep_mounts_to_ourselves()
    shared_memory = Path("/dev/shm")  # noqa: S108 - a directory of our own is made there
    base = shared_memory if os.access(shared_memory, os.W_OK) else None
    scratch = Path(tempfile.mkdtemp(prefix="chaos-", dir=base))
    try:
        return _Campaign(options, scratch).run()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _break_off(number: int, _frame: object) -> None:
    # Once is enough: a second one would cut the cleaning up short.
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next has the next one")
    parser.add_argument("--runs", type=int, default=1_000_000, help="how many runs at most")
    parser.add_argument("--jobs", type=int, default=8, help="how many hosts at once")
    parser.add_argument("--seconds", type=float, default=600, help="start no run after that long")
    parser.add_argument("--evidence", type=Path, default=Path("build/chaos"), help="where it is kept")
    return parser.parse_args()


def _keep_mounts_to_ourselves() -> None:
    """Whatever is mounted from here on is seen by our processes only, and goes with them."""
    if os.geteuid() != 0:
        return
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no mount namespace of our own")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


class _Campaign:
    """Hosts side by side, each with one run after the other."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self._options, self._scratch = options, scratch
        self._seeds = iter(range(options.seed, options.seed + options.runs))
        self._outcomes: list[Outcome] = []
        self._spares = 0
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def run(self) -> int:
        """All runs; 1 when there was a violation."""
        build_clock(self._scratch)
        servers = Servers(self._scratch)
        jobs = min(self._options.jobs, self._options.runs)
        threads = [threading.Thread(target=self._host, args=(servers,)) for _ in range(jobs)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            # Interrupted: runs break off now that the servers are gone, and clean up.
            self._options.seconds = 0.0
            servers.close()
            for thread in threads:
                if thread.is_alive():
                    thread.join()
            self._summarise(servers.restarts)
        return 1 if any(outcome.violations for outcome in self._outcomes) else 0

    def _host(self, servers: Servers) -> None:
        slot = self._slot(servers)
        while time.monotonic() - self._began < self._options.seconds:
            with self._lock:
                seed = next(self._seeds, None)
            if seed is None:
                return
            outcome = Run(make_schedule(seed), servers, slot).carry_out(self._options.evidence)
            with self._lock:
                self._outcomes.append(outcome)
                self._say(outcome)
            if outcome.violations:
                # What this host has left at the control endpoint must not meet the next run.
                slot = self._slot(servers)

    def _slot(self, servers: Servers) -> Slot:
        with self._lock:
            self._spares += 1
            name = f"host-{self._spares}"
        return Slot(name=name, identity_file=servers.add_host(name), scratch=self._scratch)

    def _say(self, outcome: Outcome) -> None:
        faults = " ".join(outcome.applied) or "-"
        _print(f"seed {outcome.seed:6} {outcome.seconds:6.1f} s  {faults}")
        for violation in outcome.violations:
            _print(f"    VIOLATION {violation}")
        if outcome.violations:
            _print(f"    schedule: {make_schedule(outcome.seed)}")
            _print(f"    evidence: {self._options.evidence}/seed-{outcome.seed}")

    def _summarise(self, restarts: int) -> None:
        elapsed = time.monotonic() - self._began
        outcomes = self._outcomes
        bad = sorted(outcome.seed for outcome in outcomes if outcome.violations)
        _print(f"{len(outcomes)} runs in {elapsed:.0f} s, {len(bad)} with violations: {bad}")
        if not outcomes:
            return
        seeds = [outcome.seed for outcome in outcomes]
        _print(f"seeds {min(seeds)}-{max(seeds)}, {sum(o.completions for o in outcomes)} completions taken")
        _tell("faults", [Counter(o.applied) for o in outcomes], [kind.value for kind in FaultKind])
        _tell("exchanges", [o.exchanges for o in outcomes], [fault.value for fault in NetworkFault])
        _tell("downloads", [o.downloads for o in outcomes], [fault.value for fault in S3Fault])
        _tell("handshakes", [o.handshakes for o in outcomes], [CUT, EXPIRED, OTHER])
        _tell("pre-accept", [o.answers for o in outcomes], ["taken", "refused"])
        _print("not done  " + _table(Counter(reason for o in outcomes for reason in o.skipped)))
        _print(f"processes killed for want of memory {sum(o.killed_for_memory for o in outcomes)}")
        _print(f"control endpoint killed and started again {restarts} times")
        _print(f"memory of the daemon at the end at most {max(o.resident_kib for o in outcomes)} KiB RSS")


def _tell(title: str, counts: Sequence[Mapping[str, int]], kinds: Iterable[str]) -> None:
    """How often each kind was met, and in how many runs; those that none has met are named as well."""
    total = sum(map(Counter, counts), Counter[str]())
    met = Counter(kind for each in counts for kind, number in each.items() if number)
    _print(f"{title}, how often in how many runs:")
    _print("  " + ", ".join(f"{kind} {number} in {met[kind]}" for kind, number in sorted(total.items())))
    if never := [kind for kind in kinds if not total[kind]]:
        _print(f"  NEVER MET: {', '.join(never)}")


def _table(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _print(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""Figures of the agent itself: memory and CPU at rest, start to first poll, overhead per command.

    python bench/daemon.py [--seconds 20] [--repeat 3]

The agent is the real daemon, polling once a second over TLS with signed requests, from an endpoint
in this process that answers at once. Memory stands beside that of a Python process which has merely
imported requests and then sleeps, in the same run: machines differ, ratios less so. PSS depends on
what else runs the same interpreter, so USS and RSS are printed, too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.endpoint import Endpoint

BIN = Path(sys.executable).parent
TICKS = os.sysconf("SC_CLK_TCK")
EVENTS = ("BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop")


class Agent:
    """A daemon in a scratch directory; use as a context manager."""

    def __init__(self, endpoint: Endpoint, scratch: Path, more_settings: str = "") -> None:
        self._endpoint = endpoint
        self._scratch = scratch
        (scratch / "onpremises.yml").write_text(
            "region: us-east-1\niam_user_arn: arn:aws:iam::123456789012:user/bench\n"
            "aws_access_key_id: AKIABENCH\naws_secret_access_key: secret\n"
        )
        (scratch / "onpremises.yml").chmod(0o600)
        (scratch / "agent.yml").write_text(
            f"root_dir: {scratch}/root\nlog_dir: {scratch}/log\npid_dir: {scratch}/state\n"
            f"on_premises_config_file: {scratch}/onpremises.yml\nwait_between_runs: 1\n"
            f"deploy_control_endpoint: {endpoint.url}\ndeployment_signer_ca_file: {endpoint.ca_file}\n"
            f"{more_settings}"
        )

    def __enter__(self) -> Agent:
        environment = {**os.environ, "AWS_CA_BUNDLE": str(self._endpoint.ca_file)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.started_at = time.monotonic()
        self._process = subprocess.Popen(
            [BIN / "agentctl", "run", "--config-file", self._scratch / "agent.yml"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)

    @property
    def pid(self) -> int:
        """Of the daemon."""
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU seconds that the daemon has used itself."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(pid: int) -> dict[str, float]:
    """RSS, PSS and USS of a process."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if rest.strip().endswith("kB"):
            found[name] = int(rest.split()[0])
    uss = found["Private_Clean"] + found["Private_Dirty"]
    return {"RSS": found["Rss"] / 1024, "PSS": found["Pss"] / 1024, "USS": uss / 1024}


def beside() -> dict[str, float]:
    """Memory of a Python process that has imported requests."""
    code = "import requests, sys; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-I", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return memory_mib(process.pid)


def measure_start(endpoint: Endpoint, repeat: int) -> None:
    """Exec of agentctl to the first poll at the endpoint."""
    times = []
    for _ in range(repeat + 1):
        with tempfile.TemporaryDirectory() as scratch, Agent(endpoint, Path(scratch)) as agent:
            times.append(endpoint.wait_for_poll(agent.started_at) - agent.started_at)
    del times[0]  # the first run compiles
    show("start to first poll", f"{min(times):.3f} s min, {statistics.median(times):.3f} s median")


def measure_idle(endpoint: Endpoint, seconds: float) -> None:
    """Memory and CPU at one poll a second."""
    with tempfile.TemporaryDirectory() as scratch, Agent(endpoint, Path(scratch)) as agent:
        endpoint.wait_for_poll(agent.started_at)
        time.sleep(2)
        cpu, polls = agent.cpu_s(), endpoint.polls
        time.sleep(seconds)
        used, asked = agent.cpu_s() - cpu, endpoint.polls - polls
        own, other = memory_mib(agent.pid), beside()
    for name, value in own.items():
        ratio = value / other[name]
        show(f"idle {name}", f"{value:.1f} MiB, {ratio:.2f} x a process with requests ({other[name]:.1f})")
    show("CPU of one poll", f"{1000 * used / max(asked, 1):.2f} ms ({asked} polls, signed, TLS, kept alive)")


def measure_commands(endpoint: Endpoint, repeat: int) -> None:
    """Delivery of a command to its completion: commands that are no-ops, one after the other."""
    with tempfile.TemporaryDirectory() as scratch, Agent(endpoint, Path(scratch)) as agent:
        endpoint.wait_for_poll(agent.started_at)
        taken = [endpoint.run_command(EVENTS[n % len(EVENTS)], number=n) for n in range(repeat * 10)]
    del taken[0]
    show(
        "no-op command, delivered to completed",
        f"{1000 * min(taken):.1f} ms min, {1000 * statistics.median(taken):.1f} ms median of {len(taken)}",
    )


def show(what: str, figure: str) -> None:
    """One line of the result."""
    print(f"{what:<40} {figure}", flush=True)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20, help="how long to watch the idle agent")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Endpoint(Path(scratch)) as endpoint:
        measure_start(endpoint, options.repeat)
        measure_idle(endpoint, options.seconds)
        measure_commands(endpoint, options.repeat)
    print(json.dumps({"python": sys.version.split()[0], "cpus": os.cpu_count()}))


if __name__ == "__main__":
    main()

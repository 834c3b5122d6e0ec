"""What the agent adds to a command: delivery to completion, of a whole deployment, event by event.

    env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m bench.commands [--rounds 5] [--files 10000]

The agent is the real daemon, over TLS with signed requests, with an endpoint in this process that answers
at once. Each round is a deployment of a new revision with eleven commands, nine of which run a script that
does nothing, after a pause as long as the agent keeps something ready for the next command; then the same
without scripts. Beside it: `sh` running that script, and `cp -a` of the files that Install installs, in the
same round. One more round installs many files.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from agent.protocol import IN_PLACE_ORDER, LIFECYCLE_EVENTS
from bench.daemon import Agent, memory_mib
from bench.endpoint import SPECIFICATION, Endpoint


class Bucket:
    """Objects over plain HTTP, as an S3 server gives them to whoever asks."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        objects = self.objects

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = objects[self.path.partition("?")[0]]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"bench-1"')
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


def bundle(destination: Path, *, files: int, with_scripts: bool) -> bytes:
    """A tar with an AppSpec, that many files of 4 KiB, and one script."""
    lines = ["version: 0.0", "os: linux", "files:", "  - source: app", f"    destination: {destination}"]
    if with_scripts:
        lines += ["hooks:", *(f"  {event}: [{{location: hook.sh}}]" for event in LIFECYCLE_EVENTS)]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        _add(tar, "appspec.yml", "\n".join(lines).encode() + b"\n")
        _add(tar, "hook.sh", b"#!/bin/sh\n:\n", mode=0o755)
        for number in range(files):
            _add(tar, f"app/{number % 100:02d}/{number}", b"%04095d\n" % number)
    return packed.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


class Deployer:
    """Deploys revision after revision to one agent."""

    def __init__(self, endpoint: Endpoint, bucket: Bucket, scratch: Path) -> None:
        self._endpoint = endpoint
        self._bucket = bucket
        self._scratch = scratch
        self._number = 0

    def deploy(self, *, files: int, with_scripts: bool) -> dict[str, float]:
        """Seconds from delivery to completion, of each command."""
        self._number += 1
        number = self._number
        self._bucket.objects[f"/bucket/{number}"] = bundle(
            self._scratch / "www", files=files, with_scripts=with_scripts
        )
        revision = {"Bucket": "bucket", "Key": str(number), "BundleType": "tar"}
        self._endpoint.specification = {
            **SPECIFICATION,
            "DeploymentId": f"d-BENCH{number:04d}",
            "Revision": {"RevisionType": "S3", "S3Revision": revision},
        }
        return {name: self._endpoint.run_command(name, number=number) for name in IN_PLACE_ORDER}

    def archive(self) -> Path:
        """Where the last revision is unpacked."""
        return self._scratch / "root" / "group" / f"d-BENCH{self._number:04d}" / "deployment-archive"


def beside_sh(scratch: Path) -> float:
    """Seconds that starting the script takes, and waiting for it."""
    script = scratch / "hook.sh"
    script.write_text("#!/bin/sh\n:\n")
    script.chmod(0o755)
    began = time.perf_counter()
    subprocess.run([script], check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began


def beside_cp(source: Path, scratch: Path) -> float:
    """Seconds that `cp -a` takes for the files that Install has installed."""
    copy = scratch / "copy"
    began = time.perf_counter()
    subprocess.run(["cp", "-a", source, copy], check=True)
    took = time.perf_counter() - began
    shutil.rmtree(copy)
    return took


def show(what: str, seconds: list[float], beside: list[float] | None = None) -> None:
    """One line of the result."""
    text = f"{1000 * min(seconds):7.1f} ms min {1000 * statistics.median(seconds):7.1f} ms median of {len(seconds)}"
    if beside:
        text += f"   {min(seconds) / min(beside):5.2f} x ({1000 * min(beside):.1f} ms)"
    print(f"{what:<54} {text}", flush=True)


def measure(deployer: Deployer, rounds: int, scratch: Path, pause_s: float) -> None:
    first: list[float] = []
    hooks: list[float] = []
    noops: list[float] = []
    whole: list[float] = []
    other: dict[str, list[float]] = {"DownloadBundle": [], "Install": []}
    sh = [beside_sh(scratch) for _ in range(20)]
    deployer.deploy(files=10, with_scripts=True)  # compiles, and gives the early events scripts to run
    for _ in range(rounds):
        time.sleep(pause_s)
        taken = deployer.deploy(files=10, with_scripts=True)
        whole.append(sum(taken.values()))
        first.append(taken[IN_PLACE_ORDER[0]])
        hooks += [taken[event] for event in LIFECYCLE_EVENTS[1:]]
        for name, figures in other.items():
            figures.append(taken[name])
        quiet = deployer.deploy(files=10, with_scripts=False)
        noops += [quiet[event] for event in LIFECYCLE_EVENTS[3:]]
        deployer.deploy(files=10, with_scripts=True)
    show("first command of a deployment (a script, after a pause)", first)
    show("event with a script, beside sh", hooks, sh)
    show("event without a script", noops)
    for name, figures in other.items():
        show(f"{name} of 10 files", figures)
    show("all eleven commands of a deployment", whole)


def measure_install(deployer: Deployer, rounds: int, files: int, scratch: Path) -> None:
    install: list[float] = []
    copies: list[float] = []
    for _ in range(rounds):
        shutil.rmtree(scratch / "www", ignore_errors=True)
        os.sync()
        taken = deployer.deploy(files=files, with_scripts=True)
        install.append(taken["Install"])
        os.sync()
        copies.append(beside_cp(deployer.archive() / "app", scratch))
        deployer.deploy(files=1, with_scripts=True)
    show(f"Install of {files} x 4 KiB, delivered to completed, beside cp -a", install, copies)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=10_000, help="of the large Install; 0 = without it")
    parser.add_argument(
        "--pause", type=float, default=0.0, help="seconds without a command before each round"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, Endpoint(Path(directory)) as endpoint:
        scratch, bucket = Path(directory), Bucket()
        more = f"s3_endpoint_override: {bucket.url}\nmin_free_bytes: 0\nmin_free_inodes: 0\n"
        with Agent(endpoint, scratch, more) as agent:
            endpoint.wait_for_poll(agent.started_at)
            deployer = Deployer(endpoint, bucket, scratch)
            before = memory_mib(agent.pid)
            measure(deployer, options.rounds, scratch, options.pause)
            if options.files:
                measure_install(deployer, options.rounds, options.files, scratch)
            after = memory_mib(agent.pid)
    print(f"daemon: RSS {before['RSS']:.1f} MiB before, {after['RSS']:.1f} MiB after")


if __name__ == "__main__":
    main()

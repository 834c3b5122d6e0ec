"""Control endpoint, S3 server and agents as real processes, on loopback, in a scratch directory."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import yaml
from botocore.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

REGION = "us-east-1"
BUCKET = "revisions"
_BIN = Path(sys.executable).parent
_CONFIG = Config(
    region_name=REGION,
    retries={"max_attempts": 2, "mode": "standard"},
    s3={"addressing_style": "path"},
    # Over https boto3 would send checksums in trailers, which few servers but Amazon's understand.
    request_checksum_calculation="when_required",
    proxies={},
)


def wait_for(condition: Callable[[], Any], *, timeout_s: float, what: str, interval_s: float = 0.02) -> Any:
    """What `condition` returns, as soon as that is true.

    Raises:
        TimeoutError: it never was.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        outcome = condition()
        if outcome:
            return outcome
        time.sleep(interval_s)
    raise TimeoutError(f"{what}: not within {timeout_s:g} s")


@dataclass
class Process:
    """A child process that ends when it is told to, and at the latest when it is killed."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    before: int = 0
    """Characters in the log of earlier processes of this name."""

    def stop(self, patience_s: float = 10) -> int:
        """Ask it to end, insist after a while, and return its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                return self.popen.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self.popen.wait()

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")


@dataclass
class Host:
    """A registered on-premises host and the files of its agent."""

    name: str
    directory: Path
    config_file: Path
    agent: Process | None = None

    @property
    def root(self) -> Path:
        """The deployment root."""
        return self.directory / "deployment-root"

    @property
    def state(self) -> Path:
        """The agent's own state."""
        return self.directory / "state"


@dataclass(frozen=True)
class Tls:
    """Files for https: the CA's certificate, and a certificate with its key for 127.0.0.1."""

    ca_file: Path
    server_file: Path


@dataclass
class Stack:
    """Everything that a deployment needs. Use as a context manager: what was started is stopped.

    With `tls`, all servers speak https, and everybody trusts their CA.
    """

    scratch: Path
    tls: Tls | None = None
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    control_process: Process | None = None
    hosts: dict[str, Host] = field(default_factory=dict)
    control_url: str = ""
    s3_port: int = field(default_factory=lambda: free_port())  # noqa: PLW0108 - defined below
    s3_keys: dict[str, str] = field(default_factory=lambda: {"publisher": secrets.token_hex(16)})
    _user: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            clean.pop(name, None)
        clean.pop("PYTHONDONTWRITEBYTECODE", None)
        trusted = {"AWS_CA_BUNDLE": str(self.tls.ca_file)} if self.tls else {}
        self.environment = {**clean, **trusted, **self.environment}

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop every process that was started here, newest first."""
        while self.processes:
            self.processes.pop().stop()

    # -- servers ---------------------------------------------------------------------------------

    def start_control(self, *options: str) -> None:
        """Start the control endpoint and make a user for its public API."""
        data = self.scratch / "control"
        # Started again, it takes its old address: the agents know no other.
        listen = self.control_url.rpartition("//")[2] or "127.0.0.1:0"
        command = [_BIN / "codedeploy-control", "serve", "--data", data, "--listen", listen, *options]
        if self.tls:
            command += ["--tls-certificate", self.tls.server_file, "--tls-key", self.tls.server_file]
        process = self.control_process = self.spawn("control", command)
        self.control_url = self._announced(process, r"listening on (https?://\S+)")
        if not self._user:
            self._user = json.loads(self.control("user", "add", "demo", "--json"))

    def control(self, *arguments: str) -> str:
        """What a subcommand of codedeploy-control prints."""
        command = [str(_BIN / "codedeploy-control"), *arguments, "--data", str(self.scratch / "control")]
        done = subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True)
        return done.stdout

    @property
    def s3_url(self) -> str:
        """Address of the S3 server, before it is started as well."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.s3_port}"

    def start_s3(self) -> None:
        """Start a real S3 server with one bucket, open to all hosts that have been added."""
        (self.scratch / "s3" / BUCKET).mkdir(parents=True, exist_ok=True)
        command = [_BIN / "rclone", "serve", "s3", self.scratch / "s3", "--addr", f"127.0.0.1:{self.s3_port}"]
        for key, secret in self.s3_keys.items():
            command += ["--auth-key", f"{key},{secret}"]
        if self.tls:
            command += ["--cert", self.tls.server_file, "--key", self.tls.server_file]
        process = self.spawn("s3", command)
        wait_for(lambda: self._listens(process, self.s3_port), timeout_s=20, what="the S3 server listens")

    def _listens(self, process: Process, port: int) -> bool:
        if process.popen.poll() is not None:
            raise RuntimeError(f"{process.name} ended: {process.output()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def _announced(self, process: Process, pattern: str) -> str:
        def found() -> str | None:
            if process.popen.poll() is not None:
                raise RuntimeError(f"{process.name} ended: {process.output()}")
            match = re.search(pattern, process.output()[process.before :])
            return match[1] if match else None

        address: str = wait_for(found, timeout_s=30, what=f"{process.name} listens")
        return address

    # -- clients ---------------------------------------------------------------------------------

    def codedeploy(self) -> Any:
        """boto3's client of the public API."""
        return boto3.client(
            "codedeploy",
            endpoint_url=self.control_url,
            aws_access_key_id=self._user["accessKeyId"],
            aws_secret_access_key=self._user["secretAccessKey"],
            config=_CONFIG,
            verify=str(self.tls.ca_file) if self.tls else None,
        )

    def s3(self) -> Any:
        """boto3's client of the S3 server."""
        return boto3.client(
            "s3",
            endpoint_url=self.s3_url,
            aws_access_key_id="publisher",
            aws_secret_access_key=self.s3_keys["publisher"],
            config=_CONFIG,
            verify=str(self.tls.ca_file) if self.tls else None,
        )

    # -- hosts -----------------------------------------------------------------------------------

    def add_host(self, name: str, tags: Mapping[str, str], settings: Mapping[str, str] | None = None) -> Host:
        """Register a host at the control endpoint and write the files of its agent."""
        directory = self.scratch / name
        directory.mkdir()
        arguments = [part for key, value in tags.items() for part in ("--tag", f"{key}={value}")]
        identity = directory / "codedeploy.onpremises.yml"
        identity.touch(mode=0o600)
        identity.write_text(self.control("host", "register", name, *arguments, "--config"))
        keys = yaml.safe_load(identity.read_text())
        self.s3_keys[keys["aws_access_key_id"]] = keys["aws_secret_access_key"]
        ca = self.scratch / "signer-ca.pem"
        ca.write_text(self.control("ca"))
        lines = {
            "root_dir": directory / "deployment-root",
            "log_dir": directory / "log",
            "pid_dir": directory / "state",
            "on_premises_config_file": identity,
            "deploy_control_endpoint": self.control_url,
            "s3_endpoint_override": self.s3_url,
            "deployment_signer_ca_file": ca,
            "wait_between_runs": "1",
            **(settings or {}),
        }
        config = directory / "codedeployagent.yml"
        config.write_text("".join(f"{key}: {value}\n" for key, value in lines.items() if value))
        self.hosts[name] = Host(name=name, directory=directory, config_file=config)
        return self.hosts[name]

    def start_agent(self, host: Host) -> Process:
        """Start the daemon of this host."""
        command = [_BIN / "agentctl", "run", "--config-file", host.config_file]
        host.agent = self.spawn(f"agent-{host.name}", command)
        return host.agent

    def agentctl(self, host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a subcommand of agentctl for this host."""
        command = [str(_BIN / "agentctl"), *arguments, "--config-file", str(host.config_file)]
        return subprocess.run(command, env=self.environment, check=False, capture_output=True, text=True)

    def spawn(self, name: str, command: Sequence[object], **environment: str) -> Process:
        """Start a process whose output goes to a file in the scratch directory."""
        log = self.scratch / f"{name}.out"
        before = len(log.read_text(errors="replace")) if log.exists() else 0
        with log.open("ab") as output:
            popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**self.environment, **environment},
                cwd=self.scratch,
                start_new_session=True,
            )
        process = Process(name=name, popen=popen, log=log, before=before)
        self.processes.append(process)
        return process


def free_port() -> int:
    """A port of the loopback address on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

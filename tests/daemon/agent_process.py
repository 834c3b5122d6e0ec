"""A real agent, `agentctl run`, over a directory of its own; and what it leaves there for others to see."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.daemon.control_server import HOST
from tests.waiting import PATIENCE_S, is_running, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

AGENTCTL = Path(sys.executable).with_name("agentctl")
ON_PREMISES = f"""\
region: us-east-1
iam_user_arn: {HOST}
aws_access_key_id: AKIAEXAMPLE
aws_secret_access_key: not-so-secret
"""


def clean_environment(**additions: str) -> dict[str, str]:
    """The tests' own environment without what would lead an agent astray."""
    led_astray = ("AWS_", "PYTHONDONTWRITEBYTECODE", "NOTIFY_SOCKET", "WATCHDOG_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(led_astray) and not name.lower().endswith("_proxy")
    }
    return {**kept, **additions}


class Agent:
    """One agent and its files. It may be started, ended and started again."""

    def __init__(self, directory: Path, settings: Mapping[str, object], **environment: str) -> None:
        self.directory = directory
        self.environment = clean_environment(**environment)
        self.config_file = directory / "agent.yml"
        self.root = directory / "deployment-root"
        self.state = directory / "state"
        self.identity_file = directory / "on-premises.yml"
        self.process: subprocess.Popen[bytes] | None = None
        self._settings: dict[str, object] = {
            "root_dir": self.root,
            "log_dir": directory / "log",
            "pid_dir": self.state,
            "on_premises_config_file": self.identity_file,
            "wait_between_runs": 0.05,
            **settings,
        }
        directory.mkdir(parents=True, exist_ok=True)
        self.identity_file.touch(mode=0o600)
        self.identity_file.write_text(ON_PREMISES)
        self.configure()

    def configure(self, **settings: object) -> None:
        """Write the configuration file, with these settings changed; the next start reads it."""
        self._settings.update(settings)
        lines = [f"{key}: {value}\n" for key, value in self._settings.items()]
        self.config_file.write_text("".join(lines))

    # -- its life ----------------------------------------------------------------------------------

    def launch(self) -> Agent:
        """Start it, and don't wait for anything."""
        with (self.directory / "out").open("ab") as output:
            self.process = subprocess.Popen(
                [AGENTCTL, "run", "--config-file", self.config_file],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=self.directory,
            )
        return self

    def start(self) -> Agent:
        """Start it; it polls, or is about to."""
        self.launch()
        wait_until(lambda: self._state_of_mine("polling"), "the agent polls")
        return self

    def _state_of_mine(self, state: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output()
        status = self.status()
        return status.get("pid") == self.process.pid and status["state"] == state

    @property
    def pid(self) -> int:
        """Of the daemon."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the daemon a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """The exit code, once the daemon has ended."""
        assert self.process is not None
        return self.process.wait(within_s)

    def end(self) -> int:
        """Stop the daemon with SIGTERM; its exit code."""
        self.signal()
        return self.wait()

    def kill(self) -> None:
        """The daemon is gone at once."""
        self.signal(signal.SIGKILL)
        self.wait()

    def clear_away(self) -> None:
        """Afterwards nothing of it runs, whatever the test has left.

        Workers outlive their daemon, and would go on trying to deliver their reports for ever. One that
        has just been forked stands in no record yet; but they all work in the agent's directory.
        """
        if self.process is not None:
            self.kill()
        while left := [pid for pid in self._in_its_directory() if is_running(pid)]:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _in_its_directory(self) -> list[int]:
        found = []
        for link in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                if Path(os.readlink(link)) == self.directory.resolve():
                    found.append(int(link.parent.name))
        return found

    # -- what others see of it ---------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The status file; empty when there is none, or while it is written."""
        try:
            status: dict[str, Any] = json.loads((self.state / "status.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return status

    def output(self) -> str:
        """All that it has printed: its log."""
        path = self.directory / "out"
        return path.read_text() if path.exists() else ""

    def logged(self, event: str) -> list[str]:
        """The log lines of this event."""
        return [line for line in self.output().splitlines() if f" {event} " in f"{line} "]

    def records(self) -> list[list[dict[str, Any]]]:
        """The job records that are there, each as its lines."""
        found = []
        for path in sorted(self.state.glob("jobs/*/record.jsonl")):
            with contextlib.suppress(FileNotFoundError):
                found.append([json.loads(line) for line in path.read_text().splitlines() if line])
        return found

    def workers(self) -> list[int]:
        """Pids of the workers, according to the job records: the last one of each."""
        pids = []
        for record in self.records():
            of_record = [entry["pid"] for entry in record if entry["entry"] == "worker"]
            pids += of_record[-1:]
        return pids

    def children(self) -> list[int]:
        """Pids of the daemon's own processes: workers at work, and those that wait for a command."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in listed if is_running(int(pid))]

    def history(self) -> list[dict[str, Any]]:
        """The commands that are over, oldest first."""
        path = self.state / "history.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_until_idle(self) -> None:
        """Return when every command is history."""
        wait_until(lambda: not list(self.state.glob("jobs/*")), "all job records are gone")

    def agentctl(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """What a subcommand does."""
        command = [str(part) for part in (AGENTCTL, *arguments, "--config-file", self.config_file)]
        return subprocess.run(
            command, env=self.environment, check=False, capture_output=True, text=True, timeout=PATIENCE_S
        )

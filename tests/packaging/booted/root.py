"""A Debian root with a systemd of its own, seen from outside."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from demo.stack import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAUNCHER = Path(__file__).with_name("boot-root")
_ENVIRONMENT = (
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "DEBIAN_FRONTEND=noninteractive",
)
AGENT = "codedeploy-agent.service"


class BootedRoot:
    """A host. What it writes is gone when it has ended."""

    def __init__(self, name: str, layers: Sequence[Path]) -> None:
        """Boot; the first of the layers covers the others.

        Raises:
            TimeoutError: systemd did not come up; with what it said.
        """
        self.name = name
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        # Whatever becomes of this process, the root ends with it.
        command = ["setpriv", "--pdeathsig", "KILL", str(_LAUNCHER), ":".join(map(str, layers)), name]
        self._launcher = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output
        )
        self._init = 0
        try:
            self._init = wait_for(self._find_init, timeout_s=10, what=f"{name} has a systemd")
            wait_for(self._is_up, timeout_s=30, what=f"{name} is up", interval_s=0.05)
        except BaseException:
            print(self._console(), file=sys.stderr)
            self.end()
            raise

    def _find_init(self) -> int:
        if self._launcher.poll() is not None:
            raise RuntimeError(f"{self.name} can't be booted on this machine: {self._console()}")
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._launcher.pid).children():
                if child.name() == "systemd":
                    return child.pid
        return 0

    def _is_up(self) -> bool:
        state = self.try_to("systemctl", "is-system-running").stdout.strip()
        if state == "degraded":
            raise RuntimeError(f"{self.name}: {self.run('systemctl', '--failed', '--plain', '--no-legend')}")
        return state == "running"

    def _console(self) -> str:
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def end(self) -> None:
        """Nothing of it runs any more, and its control groups are gone."""
        if self._output.closed:
            return
        if self._init:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(self._init).kill()  # and with it everything in its process namespace
        else:
            self._launcher.kill()
        self._launcher.wait(30)
        self._output.close()
        wait_for(
            self._remove_control_groups, timeout_s=10, what=f"the control groups of {self.name} are gone"
        )

    def _remove_control_groups(self) -> bool:
        """Deepest first; those in which something still ends are left for the next time."""
        found = subprocess.run(
            ["find", "/sys/fs/cgroup", "-depth", "-type", "d", "-path", f"*/{self.name}*"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split("\n")
        directories = [Path(line) for line in found if self.name in Path(line).parts]
        for directory in directories:
            with contextlib.suppress(OSError):
                directory.rmdir()
        return not any(directory.exists() for directory in directories)

    # -- inside ----------------------------------------------------------------------------------

    def path(self, inside: str) -> Path:
        """Where this path of the root is for us. Absolute links in it lead astray."""
        return Path(f"/proc/{self._init}/root{inside}")

    def try_to(self, *command: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """What became of a command in the root."""
        return subprocess.run(
            self._entered(command), capture_output=True, text=True, check=False, timeout=timeout_s
        )

    def run(self, *command: str, timeout_s: float = 60) -> str:
        """What a command prints that ends well."""
        answer = self.try_to(*command, timeout_s=timeout_s)
        assert answer.returncode == 0, (
            f"{' '.join(command)} ended with {answer.returncode}: {answer.stdout}{answer.stderr}"
        )
        return answer.stdout.strip()

    def _entered(self, command: Sequence[str]) -> list[str]:
        enter = ["nsenter", "--target", str(self._init), "-m", "-u", "-i", "-p", "-C", "--"]
        return [*enter, "env", "-i", *_ENVIRONMENT, *command]

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """A file of root's has this content; missing directories are made."""
        file = self.path(inside)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def put(self, package: Path) -> str:
        """A file of ours is on the host; its path there."""
        inside = f"/root/{package.name}"
        self.path(inside).write_bytes(package.read_bytes())
        return inside

    def apt(self, *arguments: str) -> str:
        """What apt-get prints; it asks nobody, and fetches nothing."""
        return self.run("apt-get", "--yes", "--no-install-recommends", *arguments, timeout_s=90)

    # -- services --------------------------------------------------------------------------------

    def show(self, name: str, unit: str = AGENT) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit)

    def main_pid(self, unit: str = AGENT) -> int:
        """Its main process, as the root counts; 0 when there is none."""
        return int(self.show("MainPID", unit))

    def wait_for_status(self, text: str, unit: str = AGENT, timeout_s: float = 30) -> None:
        """The agent says this of itself in `systemctl status`."""
        told = ""

        def says_so() -> bool:
            nonlocal told
            told = self.show("StatusText", unit)
            return told == text

        try:
            wait_for(says_so, timeout_s=timeout_s, what=f"status {text!r}", interval_s=0.05)
        except TimeoutError as error:
            raise AssertionError(f"{error}, but {told!r}: {self.journal(unit)}") from error

    def wait_for_new_agent(self, old_pid: int, unit: str = AGENT, timeout_s: float = 30) -> int:
        """The pid of an agent that is up, and is another than that one."""

        def found() -> int:
            shown = self.run("systemctl", "show", "--property", "MainPID,ActiveState", unit).splitlines()
            values = dict(line.split("=", 1) for line in shown)
            pid = int(values["MainPID"])
            return pid if values["ActiveState"] == "active" and pid not in (0, old_pid) else 0

        try:
            pid: int = wait_for(
                found, timeout_s=timeout_s, what=f"another {unit} than {old_pid}", interval_s=0.05
            )
        except TimeoutError as error:
            raise AssertionError(f"{error}: {self.journal(unit)}") from error
        return pid

    def journal(self, unit: str = AGENT) -> str:
        """What the unit has said and what became of it."""
        return self.run("journalctl", "--no-pager", "--output", "short-iso", "--unit", unit)

    def is_running(self, pid: int) -> bool:
        """A process of the root is there, and not dead."""
        try:
            text = self.path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError:
            return False
        return text.rpartition(")")[2].split()[0] != "Z"

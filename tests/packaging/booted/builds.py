"""What `make packages` builds."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.packaging.booted.started_command import StartedCommand

PROJECT = Path(__file__).parents[3]
# Any; the same for all builds of a session.
_EPOCH = "1700000000"
_SOURCES = ("agent", "conf", "packaging", "systemd", "LICENSE", "Makefile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What to build.

    Attributes:
        version: instead of the agent's own; None for that.
        kinds: of packages, with commas between.
    """

    version: str | None
    kinds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """What was built.

    Attributes:
        directory: with all kinds, of the agent as it is.
        upgraded: with a deb of the same code as a newer version.
        checkout: a copy of what they were built from, in which nothing was built yet.
    """

    directory: Path
    upgraded: Path
    checkout: Path

    @property
    def deb(self) -> Path:
        (file,) = self.directory.glob("*.deb")
        return file

    @property
    def rpm(self) -> Path:
        (file,) = self.directory.glob("*.rpm")
        return file

    @property
    def files(self) -> list[Path]:
        return sorted(file for file in self.directory.iterdir() if file.is_file())

    @property
    def newer_deb(self) -> Path:
        (file,) = self.upgraded.glob("*.deb")
        return file

    def install_in(self, tree: Path) -> None:
        """The package is installed and enabled in a root in which nothing runs."""
        shutil.copy(self.deb, tree / "root/agent.deb")
        for command in (
            ["dpkg", "--install", "/root/agent.deb"],
            ["systemctl", "enable", "codedeploy-agent"],
        ):
            in_chroot(tree, *command)


def copy_project(checkout: Path) -> None:
    """All that a build needs is there."""
    checkout.mkdir()
    for name in _SOURCES:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, checkout / name)


def in_chroot(tree: Path, *command: str) -> str:
    """What the command prints."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
    answer = subprocess.run(
        ["chroot", str(tree), *command], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, f"{command}: {answer.stdout}{answer.stderr}"
    return answer.stdout


def start_build(
    build: Build, output: Path, project: Path = PROJECT, user: tuple[str, ...] = ()
) -> StartedCommand:
    """`make packages` is running, with the machine's own Python, which every user may run."""
    arguments = f"--output {output} --kinds {build.kinds}"
    if build.version:
        arguments += f" --version {build.version}"
    command = [*user, "make", "-C", str(project), "packages", f"ARGS={arguments}"]
    command.append("PACKAGES_PYTHON=/usr/bin/python3")
    return StartedCommand(command, {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH})

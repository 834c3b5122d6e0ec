"""A host for `agentctl plan`: the revisions that it may get, and an agentctl that is configured for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.cli.conftest import AgentCtl, Done


class Host:
    """One host, the revisions that it may get, and an agentctl that is configured for it."""

    def __init__(self, agentctl: AgentCtl, base: Path) -> None:
        self.base = base
        self.destination = base / "destination"
        self.root = base / "root"
        self.temporary = base / "tmp"
        self.config_file = base / "agent.yml"
        self.settings = {
            "root_dir": self.root,
            "log_dir": base / "log",
            "pid_dir": base / "state",
            "on_premises_config_file": base / "on-premises.yml",
        }
        self.temporary.mkdir()
        self.configure()
        self._agentctl = agentctl
        self._number = 0

    def configure(self, **settings: object) -> None:
        self.settings.update(settings)  # type: ignore[arg-type]
        self.config_file.write_text("".join(f"{key}: {value}\n" for key, value in self.settings.items()))

    def files(self, files: Mapping[str, str], more: str = "") -> dict[str, str | bytes]:
        """Members of a revision that installs these files, with these further lines in its AppSpec."""
        appspec = f"version: 0.0\nos: linux\nfiles:\n  - source: app\n    destination: {self.destination}\n"
        return {"appspec.yml": appspec + more, **{f"app/{name}": text for name, text in files.items()}}

    def revision(self, files: Mapping[str, str], more: str = "") -> Path:
        """A directory with that revision."""
        self._number += 1
        directory = self.base / f"revision-{self._number}"
        for name, content in self.files(files, more).items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(content))
        return directory

    def plan(self, *arguments: object) -> Done:
        return self._agentctl("plan", "-c", self.config_file, *arguments, TMPDIR=str(self.temporary))

    def plan_as_json(self, *arguments: object) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.plan("--json", *arguments).stdout)
        return told

    def deploy(self, revision: Path, *arguments: object) -> None:
        done = self._agentctl("deploy", "-c", self.config_file, "-l", revision, *arguments)
        assert 0 == done.returncode, done.stdout + done.stderr

    def everything(self) -> dict[str, tuple[object, ...]]:
        """All that is below the host's directory: inodes, modes, owners, times and contents."""
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted(self.base.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            times = (status.st_mtime_ns, status.st_ctime_ns)
            # Making and removing something in the directory for temporary files is allowed.
            found[str(path)] = (status.st_ino, status.st_mode, status.st_uid, content) + (
                times if path != self.temporary else ()
            )
        return found

"""An event of a deployment, with an archive that any user may read."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.appspec import HookScript
from agent.errors import CommandFailure
from agent.lifecycle.context import HookContext
from agent.lifecycle.environment import DEFAULT_PATH, HookEnvironment
from agent.lifecycle.run import EventLog, never, run_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Event:
    """Runs scripts as an event of deployment d-NEW."""

    directory: Path
    inherited: dict[str, str] = field(default_factory=lambda: {"PATH": DEFAULT_PATH})
    deployment: dict[str, str] = field(default_factory=dict)
    additions: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    cancelled: Callable[[], bool] = never

    @property
    def archive(self) -> Path:
        return self.directory / "deployment-archive"

    @property
    def scripts_log(self) -> Path:
        return self.directory / "logs" / "scripts.log"

    @property
    def deployments_log(self) -> Path:
        return self.directory / "deployment-logs" / "agent-deployments.log"

    @property
    def context(self) -> HookContext:
        context = HookContext(
            event="AfterInstall",
            deployment_id="d-NEW",
            archive=self.archive,
            scripts_of="d-NEW",
            environment=HookEnvironment(
                inherited=self.inherited, deployment=self.deployment, additions=self.additions
            ),
            scripts_log=self.scripts_log,
            deployments_log=self.deployments_log,
        )
        return replace(context, **self.options)

    def write(self, location: str, content: str | bytes, *, mode: int = 0o755) -> Path:
        """Put a script into the archive."""
        path = self.archive / location
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def run(self, *scripts: HookScript) -> EventLog:
        return run_event(scripts, self.context, self.cancelled)

    def run_one(self, content: str | bytes, **fields: Any) -> EventLog:
        """Write and run one script, h.sh; `fields` are those of its AppSpec entry."""
        self.write("h.sh", content)
        return self.run(HookScript(**{"location": "h.sh", "line": 7, **fields}))

    def fail(self, *scripts: HookScript) -> CommandFailure:
        with pytest.raises(CommandFailure) as raised:
            self.run(*scripts)
        return raised.value

    def fail_one(self, content: str | bytes, **fields: Any) -> CommandFailure:
        with pytest.raises(CommandFailure) as raised:
            self.run_one(content, **fields)
        return raised.value

    def printed(self, content: str, **fields: Any) -> str:
        """What a script that succeeds printed, without marks."""
        lines = self.run_one(content, **fields).tail.splitlines()[2:]
        return "\n".join(line.removeprefix("[stdout]") for line in lines)


@pytest.fixture
def event() -> Iterator[Event]:
    # Not tmp_path: other users may not enter that.
    directory = Path(tempfile.mkdtemp(prefix="lifecycle-"))
    directory.chmod(0o755)
    made = Event(directory=directory)
    made.archive.mkdir()
    yield made
    shutil.rmtree(directory)

"""Deployments from a directory, by `agentctl deploy`: told to end in the middle, and with a source that a script empties."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import AGENTCTL, Agent
from tests.waiting import PATIENCE_S, is_running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPSPEC = """\
version: 0.0
os: linux
hooks:
  BeforeInstall:
    - location: wait.sh
"""


@pytest.fixture
def host(tmp_path: Path) -> Agent:
    """The files of an agent that does not run."""
    return Agent(tmp_path / "host", {})


@pytest.fixture
def revision(tmp_path: Path) -> Path:
    """Its script says that it runs, and does so for a minute."""
    directory = tmp_path / "revision"
    directory.mkdir()
    (directory / "appspec.yml").write_text(APPSPEC)
    (directory / "wait.sh").write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid.new\nmv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 60\n"
    )
    return directory


@contextlib.contextmanager
def deploying(host: Agent, revision: Path, *before: str) -> Iterator[subprocess.Popen[bytes]]:
    """While the block runs, agentctl does, until somebody ends it."""
    options = ["-c", str(host.config_file), "-l", str(revision), "-t", "directory"]
    command = [*before, str(AGENTCTL), "deploy", *options]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=host.environment,
        cwd=host.directory,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def running_script(tmp_path: Path) -> int:
    """Its pid, once it runs."""
    wait_until((tmp_path / "pid").exists, "the script runs")
    return int((tmp_path / "pid").read_text())


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name
)
def test_a_deployment_that_is_broken_off_ends_its_script_and_is_history(
    host: Agent, revision: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """The connection was lost over which somebody deployed: the script would run on without a deadline."""
    with deploying(host, revision) as process:
        script = running_script(tmp_path)
        process.send_signal(number)
        assert 128 + number == process.wait(PATIENCE_S)
        assert not is_running(script)
    entry = host.history()[-1]
    assert ("BeforeInstall", "Failed", "deployment-interrupted") == (
        entry["command_name"],
        entry["result"]["status"],
        entry["result"]["error_id"],
    )


def test_under_nohup_the_terminal_may_go(host: Agent, revision: Path, tmp_path: Path) -> None:
    """Who starts it like that wants it to go on."""
    with deploying(host, revision, "nohup") as process:
        script = running_script(tmp_path)
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        assert is_running(script)
        os.kill(script, signal.SIGKILL)
        assert 1 == process.wait(PATIENCE_S)


def test_a_source_that_a_script_has_emptied_is_not_installed_as_nothing(
    host: Agent, revision: Path, tmp_path: Path
) -> None:
    """The application would be taken away, and the deployment would have succeeded."""
    (revision / "app").mkdir()
    (revision / "app" / "file.txt").write_text("new")
    (revision / "appspec.yml").write_text(
        f"version: 0.0\nos: linux\nfiles:\n  - source: app\n    destination: {tmp_path}/destination\n"
        "hooks:\n  BeforeInstall:\n    - location: tidy.sh\n"
    )
    (revision / "tidy.sh").write_text('#!/bin/sh\nrm "$(dirname "$0")"/app/*\n')
    done = host.agentctl("deploy", "-l", revision, "-t", "directory")
    assert 1 == done.returncode, done.stdout + done.stderr
    assert "source 'app' (AppSpec line 4) holds no files any more" in done.stdout + done.stderr
    assert not (tmp_path / "destination").exists()

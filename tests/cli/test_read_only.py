"""An agent on a disk that is mounted read-only."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import AGENTCTL, clean_environment

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_read_only_root_directory_is_named_as_that_to_root(tmp_path: Path) -> None:
    """Root may write everywhere else, so nobody looks for a user or a permission."""
    root = tmp_path / "root"
    root.mkdir()
    places = {"root_dir": root, "log_dir": tmp_path / "log", "pid_dir": tmp_path / "state"}
    config = tmp_path / "agent.yml"
    config.write_text("".join(f"{key}: {value}\n" for key, value in places.items()))
    mounted = f"mount --bind {root} {root} && mount -o remount,bind,ro {root}"
    command = f"{mounted} && exec {AGENTCTL} run --config-file {config}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 2 == done.returncode
    assert f"`root_dir` {root} is on a file system that is mounted read-only, for root as well" in done.stderr
    assert "uid" not in done.stderr

"""A disk that really is full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
from agent.appspec import parse_appspec
from agent.errors import CommandFailure
from agent.install import InstallRequest, install

base = Path(sys.argv[1])
spec = f"version: 0.0\\nos: linux\\nfiles: [{{source: app, destination: {base}/small/app}}]\\n"

def deploy(name):
    install(InstallRequest(appspec=parse_appspec(spec.encode(), path="appspec.yml"), archive=base / name,
                           instructions_directory=base / "instructions", group_id="g", deployment_id=name))

deploy("first")
try:
    deploy(sys.argv[2])
except CommandFailure as error:
    found = sorted(path.name for path in (base / "small/app").iterdir())
    print(json.dumps([error.error_id, error.message, found, (base / "small/app/a").read_text()]))
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
@pytest.mark.parametrize(("revision", "option"), [("large", "size=1m"), ("many", "nr_inodes=60")])
def test_a_full_disk_leaves_the_old_revision_whole(host: Any, revision: str, option: str) -> None:
    """The application goes on to run, and the operator learns how much to free."""
    host.write({"app/a": "old"}, host.base / "first")
    host.write({"app/a": "new", **{f"app/{n}": "x" * 300_000 for n in range(6)}}, host.base / "large")
    host.write({"app/a": "new", **{f"app/{n}": "" for n in range(100)}}, host.base / "many")
    (host.base / "small").mkdir()
    mount = f'mount -t tmpfs -o {option} none "$1/small" && exec "$2" -c "$3" "$1" "$4"'

    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", str(host.base), sys.executable, SCRIPT, revision],
        capture_output=True,
        text=True,
        check=True,
    )

    error_id, message, names, content = json.loads(done.stdout.splitlines()[-1])
    assert ("install-disk-full", ["a"], "old") == (error_id, names, content)
    assert ("needs 1800003 bytes and 7 inodes" in message) or ("101 inodes" in message)
    assert "free are" in message

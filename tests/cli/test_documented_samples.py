"""What docs/operations.md shows of a terminal is what agentctl prints."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.cli.recover import _Outcome
from tests.cli.planning_host import Host

if TYPE_CHECKING:
    from tests.cli.conftest import AgentCtl, Done

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
GROUP = "default-local-deployment-group"
SHOWN = [line[4:] for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("    ")]


@pytest.fixture
def host(agentctl: AgentCtl, tmp_path: Path) -> Host:
    base = tmp_path / "host"
    base.mkdir()
    return Host(agentctl, base)


def below(command: str) -> str:
    """What the document shows below this command, as far as the end of what it printed."""
    first = SHOWN.index(f"$ {command}") + 1
    last = next(at for at in range(first, len(SHOWN)) if SHOWN[at].startswith(("Room: ", "Install is not")))
    return "\n".join(alike(line) for line in SHOWN[first : last + 1])


def printed(host: Host, done: Done) -> str:
    """The same of a real command, as if it had been given on the host of the document."""
    text = done.stdout.replace(str(host.destination), "/srv/shop").replace(str(host.base), "/srv/shop")
    return "\n".join(alike(line) for line in text.splitlines())


def alike(line: str) -> str:
    """The line without what differs from day to day: times, ages, space."""
    line = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, [^;)]* ago", "TIME", line)
    return re.sub(r"\d+ bytes and \d+ inodes free", "SPACE", line)


def as_built(revision: Path) -> Path:
    """The revision, whose files have the time of their last change, as from a repository."""
    for path in revision.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return revision


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files to another user")
def test_the_plan_of_the_document(host: Host) -> None:
    """People compare what they see with it, line by line, before they deploy over a running application."""
    before = {"app.py": "1", "readme": "r", "lib/old.py": "o", "settings.ini": "s", "start.sh": "x"}
    owner = f"permissions:\n  - {{object: {host.destination}/start.sh, mode: 755, owner: daemon}}\n"
    host.deploy(as_built(host.revision(before, owner)))
    (host.destination / "settings.ini").write_text("edited")
    (host.destination / "robots.txt").write_text("theirs")
    after = {"app.py": "222", "readme": "r", "new\nline": "nl", "robots.txt": "ro", "start.sh": "x"}
    done = host.plan(as_built(host.revision(after, owner)), "--file-exists-behavior", "OVERWRITE")
    assert 0 == done.returncode, done.stderr
    assert below("agentctl plan revision --file-exists-behavior OVERWRITE") == printed(host, done)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="the files of the document are root's")
def test_the_conflicts_of_the_document(host: Host) -> None:
    """An operator who meets them looks them up there."""
    (host.destination / "data").mkdir(parents=True)
    (host.destination / "robots.txt").write_text("theirs")
    revision = host.revision({"data": "d", "index.html": "1", "robots.txt": "r"})
    (revision / "web").mkdir()
    (revision / "web" / "index.html").write_text("2")
    appspec = (
        "version: 0.0\nos: linux\nfiles:\n"
        f"  - source: app\n    destination: {host.destination}\n"
        f"  - source: web/index.html\n    destination: {host.destination}\n"
    )
    (revision / "appspec.yml").write_text(appspec)
    done = host.plan(revision)
    assert 1 == done.returncode
    assert below("agentctl plan revision") == printed(host, done)


def test_a_deployment_that_is_sure_to_fail_says_what_the_document_shows(
    host: Host, agentctl: AgentCtl
) -> None:
    """That nothing has been run is the first thing to know at night."""
    revision = host.revision({"index.html": "1"})
    (revision / "appspec.yml").unlink()
    done = agentctl("deploy", "-c", host.config_file, "-l", revision)
    assert 1 == done.returncode
    first, second = done.stdout.strip().splitlines()[-2:]
    shown = next(at for at, line in enumerate(SHOWN) if line.startswith("The deployment failed at Install:"))
    beginning, _, end = SHOWN[shown].partition(" … ")
    assert first.startswith(beginning), first
    assert first.endswith(end), first
    assert SHOWN[shown + 1] == second


@pytest.mark.parametrize("outcome", [_Outcome.UNDONE, _Outcome.COMPLETED, _Outcome.STUCK])
def test_what_recover_says_is_in_the_document(outcome: _Outcome) -> None:
    """Each of its sentences decides what to do next."""
    assert f"{GROUP}: {outcome.value}" in {line.removeprefix("agentctl: ") for line in SHOWN}

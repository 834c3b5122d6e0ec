"""What `agentctl deploy` says when it can't deploy: early, once, and so that people can read it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.daemon.agent_process import Agent

if TYPE_CHECKING:
    from tests.cli.conftest import AgentCtl, Done

APPSPEC = "version: 0.0\nos: linux\nfiles:\n  - source: app\n    destination: {}\n"


class Host:
    """A host without a daemon, and a revision of some files in the directory where agentctl is called."""

    def __init__(self, agentctl: AgentCtl, base: Path, names: list[str]) -> None:
        self.agent = Agent(base / "agent", {})
        self.destination = base / "destination"
        self._agentctl = agentctl
        revision = base / "here"
        (revision / "app").mkdir(parents=True)
        (revision / "appspec.yml").write_text(APPSPEC.format(self.destination))
        for name in names:
            (revision / "app" / name).write_text("new")

    def deploy(self, *arguments: str) -> Done:
        return self._agentctl("deploy", "-c", self.agent.config_file, *arguments)

    def recover(self) -> Done:
        return self._agentctl("recover", "-c", self.agent.config_file)


NAMES = [f"file-{number:02d}" for number in range(25)]


@pytest.fixture
def host(agentctl: AgentCtl, tmp_path: Path) -> Host:
    return Host(agentctl, tmp_path, NAMES)


def test_conflicts_are_listed_once_and_all_of_them_one_a_line(host: Host) -> None:
    """A report has room for some; here is no other log in which to look for the rest."""
    host.destination.mkdir()
    for name in NAMES:
        (host.destination / name).write_text("mine")
    done = host.deploy()
    assert (1, "") == (done.returncode, done.stderr)
    lines = done.stdout.splitlines()
    listed = [line.split()[1] for line in lines if line.startswith("conflict ")]
    assert [str(host.destination / name) for name in NAMES] == listed
    assert len(NAMES) == done.stdout.count(f"{host.destination}/")
    after = lines[lines.index("The deployment failed at Install:") + 1 + len(NAMES) :]
    assert "Install is not possible. 25 paths are in the way of this Install" in after[0]
    assert after[0].endswith("[install-conflicts]")
    assert "see the agent's log" not in done.stdout
    assert "mine" == (host.destination / NAMES[0]).read_text()


def test_other_warnings_are_still_said(host: Host, tmp_path: Path) -> None:
    """Only what is in the answer itself is left out of the log."""
    with open(tmp_path / "here" / "appspec.yml", "a") as stream:
        stream.write("unknown: true\n")
    done = host.deploy()
    assert 0 == done.returncode, done.stdout + done.stderr
    assert re.search(r"^\S+ WARNING +appspec_warning ", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("command", ["deploy", "plan"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../x", "../x leads out of the revision"),
        ("deploy/../../x", "deploy/../../x leads out of the revision"),
        ("", "'' is not the name of a file"),
        ("deploy/", "'deploy/' is not the name of a file"),
        ("deploy/..", "'deploy/..' is not the name of a file"),
        (".", "'.' is not the name of a file"),
    ],
)
def test_an_appspec_name_that_no_revision_can_have_is_refused_before_anything_is_fetched(
    agentctl: AgentCtl, host: Host, command: str, name: str, reason: str
) -> None:
    """Exit code 2, as for all bad input: a large bundle need not be waited for to learn of a typing error."""
    done = agentctl(command, "-c", host.agent.config_file, "-A", name)
    assert (2, "") == (done.returncode, done.stdout)
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not host.agent.root.exists()


@pytest.mark.parametrize("name", ["appspec.yml", "/appspec.yml", "app/../appspec.yml"])
def test_an_appspec_name_within_the_revision_is_taken(host: Host, name: str) -> None:
    """A leading slash is the revision itself."""
    done = host.deploy("--appspec-filename", name)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert NAMES == sorted(path.name for path in host.destination.iterdir())


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can work in other people's directories")
@pytest.mark.parametrize(
    "appspec",
    ["Files: [{source: app, destination: /x}]\n", "Resources: [{fn: {Type: AWS::Lambda::Function}}]\n"],
    ids=["a section in capitals", "another platform"],
)
def test_an_appspec_that_would_do_nothing_is_refused_before_the_first_event(
    host: Host, tmp_path: Path, appspec: str
) -> None:
    """The application that runs must not be stopped for nothing."""
    (tmp_path / "here" / "appspec.yml").write_text("version: 0.0\nos: linux\n" + appspec)

    done = host.deploy()

    assert 1 == done.returncode
    assert "nothing at all would be done" in done.stdout + done.stderr
    assert "ApplicationStop" not in done.stdout


@pytest.mark.parametrize("key", ["root_dir", "pid_dir"])
def test_root_does_not_work_in_somebody_elses_directories(host: Host, key: str) -> None:
    """Records and archives that lie there decide which files root removes and which scripts it runs."""
    settings = yaml.safe_load(host.agent.config_file.read_text())
    directory = Path(settings[key])
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, 65534, 65534)
    done = host.deploy()
    assert (2, "") == (done.returncode, done.stdout)
    assert f"`{key}` {directory} belongs to " in done.stderr
    assert "runuser -u " in done.stderr
    assert not host.destination.exists()
    recovered = host.recover()
    assert (4, "") == (recovered.returncode, recovered.stdout)
    assert "runuser -u " in recovered.stderr

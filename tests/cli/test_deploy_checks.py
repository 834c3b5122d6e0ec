"""`agentctl deploy` looks at everything before the first event: what is sure to fail must not stop the application."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import AGENTCTL, Agent
from tests.e2e.bundles import pack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.cli.conftest import AgentCtl, Done

HEAD = "version: 0.0\nos: linux\n"


class Site:
    """A host without a daemon on which an application runs: its first revision has been deployed."""

    def __init__(self, agentctl: AgentCtl, base: Path) -> None:
        self.agent = Agent(base / "agent", {})
        self.base = base
        self.destination = base / "destination"
        self.stopped = base / "stopped"
        self._agentctl = agentctl
        files = f"files:\n  - source: app\n    destination: {self.destination}\n"
        hooks = "hooks:\n  ApplicationStop:\n    - location: stop.sh\n"
        first = {
            "appspec.yml": HEAD + files + hooks,
            "app/one.txt": "one",
            "stop.sh": f"#!/bin/sh\ntouch {self.stopped}\n",
        }
        done = self.deploy(self.revision("first", first))
        assert 0 == done.returncode, done.stdout + done.stderr

    def revision(self, name: str, files: Mapping[str, str]) -> Path:
        directory = self.base / name
        directory.mkdir()
        for relative, content in files.items():
            path = directory / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return directory

    def files_section(self, source: str = "app") -> str:
        return f"files:\n  - source: {source}\n    destination: {self.destination}\n"

    def deploy(self, location: Path, *arguments: str) -> Done:
        return self._agentctl("deploy", "-c", self.agent.config_file, "-l", location, *arguments)

    def left(self) -> list[str]:
        """What lies in the group's directory that is no deployment."""
        names = os.listdir(self.agent.root / "default-local-deployment-group")
        return [name for name in names if not name.startswith("d-")]


@pytest.fixture
def site(agentctl: AgentCtl, tmp_path: Path) -> Site:
    return Site(agentctl, tmp_path)


def hooks(**scripts: str) -> str:
    """Hooks that have one script each."""
    return "hooks:\n" + "".join(
        f"  {event}:\n    - location: {location}\n" for event, location in scripts.items()
    )


# Revisions: their files, what `agentctl deploy` is told beside, and what is said of them.
SURE_TO_FAIL = {
    "no AppSpec": ({"app/two.txt": ""}, [], "appspec-missing"),
    "an AppSpec that is wrong": ({"appspec.yml": "version: 1.0\nos: linux\n"}, [], "appspec-invalid"),
    "an AppSpec of another name": ({"appspec.yml": HEAD}, ["-A", "other.yml"], "appspec-missing"),
    "an unknown event": ({"appspec.yml": HEAD}, ["-e", "ApplicationStop,ValidateServcie"], "command-unknown"),
    "an unknown event at the end": (
        {"appspec.yml": HEAD},
        ["-e", "ApplicationStop,DownloadBundle,Install,AfterInstall,Warm"],
        "command-unknown",
    ),
    "a script that is not there": (
        {"appspec.yml": HEAD + hooks(AfterInstall="nowhere.sh")},
        [],
        "hook-script-missing",
    ),
    "a script for a user that is not there, and nobody to make it": (
        {
            "appspec.yml": HEAD + hooks(BeforeInstall="a.sh") + "      runas: nobody-of-that-name\n",
            "a.sh": "",
        },
        ["-e", "BeforeInstall"],
        "hook-user-unknown",
    ),
    "a source that is not there": (
        {"appspec.yml": HEAD + "files:\n  - source: nowhere\n    destination: /tmp/never-made\n"},
        [],
        "install-source-invalid",
    ),
    "two sources for one path": (
        {
            "appspec.yml": HEAD
            + "files:\n  - source: a/x\n    destination: /tmp/never-made\n"
            + "  - source: b/x\n    destination: /tmp/never-made\n",
            "a/x": "a",
            "b/x": "b",
        },
        [],
        "install-conflicts",
    ),
}


@pytest.mark.parametrize("kind", ["directory", "zip"])
@pytest.mark.parametrize("name", SURE_TO_FAIL)
def test_what_is_sure_to_fail_stops_nothing(site: Site, name: str, kind: str) -> None:
    """The application runs on, and the one sentence says what to fix."""
    files, arguments, error_id = SURE_TO_FAIL[name]
    location = site.revision("second", files)
    if kind == "zip":
        location = site.base / "second.zip"
        location.write_bytes(pack("zip", dict(files)))
    done = site.deploy(location, *arguments)
    assert 1 == done.returncode
    assert f"[{error_id}]" in done.stdout
    assert "found before the first event: nothing has been run." in done.stdout
    assert [] == re.findall(r"^  (\w+) +(Succeeded|Failed)", done.stdout, re.MULTILINE)
    assert not site.stopped.exists()
    assert ["one.txt"] == os.listdir(site.destination)
    assert [] == site.left()
    assert ".checked-" not in done.stdout + done.stderr
    assert (error_id, "Failed") == (
        site.agent.history()[-1]["result"]["error_id"],
        site.agent.history()[-1]["result"]["status"],
    )


def test_a_bundle_that_is_none_stops_nothing(site: Site) -> None:
    """The download was an error page."""
    bundle = site.base / "second.zip"
    bundle.write_text("<html>not found</html>")
    done = site.deploy(bundle)
    assert 1 == done.returncode
    assert "The deployment failed at DownloadBundle:" in done.stdout
    assert str(bundle) in done.stdout
    assert not site.stopped.exists()


def test_a_conflict_that_no_script_can_solve_stops_nothing(site: Site) -> None:
    """Everything in the way is listed, as by the Install itself."""
    (site.destination / "two.txt").write_text("mine")
    second = site.revision("second", {"appspec.yml": HEAD + site.files_section(), "app/two.txt": "new"})
    done = site.deploy(second, "-e", "DownloadBundle,Install")
    assert 1 == done.returncode
    assert f"conflict {site.destination / 'two.txt'}" in done.stdout
    assert "nothing has been run" in done.stdout


def test_what_an_earlier_script_may_put_right_is_said_and_not_refused(site: Site) -> None:
    """BeforeInstall clears the way, or makes the next script: that works elsewhere, too."""
    (site.destination / "two.txt").write_text("mine")
    files = {
        "appspec.yml": HEAD + site.files_section() + hooks(BeforeInstall="clear.sh", AfterInstall="made.sh"),
        "app/two.txt": "new",
        "clear.sh": f"#!/bin/sh\nrm {site.destination}/two.txt\ncd $(dirname $0)\nprintf '#!/bin/sh' > made.sh\n",
    }
    done = site.deploy(site.revision("second", files))
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "Install will fail unless a script that runs before it changes this: " in done.stderr
    assert "AfterInstall will fail unless a script that runs before it changes this: " in done.stderr
    assert "new" == (site.destination / "two.txt").read_text()


def test_application_stop_still_runs_the_earlier_revisions_script(site: Site) -> None:
    """The new one is on the host by then, but not in its place."""
    files = {
        "appspec.yml": HEAD + site.files_section() + hooks(ApplicationStop="never.sh"),
        "app/two.txt": "",
        "never.sh": "exit 1\n",
    }
    done = site.deploy(site.revision("second", files))
    assert 0 == done.returncode, done.stdout + done.stderr
    assert site.stopped.exists()
    assert ["two.txt"] == os.listdir(site.destination)
    assert [] == site.left()
    again = site.deploy(site.base / "second", "-e", "DownloadBundle,DownloadBundle,Install")
    assert 0 == again.returncode, again.stdout + again.stderr


def test_the_oldest_revisions_go_before_the_new_one_is_fetched_and_no_more_than_those(site: Site) -> None:
    """A disk with room for so many revisions and no more must do, as it does for deployments of the service."""
    site.agent.configure(max_revisions=2)
    for name in ("second", "third", "fourth"):
        done = site.deploy(site.revision(name, {"appspec.yml": HEAD}))
        assert 0 == done.returncode, done.stdout + done.stderr
        assert len(os.listdir(site.agent.root / "default-local-deployment-group")) <= 2
    assert 2 == len(os.listdir(site.agent.root / "default-local-deployment-group"))


def test_what_a_killed_deployment_has_fetched_goes_with_the_next_one(site: Site) -> None:
    """A leftover of every power failure would fill the disk."""
    left = site.agent.root / "default-local-deployment-group" / ".checked-d-OLD-local"
    (left / "x").mkdir(parents=True)
    assert 0 == site.deploy(site.revision("second", {"appspec.yml": HEAD})).returncode
    assert not left.exists()


def test_a_deployment_that_fails_while_nobody_reads_leaves_nothing_of_its_own(site: Site) -> None:
    """What was fetched to be looked at goes with the deployment, however that ends."""
    files = {"appspec.yml": HEAD + hooks(BeforeInstall="fail.sh"), "fail.sh": "exit 3\n"}
    location = site.revision("second", files)
    failed = site.deploy(location)
    command = f'"{AGENTCTL}" deploy -c {site.agent.config_file} -l {location} | true'
    subprocess.run(["/bin/sh", "-c", command], env=site.agent.environment, check=True, capture_output=True)
    assert 1 == failed.returncode
    assert 2 == len([entry for entry in site.agent.history() if entry["result"]["status"] == "Failed"])
    assert [] == site.left()


def test_a_failed_application_stop_names_its_way_out_and_the_way_works(site: Site) -> None:
    """The script of the revision that is there is broken, and every deployment would fail at it."""
    broken = {"appspec.yml": HEAD + hooks(ApplicationStop="stop.sh"), "stop.sh": "#!/bin/sh\nexit 3\n"}
    assert 0 == site.deploy(site.revision("second", broken)).returncode
    third = site.revision("third", {"appspec.yml": HEAD})
    failed = site.deploy(third)
    ignored = site.deploy(third, "--ignore-application-stop-failures")
    assert (1, 0) == (failed.returncode, ignored.returncode)
    assert "To deploy all the same: --ignore-application-stop-failures, or --events without" in failed.stdout
    assert re.search(r"^  ApplicationStop +Failed .*\n    ignored: Script at", ignored.stdout, re.MULTILINE)
    shown = site.agent.agentctl("status").stdout
    assert "ApplicationStop failed and was ignored" in shown

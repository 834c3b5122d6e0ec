"""`agentctl deploy`: a deployment on this host, without a control endpoint."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.deployments.group import group_lock_file
from tests.daemon.agent_process import AGENTCTL, clean_environment
from tests.daemon.control_server import HOST
from tests.e2e.bundles import pack
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from tests.cli.conftest import AgentCtl, Done
    from tests.daemon.agent_process import Agent
    from tests.daemon.revisions import Bucket

EVENTS = [
    "BeforeBlockTraffic",
    "AfterBlockTraffic",
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
]


class Local:
    """Deployments of one host's agentctl, and what they leave behind."""

    def __init__(self, agentctl: AgentCtl, agent: Agent, directory: Path) -> None:
        self._agentctl = agentctl
        self.agent = agent
        self.directory = directory
        self.destination = directory / "destination"
        self.trace = directory / "trace"

    def files(self, label: str, *events: str, script: str = "") -> dict[str, str | bytes]:
        """A revision that installs `<label>.txt` and has a script for these events."""
        hooks = "".join(f"  {event}:\n    - location: hook.sh\n" for event in events)
        appspec = f"version: 0.0\nos: linux\nfiles:\n  - source: app\n    destination: {self.destination}\n"
        return {
            "appspec.yml": appspec + (f"hooks:\n{hooks}" if hooks else ""),
            f"app/{label}.txt": label,
            "hook.sh": f'#!/bin/sh\necho "$LIFECYCLE_EVENT of {label}" >> {self.trace}\n{script}\n',
        }

    def unpacked(self, name: str, files: dict[str, str | bytes]) -> Path:
        """A directory with these files."""
        directory = self.directory / name
        for relative, content in files.items():
            path = directory / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(content))
        return directory

    def packed(self, kind: str, files: dict[str, str | bytes], name: str = "bundle") -> Path:
        """A bundle with these files."""
        path = self.directory / f"{name}.{kind}"
        path.write_bytes(pack(kind, files))
        return path

    def deploy(self, *arguments: object) -> Done:
        return self._agentctl("deploy", "-c", self.agent.config_file, *arguments)


@pytest.fixture
def local(agentctl: AgentCtl, agent: Agent, tmp_path: Path) -> Local:
    return Local(agentctl, agent, tmp_path / "here")


def test_a_directory_is_deployed_with_all_events_in_order(local: Local) -> None:
    """The service's deployment, on a developer's own machine."""
    done = local.deploy("-l", local.unpacked("revision", local.files("one", *EVENTS[4:])))
    assert 0 == done.returncode, done.stdout + done.stderr
    assert EVENTS == re.findall(r"^  (\w+) +Succeeded", done.stdout, re.MULTILINE)
    assert re.search(r"Deploying .*/revision as d-[A-Z0-9]{9}-local\n", done.stdout)
    assert ["one.txt"] == os.listdir(local.destination)
    ran = [f"{event} of one" for event in EVENTS[4:] if event != "Install"]
    assert ran == local.trace.read_text().splitlines()


def test_the_working_directory_is_the_default(local: Local) -> None:
    """`cd revision; agentctl deploy`."""
    local.unpacked(".", local.files("one"))
    done = local.deploy()
    assert 0 == done.returncode, done.stdout + done.stderr
    assert ["one.txt"] == os.listdir(local.destination)


@pytest.mark.parametrize("kind", ["tar", "tgz", "zip"])
def test_a_bundle_is_deployed_whose_type_its_name_tells(local: Local, kind: str) -> None:
    """Nobody wants to say twice what the name says."""
    done = local.deploy("-l", local.packed(kind, local.files("one")))
    assert 0 == done.returncode, done.stdout + done.stderr
    assert ["one.txt"] == os.listdir(local.destination)


@pytest.mark.server
def test_a_bundle_in_s3_is_deployed(local: Local, bucket: Bucket) -> None:
    """With the host's own keys."""
    key = bucket.put(pack("zip", local.files("one")), "zip")["S3Revision"]["Key"]
    done = local.deploy("-l", f"s3://bundles/{key}")
    assert 0 == done.returncode, done.stdout + done.stderr
    assert ["one.txt"] == os.listdir(local.destination)
    assert "Credential=AKIAEXAMPLE/" in bucket.server.requests[-1].headers["authorization"]


def test_a_second_deployment_stops_and_replaces_the_first(local: Local) -> None:
    """The same group: the first one's scripts and files give way."""
    assert 0 == local.deploy("-l", local.unpacked("a", local.files("one", "ApplicationStop"))).returncode
    assert 0 == local.deploy("-l", local.unpacked("b", local.files("two", "ApplicationStop"))).returncode
    assert ["two.txt"] == os.listdir(local.destination)
    assert ["ApplicationStop of one"] == local.trace.read_text().splitlines()


def test_another_group_is_left_alone(local: Local) -> None:
    """Several applications share a host."""
    assert 0 == local.deploy("-l", local.unpacked("a", local.files("one"))).returncode
    assert 0 == local.deploy("-l", local.unpacked("b", local.files("two")), "-g", "other-group").returncode
    assert ["one.txt", "two.txt"] == sorted(os.listdir(local.destination))


def test_a_failing_hook_ends_the_deployment_with_its_message(local: Local) -> None:
    """And with an exit code that a pipeline understands."""
    files = local.files("one", "AfterInstall", "ApplicationStart", script="echo no database >&2; exit 3")
    done = local.deploy("-l", local.unpacked("revision", files))
    assert 1 == done.returncode
    assert ["AfterInstall"] == re.findall(r"^  (\w+) +Failed", done.stdout, re.MULTILINE)
    assert "The deployment failed at AfterInstall: Script at specified location: hook.sh" in done.stdout
    assert "failed with exit code 3" in done.stdout
    assert "[hook-failed]" in done.stdout
    log = Path(re.findall(r"what hooks printed is in (\S+)", done.stdout)[0])
    assert "[stderr]no database" in log.read_text()
    assert ["AfterInstall of one"] == local.trace.read_text().splitlines()


def test_files_that_nobody_deployed_are_kept_unless_told_otherwise(local: Local) -> None:
    """The default is the careful one."""
    local.destination.mkdir()
    (local.destination / "one.txt").write_text("mine")
    revision = local.unpacked("revision", local.files("one"))
    refused = local.deploy("-l", revision)
    retained = local.deploy("-l", revision, "-b", "retain")
    kept = (local.destination / "one.txt").read_text()
    overwritten = local.deploy("-l", revision, "-b", "OVERWRITE", "-g", "g2")
    assert (1, 0, 0) == (refused.returncode, retained.returncode, overwritten.returncode)
    assert str(local.destination / "one.txt") in refused.stdout
    assert ("mine", "one") == (kept, (local.destination / "one.txt").read_text())


def test_only_the_events_that_are_asked_for_are_run(local: Local) -> None:
    """Download and Install come first by themselves."""
    files = local.files("one", "BeforeInstall", "AfterInstall", "ValidateService")
    done = local.deploy("-l", local.unpacked("revision", files), "-e", "ValidateService, AfterInstall")
    assert 0 == done.returncode, done.stdout + done.stderr
    shown = re.findall(r"^  (\w+) +Succeeded", done.stdout, re.MULTILINE)
    assert ["DownloadBundle", "Install", "ValidateService", "AfterInstall"] == shown
    assert ["ValidateService of one", "AfterInstall of one"] == local.trace.read_text().splitlines()


def test_a_custom_event_and_an_appspec_of_another_name(local: Local) -> None:
    """What the service can do."""
    files = local.files("one", "WarmCaches")
    files["deploy/two.yml"] = files.pop("appspec.yml")
    done = local.deploy("-l", local.unpacked("revision", files), "-A", "deploy/two.yml", "-e", "WarmCaches")
    assert 0 == done.returncode, done.stdout + done.stderr
    assert ["WarmCaches of one"] == local.trace.read_text().splitlines()


def test_status_tells_of_local_deployments_too(local: Local) -> None:
    """Whoever looks at the host later on wants to know where its files came from."""
    done = local.deploy("-l", local.unpacked("revision", local.files("one")), "-a", "my-shop")
    deployment_id = re.findall(r"d-\w+-local", done.stdout)[0]
    told = json.loads(local.agent.agentctl("status", "--json").stdout)
    assert [(deployment_id, "my-shop", "Succeeded")] == [
        (item["deployment_id"], item["application_name"], item["status"]) for item in told["deployments"]
    ]


def test_hooks_of_a_local_deployment_know_the_host(local: Local) -> None:
    """The same script must work in both."""
    printed = local.directory / "environment"
    files = local.files("one", "AfterInstall", script=f"env > {printed}")
    assert 0 == local.deploy("-l", local.unpacked("revision", files), "-d", "blue").returncode
    environment = dict(line.split("=", 1) for line in printed.read_text().splitlines() if "=" in line)
    assert (HOST, "blue", "default-local-deployment-group") == (
        environment["AWS_HOST_IDENTIFIER"],
        environment["DEPLOYMENT_GROUP_NAME"],
        environment["DEPLOYMENT_GROUP_ID"],
    )


def test_a_root_that_cannot_be_written_is_named(local: Local) -> None:
    """An ordinary user has forgotten sudo. The same error path, and it works as root."""
    local.agent.root.touch()
    done = local.deploy("-l", local.unpacked("revision", local.files("one")))
    assert 1 == done.returncode
    assert str(local.agent.root) in done.stdout + done.stderr
    assert "[deployment-directory-unwritable]" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


BAD_INPUT = {
    "nothing there": (["-l", "nowhere.tar"], "there is nothing at "),
    "a directory with a type": (
        ["-l", "revision", "-t", "zip"],
        "is a directory, which does not fit --type zip",
    ),
    "a file without a type": (["-l", "file"], "is a file, which does not fit --type directory"),
    "an unknown type": (["-l", "file", "-t", "rar"], "'rar' is not one of"),
    "an address of another kind": (
        ["-l", "ftp://host/app.zip"],
        "neither a path nor s3:// nor https://github.com/",
    ),
    "a bucket without a key": (["-l", "s3://bucket", "-t", "zip"], "must be s3://bucket/key"),
    "a key without a type": (["-l", "s3://bucket/key"], "with --type tar, tgz or zip"),
    "no repository": (
        ["-l", "https://github.com/account", "-t", "zip"],
        "must be https://github.com/account/repository",
    ),
    "GitHub as tgz": (["-l", "https://github.com/a/b", "-t", "tgz"], "GitHub makes tar and zip, not tgz"),
    "an event of the new revision before its download": (
        ["-l", "revision", "-e", "BeforeInstall,DownloadBundle,Install"],
        "BeforeInstall can't come before DownloadBundle",
    ),
    "an event after Install before it": (
        ["-l", "revision", "-e", "DownloadBundle,AfterInstall,Install"],
        "AfterInstall can't come before Install",
    ),
    "an empty event": (["-l", "revision", "-e", "AfterInstall,,ValidateService"], "--events"),
    "a group that is no name": (["-l", "revision", "-g", "../outside"], "../outside is no id"),
    "an unknown behaviour": (["-l", "revision", "-b", "MERGE"], "'MERGE' is not one of"),
    "a configuration that is not there": (
        ["-l", "revision", "-c", "nowhere.yml"],
        "nowhere.yml can't be used",
    ),
    "an unknown option": (["--now"], "No such option"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_refused_before_anything_is_done(local: Local, name: str) -> None:
    """Exit code 2, one message, and the host as it was."""
    arguments, message = BAD_INPUT[name]
    local.unpacked("revision", local.files("one"))
    (local.directory / "file").touch()
    done = local.deploy(*arguments)
    assert (2, "") == (done.returncode, done.stdout)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not local.destination.exists()
    assert not local.agent.root.exists()


def test_events_that_nobody_knows_fail_before_they_are_taken_for_granted(local: Local) -> None:
    """A typing error in a pipeline must not skip the check that it was to run."""
    done = local.deploy("-l", local.unpacked("revision", local.files("one")), "-e", "ValidateServcie")
    assert 1 == done.returncode
    assert "ValidateServcie" in done.stdout
    assert "[command-unknown]" in done.stdout


@pytest.mark.parametrize(
    ("events", "order"),
    [
        ("Install,DownloadBundle", "Install can't come before DownloadBundle"),
        ("ApplicationStop,DownloadBundle,Install", ["ApplicationStop", "DownloadBundle", "Install"]),
        ("DownloadBundle,ValidateService", ["DownloadBundle", "Install", "ValidateService"]),
        ("BeforeBlockTraffic,DownloadBundle,BeforeInstall,Install", None),
    ],
)
def test_the_order_of_events_is_the_users_within_what_makes_sense(
    local: Local, events: str, order: list[str] | str | None
) -> None:
    """What belongs to the old revision may come before the download, and nothing else."""
    done = local.deploy("-l", local.unpacked("revision", local.files("one")), "-e", events)
    if isinstance(order, str):
        assert 2 == done.returncode
        assert order in done.stderr
    else:
        assert 0 == done.returncode, done.stdout + done.stderr
        shown = re.findall(r"^  (\w+) +Succeeded", done.stdout, re.MULTILINE)
        assert (order or events.split(",")) == shown


def test_who_else_works_on_the_group_is_said_while_it_is_waited_for(local: Local) -> None:
    """A terminal that says nothing for an hour looks like an agentctl that hangs."""
    group = local.agent.root / "default-local-deployment-group"
    group.mkdir(parents=True)
    revision = local.unpacked("revision", local.files("one"))
    command: list[str | Path] = [AGENTCTL, "deploy", "-c", local.agent.config_file, "-l", revision]
    descriptor = os.open(group_lock_file(group), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with subprocess.Popen(
            command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            said = process.stderr.readline()
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            process.communicate(timeout=PATIENCE_S)
    finally:
        os.close(descriptor)
    assert re.fullmatch(
        rf"agentctl: pid {os.getpid()} \(`.*`\) works on deployment group {group.name}; this deployment begins when"
        r" that has ended\n",
        said,
    )
    assert 0 == process.returncode

"""The main job: real daemons, real servers, https everywhere, driven through boto3 only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.bundles import appspec, pack
from tests.e2e.conftest import COMMIT

if TYPE_CHECKING:
    from demo.stack import Stack
    from tests.e2e.conftest import Fleet, GitHub

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

IN_PLACE = [
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
]


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("the agent is gone")


def test_bundles_of_every_type_are_deployed_and_each_replaces_the_one_before(
    fleet: Fleet, destination: Path
) -> None:
    """One group, three revisions in three formats: the last one's files are there, and no others."""
    fleet.add_group("types", "group", "web")
    hooks = {"AfterInstall": "hook.sh", "ApplicationStop": "hook.sh"}
    deployed: list[str] = []
    for kind in ("tar", "tgz", "zip"):
        script = f'#!/bin/sh\necho "$LIFECYCLE_EVENT of {kind}" >> {destination}.log\n'
        members = {f"app/{kind}.txt": kind, "hook.sh": script, "appspec.yml": appspec(destination, hooks)}
        deployment_id, status = fleet.deploy(
            "types", "group", fleet.upload(f"types.{kind}", pack(kind, members), kind)
        )
        assert "Succeeded" == status
        assert [f"{kind}.txt"] == os.listdir(destination)
        deployed.append(deployment_id)
    events = fleet.events(deployed[-1])
    assert dict.fromkeys(IN_PLACE, "Succeeded") == {name: event["status"] for name, event in events.items()}
    ran = Path(f"{destination}.log").read_text().splitlines()
    expected = [
        "AfterInstall of tar",
        "ApplicationStop of tar",
        "AfterInstall of tgz",
        "ApplicationStop of tgz",
    ]
    assert [*expected, "AfterInstall of zip"] == ran


def test_a_github_revision_is_deployed(fleet: Fleet, github: GitHub, destination: Path) -> None:
    """Through the redirect to another host, with GitHub's own top directory left out."""
    members = {"app/file.txt": "from GitHub", "appspec.yml": appspec(destination)}
    github.archives["tar"] = pack("tgz", members, top="acme-shop-0123456")
    fleet.add_group("github", "group", "web")
    location = {"repository": "acme/shop", "commitId": COMMIT}
    deployed = fleet.deploy("github", "group", {"revisionType": "GitHub", "gitHubLocation": location})
    assert ("Succeeded", "from GitHub") == (deployed[1], (destination / "file.txt").read_text())


def test_two_groups_are_deployed_at_once_on_one_host(fleet: Fleet, destination: Path) -> None:
    """Each waits for the other: that only works if they run side by side."""
    ids = []
    for mine, other in (("a", "b"), ("b", "a")):
        script = (
            f"#!/bin/sh\ntouch {destination}.{mine}\n"
            f"for i in $(seq 400); do [ -e {destination}.{other} ] && exit 0; sleep 0.05; done\nexit 1\n"
        )
        hooks = {"BeforeInstall": "hook.sh"}
        members = {"app/f": mine, "hook.sh": script, "appspec.yml": appspec(destination / mine, hooks)}
        fleet.add_group(f"side-{mine}", "group", "web")
        revision = fleet.upload(f"side-{mine}.tar", pack("tar", members), "tar")
        ids.append(fleet.start(f"side-{mine}", "group", revision))
    statuses = [fleet.wait(deployment_id)["status"] for deployment_id in ids]
    assert ["Succeeded", "Succeeded"] == statuses


def test_ten_deployments_in_a_row_leave_the_daemon_as_small_as_before(
    fleet: Fleet, stack: Stack, destination: Path
) -> None:
    """It runs for months, and forks all the work."""
    agent = stack.hosts["db"].agent
    assert agent is not None
    fleet.add_group("memory", "group", "db")
    filler = os.urandom(200_000)
    sizes = []
    for number in range(11):
        members: dict[str, str | bytes] = {
            **{f"app/{n}": filler for n in range(20)},
            "appspec.yml": appspec(destination),
        }
        revision = fleet.upload(f"memory-{number}.tar", pack("tar", members), "tar")
        assert "Succeeded" == fleet.deploy("memory", "group", revision)[1]
        sizes.append(resident_kib(agent.popen.pid))
    # The first deployment may still touch pages for the first time.
    assert sizes[-1] - sizes[0] <= 512


def test_a_failing_hook_is_explained_through_the_api_and_on_the_host(
    fleet: Fleet, stack: Stack, destination: Path
) -> None:
    """3 a.m.: which script, how, and what it printed, in both places where people look."""
    fleet.add_group("failing", "group", "db")
    members = {
        "app/f": "x",
        "check.sh": "#!/bin/sh\necho no database at db.internal >&2\nexit 3\n",
        "appspec.yml": appspec(destination, {"ValidateService": "check.sh"}),
    }
    deployment_id = fleet.start("failing", "group", fleet.upload("failing.tar", pack("tar", members), "tar"))
    info = fleet.wait(deployment_id)
    diagnostics = fleet.events(deployment_id)["ValidateService"]["diagnostics"]
    assert ("Failed", "ScriptFailed", "check.sh") == (
        info["status"],
        diagnostics["errorCode"],
        diagnostics["scriptName"],
    )
    assert "check.sh failed with exit code 3" in diagnostics["message"]
    assert "[stderr]no database at db.internal" in diagnostics["logTail"]
    status = json.loads(stack.agentctl(stack.hosts["db"], "status", "--json").stdout)
    newest = status["deployments"][0]
    assert (deployment_id, "Failed", "ValidateService") == (
        newest["deployment_id"],
        newest["status"],
        newest["last_event"],
    )


def test_a_host_registered_through_the_public_api_takes_part(fleet: Fleet, stack: Stack) -> None:
    """Keys come from the endpoint's own command; everything else is what people script already."""
    made = json.loads(stack.control("host", "create-key", "scripted", "--json"))
    arn = next(value for value in made.values() if isinstance(value, str) and value.startswith("arn:"))
    fleet.codedeploy.register_on_premises_instance(instanceName="scripted", iamUserArn=arn)
    fleet.codedeploy.add_tags_to_on_premises_instances(
        tags=[{"Key": "Role", "Value": "scripted"}], instanceNames=["scripted"]
    )
    tagged = fleet.codedeploy.list_on_premises_instances(
        tagFilters=[{"Key": "Role", "Value": "scripted", "Type": "KEY_AND_VALUE"}]
    )
    assert ["scripted"] == tagged["instanceNames"]


@pytest.mark.slow
def test_a_large_real_project_is_deployed_and_imported(
    fleet: Fleet, destination: Path, tmp_path: Path
) -> None:
    """Django's source distribution: thousands of files, checked by a hook that imports it."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--dest",
            str(tmp_path),
            "Django==4.2.16",
        ],
        check=True,
        capture_output=True,
        timeout=100,
    )
    source = next(tmp_path.glob("*jango-*.tar.gz"))
    top = source.name.removesuffix(".tar.gz")
    validate = (
        f"#!/bin/sh\ncd {destination} && exec {sys.executable} -B -c "
        "'import django, django.utils.datastructures; print(\"django\", django.get_version())'\n"
    )
    with tarfile.open(source) as original:
        members = {
            member.name.removeprefix(f"{top}/"): stream.read()
            for member in original.getmembers()
            if member.isfile() and (stream := original.extractfile(member)) is not None
        }
    assert len(members) > 5000
    members["validate.sh"] = validate.encode()
    members["appspec.yml"] = appspec(destination, {"ValidateService": "validate.sh"}, source="/").encode()
    fleet.add_group("django", "group", "web")
    _, status = fleet.deploy("django", "group", fleet.upload("django.tgz", pack("tgz", members), "tgz"))
    assert "Succeeded" == status
    installed = {str(path.relative_to(destination)) for path in destination.rglob("*") if path.is_file()}
    assert set(members) == installed

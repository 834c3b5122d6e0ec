"""From an existing agent to ours, and back."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.packaging.booted.marks import BOOTED
from tests.packaging.booted.root import AGENT
from tests.packaging.booted.site import CONFIGURATION, revision

if TYPE_CHECKING:
    from pathlib import Path

    from tests.packaging.booted.builds import Packages
    from tests.packaging.booted.root import BootedRoot
    from tests.packaging.booted.site import Site

pytestmark = BOOTED
ROOT = "/opt/codedeploy-agent/deployment-root"
INSTRUCTIONS = f"{ROOT}/deployment-instructions"

# What stands in for an existing agent: its names, its places, and scripts that do what theirs do.
_PROGRAM = """\
#!/bin/sh
case $1 in
start) mkdir -p /opt/codedeploy-agent/state/.pid; exec sleep 100000 ;;
esac
"""
_UNIT = """\
[Unit]
Description=AWS CodeDeploy Host Agent
[Service]
ExecStart=/opt/codedeploy-agent/bin/codedeploy-agent start
[Install]
WantedBy=multi-user.target
"""
_CONTROL = """\
Package: codedeploy-agent
Version: 1.8.1-1
Architecture: all
Maintainer: Nobody <nobody@example.invalid>
Description: stands in for an existing agent
"""
_POSTINST = "#!/bin/sh\nsystemctl daemon-reload\nsystemctl enable codedeploy-agent\nsystemctl restart codedeploy-agent\n"
_PRERM = """\
#!/bin/sh
systemctl stop codedeploy-agent
if [ "$1" = remove ]; then systemctl disable codedeploy-agent; rm -rf /opt/codedeploy-agent; fi
"""
_BOTH_STYLES = """\
---
:log_aws_wire: false
:log_dir: '/var/log/aws/codedeploy-agent/'
:pid_dir: '/opt/codedeploy-agent/state/.pid/'
:program_name: codedeploy-agent
:root_dir: '/opt/codedeploy-agent/deployment-root'
:verbose: false
:max_revisions: 5
"""


# Existing agents bring none, so people have written their own.
_LOGROTATE = "/etc/logrotate.d/codedeploy-agent"
_ROTATION = "/var/log/aws/codedeploy-agent/*.log {\n    weekly\n}\n"


@pytest.fixture(params=["conffile", "ordinary file"])
def existing(request: pytest.FixtureRequest, tmp_path: Path, site: Site) -> Path:
    """The package of an existing agent; whether its configuration is a conffile differs from one to the other."""
    tree = tmp_path / "tree"
    contents = {
        "opt/codedeploy-agent/bin/codedeploy-agent": (_PROGRAM, 0o755),
        "lib/systemd/system/codedeploy-agent.service": (_UNIT, 0o644),
        "etc/codedeploy-agent/conf/codedeployagent.yml": (_BOTH_STYLES + "wait_between_runs: 30\n", 0o644),
        "DEBIAN/control": (_CONTROL, 0o644),
        "DEBIAN/postinst": (_POSTINST, 0o755),
        "DEBIAN/prerm": (_PRERM, 0o755),
    }
    if request.param == "conffile":
        contents["DEBIAN/conffiles"] = (f"{CONFIGURATION}/codedeployagent.yml\n", 0o644)
    for name, (text, mode) in contents.items():
        file = tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
    package = tmp_path / "existing_1.8.1.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(package)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return package


def leave_deployment(host: BootedRoot, group_id: str) -> None:
    """What an existing agent leaves after its last deployment of the group: two files below /srv/legacy."""
    directory = f"{ROOT}/{group_id}/d-OLD123456"
    archive = f"{directory}/deployment-archive"
    stop = {"ApplicationStop": "cat /srv/legacy/old.txt >/srv/stopped.txt"}
    old = revision("old", stop, {"old.txt": "old", "sub/both.txt": "old"}, "/srv/legacy")
    for name, text in old.items():
        host.write(f"{archive}/{name}", text, 0o755 if name.endswith(".sh") else 0o644)
    host.write(f"{directory}/bundle.tar", "")
    created = ["/srv/legacy", "/srv/legacy/sub", "/srv/legacy/old.txt", "/srv/legacy/sub/both.txt"]
    for name in ("old.txt", "sub/both.txt"):
        host.write(f"/srv/legacy/{name}", "old")
    host.write("/srv/legacy/uploads/photo", "of a user")
    instructions = [
        {"type": "mkdir", "directory": "/srv/legacy"},
        {"type": "mkdir", "directory": "/srv/legacy/sub"},
        *(
            {"type": "copy", "source": f"{archive}/files/{name}", "destination": f"/srv/legacy/{name}"}
            for name in ("old.txt", "sub/both.txt")
        ),
    ]
    host.write(f"{INSTRUCTIONS}/{group_id}-install.json", json.dumps({"instructions": instructions}))
    host.write(f"{INSTRUCTIONS}/{group_id}-cleanup", "".join(f"{path}\n" for path in created))
    for pointer in ("last_successful_install", "most_recent_install"):
        host.write(f"{INSTRUCTIONS}/{group_id}_{pointer}", directory)


def test_an_existing_agent_is_replaced_and_comes_back(
    site: Site, clean_tree: Path, packages: Packages, existing: Path
) -> None:
    """Its configuration, identity and deployments are taken over, and are there when it returns."""
    host = site.boot(clean_tree)
    host.path(f"{CONFIGURATION}/codedeployagent.yml").unlink()
    host.apt("install", host.put(existing))
    settings = _BOTH_STYLES + site.settings()
    host.write(f"{CONFIGURATION}/codedeployagent.yml", settings)
    host.write(_LOGROTATE, _ROTATION)
    group_id = site.add_group("legacy", host)
    leave_deployment(host, group_id)
    theirs = host.main_pid()

    host.apt("install", host.put(packages.deb))
    host.wait_for_new_agent(theirs)
    host.wait_for_status("polling")
    assert not host.is_running(theirs)
    assert settings == host.path(f"{CONFIGURATION}/codedeployagent.yml").read_text()
    assert _ROTATION == host.path(_LOGROTATE).read_text()
    assert [] == [name for name in os.listdir(host.path("/etc/logrotate.d")) if name.endswith(".dpkg-bak")]
    known = {
        "codedeployagent.yml",
        "codedeployagent-unprivileged.yml",
        "codedeploy.onpremises.yml",
        "signer-ca.pem",
    }
    assert known == {file.name for file in host.path(CONFIGURATION).iterdir()}
    assert host.show("ExecStart").startswith("{ path=/usr/bin/agentctl ")

    new = revision("new", {}, {"new.txt": "new", "sub/both.txt": "new"}, "/srv/legacy")
    assert "Succeeded" == site.deploy(host, "legacy", new)
    assert "old" == host.path("/srv/stopped.txt").read_text()
    found = host.run("find", "/srv/legacy", "-type", "f", "-printf", "%P\\n").split()
    assert ["new.txt", "sub/both.txt", "uploads/photo"] == sorted(found)
    assert "new" == host.path("/srv/legacy/sub/both.txt").read_text()

    ours = host.main_pid()
    keep = ("-o", "Dpkg::Options::=--force-confold")
    host.apt(*keep, "install", "--allow-downgrades", f"/root/{existing.name}")
    host.wait_for_new_agent(ours)
    assert not host.is_running(ours)
    assert not host.path("/usr/lib/codedeploy-agent").exists()
    assert host.show("ExecStart").startswith("{ path=/opt/codedeploy-agent/bin/codedeploy-agent ")
    assert "enabled" == host.run("systemctl", "is-enabled", AGENT)
    if existing.with_name("tree").joinpath("DEBIAN/conffiles").exists():
        assert settings == host.path(f"{CONFIGURATION}/codedeployagent.yml").read_text()
    assert host.path(f"{CONFIGURATION}/codedeploy.onpremises.yml").exists()
    cleanup = host.path(f"{INSTRUCTIONS}/{group_id}-cleanup").read_text().splitlines()
    assert {"/srv/legacy/new.txt", "/srv/legacy/sub/both.txt"} <= set(cleanup)


def test_a_failed_return_to_an_existing_agent_leaves_ours_running(
    installed_host: BootedRoot, tmp_path: Path
) -> None:
    """Their package may want something that is missing here; a host that had an agent has one."""
    host = installed_host
    ours = host.main_pid()
    tree = tmp_path / "failing"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(_CONTROL)
    (tree / "DEBIAN/preinst").write_text("#!/bin/sh\nexit 1\n")
    (tree / "DEBIAN/preinst").chmod(0o755)
    package = tmp_path / "failing_1.8.1.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(package)], check=True, stdout=subprocess.DEVNULL)
    answer = host.try_to("dpkg", "--force-confold", "--install", host.put(package))
    assert "pre-installation script" in answer.stderr
    host.wait_for_new_agent(ours)
    assert "enabled" == host.run("systemctl", "is-enabled", AGENT)
    assert not host.path("/run/codedeploy-agent.stopped").exists()

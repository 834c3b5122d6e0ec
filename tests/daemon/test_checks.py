"""A host that lacks what a deployment needs refuses it before anything has been changed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from agent.protocol import IN_PLACE_ORDER
from tests.daemon.control_server import ACKNOWLEDGE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.daemon.conftest import MakeAgent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application

pytestmark = pytest.mark.server


def has_inodes(path: Path) -> bool:
    return os.statvfs(path).f_files > 0


@pytest.mark.parametrize(
    ("settings", "error_id", "says"),
    [
        ({"min_free_bytes": "900TB"}, "host-disk-full", ("MiB are free below", "min_free_bytes")),
        ({"min_free_inodes": 10**15}, "host-out-of-inodes", ("df -i", "min_free_inodes")),
        ({"min_free_memory": "900TB"}, "host-out-of-memory", ("of memory", "min_free_memory")),
        ({"pre_accept_command": "/bin/false"}, "host-not-ready", ("/bin/false", "it exited with 1")),
        (
            {"pre_accept_command": "/no/such"},
            "host-not-ready",
            ("it can't be started: No such file or directory (/no/such).",),
        ),
        (
            {"pre_accept_command": "sh -c 'kill -KILL $$'"},
            "host-not-ready",
            ("it was ended by signal 9 (SIGKILL)",),
        ),
    ],
)
def test_a_host_that_lacks_something_refuses_the_download_with_the_reason(
    server: ControlServer,
    make_agent: MakeAgent,
    application: Application,
    tmp_path: Path,
    *,
    settings: dict[str, object],
    error_id: str,
    says: tuple[str, ...],
) -> None:
    """Half a deployment on a full disk is worse than none."""
    if error_id == "host-out-of-inodes" and not has_inodes(tmp_path):
        pytest.skip("this file system has no fixed number of inodes")
    agent = make_agent(settings).start()
    completion = server.run("DownloadBundle", application.revise())
    assert ("Failed", 5) == (completion.status, completion.code)
    for text in (*says, "Nothing has been changed."):
        assert text in completion.message
    assert completion.message.endswith(f"[{error_id}]")
    agent.wait_until_idle()
    assert [] == server.of(ACKNOWLEDGE)
    assert not (agent.root / application.group_id).exists()


def test_what_the_command_of_the_administrator_prints_is_in_the_report(
    server: ControlServer, make_agent: MakeAgent, application: Application, tmp_path: Path
) -> None:
    """Only it knows why this is not the moment."""
    script = tmp_path / "may I.sh"
    script.write_text('#!/bin/sh\necho "busy with $1 before $LIFECYCLE_EVENT of $DEPLOYMENT_ID"; exit 3\n')
    script.chmod(0o755)
    make_agent({"pre_accept_command": json.dumps(f"'{script}' 'a backup'")}).start()
    deployment = application.revise()
    completion = server.run("DownloadBundle", deployment)
    assert "it exited with 3" in completion.message
    assert f"busy with a backup before DownloadBundle of {deployment.deployment_id}" in completion.log


def test_events_after_install_are_not_refused_and_those_before_are(
    server: ControlServer, make_agent: MakeAgent, application: Application
) -> None:
    """Stopping an application on a host that can't take the next one would be an outage; so would not starting it."""
    agent = make_agent().start()
    later = IN_PLACE_ORDER[IN_PLACE_ORDER.index("AfterInstall") :]
    deployment = application.revise("one", ["ApplicationStop", "BeforeInstall", *later])
    server.carry(deployment, "DownloadBundle", "BeforeInstall", "Install")
    agent.end()
    agent.configure(pre_accept_command="/bin/false")
    agent.start()
    server.carry(deployment, *later)
    for name in ("ApplicationStop", "BeforeInstall", "Install", "DownloadBundle"):
        assert server.run(name, deployment).message.endswith("[host-not-ready]"), name


def test_a_command_without_anything_to_do_needs_nothing(
    server: ControlServer, make_agent: MakeAgent, application: Application
) -> None:
    """It can't be left half done."""
    make_agent({"pre_accept_command": "/bin/false", "min_free_bytes": "900TB"}).start()
    server.carry(application.revise(), "ApplicationStop", "BeforeBlockTraffic")

"""A worker that runs out of file descriptors: a script starts, or fails with the reason."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest

from tests.e2e.bundles import pack
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application, Bucket

pytestmark = pytest.mark.server

EVENTS = ("BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService")


def limit_open_files(worker: int, spare: int) -> None:
    """From now on the worker can open so many more files."""
    taken = [int(name) for name in os.listdir(f"/proc/{worker}/fd")]
    _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (max(taken) + 1 + spare, hard))


@pytest.mark.parametrize("few", [0, 4])
def test_a_worker_without_file_descriptors_blames_the_host_and_not_itself(
    server: ControlServer,
    agent: Agent,
    application: Application,
    bucket: Bucket,
    tmp_path: Path,
    *,
    few: int,
) -> None:
    """`internal error` would send people to us instead of to the limits of their host."""
    wait = f"#!/bin/sh\ntouch {tmp_path}/$LIFECYCLE_EVENT; while [ ! -e {tmp_path}/go-$LIFECYCLE_EVENT ]; do sleep 0.01; done\n"
    hooks = "".join(f"  {event}:\n    - location: wait.sh\n    - location: next.sh\n" for event in EVENTS)
    appspec = f"version: 0.0\nos: linux\nhooks:\n{hooks}"
    files = {"appspec.yml": appspec, "wait.sh": wait, "next.sh": "#!/bin/sh\n"}
    deployment = application.deploy(bucket.put(pack("tar", files)))
    server.carry(deployment, "DownloadBundle")
    agent.wait_until_idle()
    for spare, event in enumerate(EVENTS, start=few):
        identifier = server.send(event, deployment)
        wait_until((tmp_path / event).exists, "the first script runs")
        (worker,) = agent.workers()
        limit_open_files(worker, spare)
        (tmp_path / f"go-{event}").touch()
        completion = server.completion(identifier)
        assert "Succeeded" == completion.status or "[hook-not-startable]" in completion.message, (
            spare,
            completion,
        )
        agent.wait_until_idle()

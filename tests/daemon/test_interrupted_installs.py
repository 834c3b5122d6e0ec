"""Installs that nobody finishes: whoever had begun them, the agent puts the host in order when it starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import TYPE_CHECKING

import pytest

from agent.appspec import parse_appspec
from agent.install import InstallRequest, install
from agent.install.model.moments import Moment
from tests.daemon.agent_process import Agent
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.daemon.control_server import ControlServer

pytestmark = pytest.mark.server


def test_an_install_of_which_there_is_no_record_is_undone_when_the_agent_starts(
    server: ControlServer, tmp_path: Path
) -> None:
    """`agentctl deploy` was killed: no command of the service will ever come back to it."""
    agent = Agent(tmp_path / "agent", {"deploy_control_endpoint": server.url})
    instructions, app = agent.root / "deployment-instructions", tmp_path / "app"
    instructions.mkdir(parents=True)
    for revision in ("old", "new"):
        (tmp_path / revision).mkdir()
        (tmp_path / revision / "page").write_text(revision)

    def install_revision(revision: str, *, dies_at: Moment | None = None) -> None:
        appspec = f"version: 0.0\nos: linux\nfiles: [{{source: /, destination: {app}}}]\n"

        def observe(kind: Moment, _path: bytes) -> None:
            if kind == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

        request = InstallRequest(
            appspec=parse_appspec(appspec.encode(), path="appspec.yml"),
            archive=tmp_path / revision,
            instructions_directory=instructions,
            group_id="by-hand",
            deployment_id=f"d-{revision}",
        )
        install(request, observer=observe)

    install_revision("old")
    process = multiprocessing.get_context("fork").Process(
        target=install_revision, args=("new",), kwargs={"dies_at": Moment.COMMIT}
    )
    process.start()
    process.join()
    assert -signal.SIGKILL == process.exitcode
    assert "new" == (app / "page").read_text()

    agent.start()
    try:
        wait_until(lambda: not list(instructions.glob("*journal*")), "the Install is undone")
    finally:
        agent.clear_away()
    assert "old" == (app / "page").read_text()
    assert ["page"] == os.listdir(app)

"""`agentctl status` makes neither more nor less of what lies on disk than there is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.cli.liveness import Life, examine
from agent.deployments import DaemonStatus
from agent.deployments.status import HEARTBEAT_S
from agent.processes import boot_id, start_ticks
from tests.daemon.control_server import POLL
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application, Gate

pytestmark = pytest.mark.server


def told(agent: Agent) -> dict[str, Any]:
    """What `agentctl status --json` says."""
    document: dict[str, Any] = json.loads(agent.agentctl("status", "--json").stdout)
    return document


def stop_process(agent: Agent) -> None:
    """The daemon does nothing from now on."""
    agent.signal(signal.SIGSTOP)
    stat = Path(f"/proc/{agent.pid}/stat")
    wait_until(lambda: " T " in stat.read_text(), "it is stopped")


# -- deployments -----------------------------------------------------------------------------------


def test_a_deployment_is_in_progress_until_its_last_event_has_succeeded(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Whoever sees `Succeeded` goes home, and the application has not been started yet."""
    agent.start()
    deployment = application.revise("one", ["ApplicationStart"])
    server.carry(deployment, "ApplicationStop", "DownloadBundle", "Install")
    agent.wait_until_idle()
    (half,) = told(agent)["deployments"]
    text = agent.agentctl("status").stdout
    server.carry(deployment, "AfterInstall", "ApplicationStart", "ValidateService")
    agent.wait_until_idle()
    (whole,) = told(agent)["deployments"]
    assert ("InProgress", "AfterInstall") == (half["status"], half["next_event"])
    assert "AfterInstall has not come yet, nothing for " in text
    assert ("Succeeded", None, "IN_PLACE") == (whole["status"], whole["next_event"], "IN_PLACE")


def test_a_command_that_waits_for_its_turn_says_for_which_one(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> None:
    """`specification, for ten minutes` sends people to the control endpoint, which has answered long ago."""
    agent.start()
    first = application.revise("one", ["BeforeInstall"], script=gate.script)
    second = application.revise("two", ["BeforeInstall"])
    server.carry(first, "DownloadBundle")
    server.carry(second, "DownloadBundle")
    commands = [server.send("BeforeInstall", first)]
    wait_until(lambda: gate.is_reached, "the script runs")
    commands.append(server.send("BeforeInstall", second))
    waits = f"waits for BeforeInstall of {first.deployment_id}, worker "
    wait_until(lambda: waits in agent.agentctl("status").stdout, "it says what it waits for")
    shown = agent.agentctl("status").stdout
    gate.open()
    for command in commands:
        server.completion(command)
    assert 1 == shown.count("waits for BeforeInstall")
    assert " (run, worker " in shown


def test_an_event_that_failed_and_was_ignored_is_said_beside_the_outcome(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The service goes on after a failed ApplicationStop when the deployment says so, and tells no host."""
    agent.start()
    first = application.revise("one", ["ApplicationStop"], script="exit 3")
    server.carry(first, "DownloadBundle", "Install", "ValidateService")
    second = application.revise("two")
    assert "Failed" == server.run("ApplicationStop", second).status
    agent.wait_until_idle()
    before = told(agent)["deployments"][0]
    server.carry(second, "DownloadBundle", "Install", "ValidateService")
    agent.wait_until_idle()
    after = told(agent)["deployments"][0]
    assert ("Failed", []) == (before["status"], before["failed_and_ignored"])
    assert ("Succeeded", ["ApplicationStop"]) == (after["status"], after["failed_and_ignored"])
    assert "FailedAndIgnored" == after["events"][0]["status"]
    assert "    ApplicationStop failed and was ignored: " in agent.agentctl("status").stdout


def test_a_command_with_a_specification_that_nobody_trusts_is_a_failed_deployment(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """It came to nothing before its deployment was known, and that is what somebody has to see."""
    agent.start()
    deployment = application.revise("one")
    envelope = {"GenericEnvelope": {"Format": "PKCS7/JSON", "Payload": "signed by nobody"}}
    server.specify(
        deployment.execution_id, {"DeploymentSystem": "CodeDeploy", "DeploymentSpecification": envelope}
    )
    assert "Failed" == server.run("ApplicationStop", deployment).status
    agent.wait_until_idle()
    (shown,) = told(agent)["deployments"]
    assert (deployment.execution_id, "Failed", "ApplicationStop") == (
        shown["deployment_id"],
        shown["status"],
        shown["last_event"],
    )
    assert shown["error_id"].startswith("specification-")
    assert f"[{shown['error_id']}]" in agent.agentctl("status").stdout


@pytest.mark.parametrize("is_history_writable", [True, False])
def test_a_command_of_which_there_can_be_no_record_is_shown_as_refused(
    server: ControlServer, agent: Agent, application: Application, *, is_history_writable: bool
) -> None:
    """The disk is full: no record, perhaps no history either, and the deployment failed all the same."""
    agent.start()
    server.wait_for_requests(POLL)
    deployment = application.revise("one")
    with contextlib.suppress(FileNotFoundError):
        (agent.state / "jobs").rmdir()
    (agent.state / "jobs").touch()
    if not is_history_writable:
        (agent.state / "history.jsonl").mkdir()
    assert "Failed" == server.run("ApplicationStop", deployment).status
    (agent.state / "jobs").unlink()
    if not is_history_writable:
        wait_until(lambda: agent.status().get("refused"), "the daemon says so in its status")
        (agent.state / "history.jsonl").rmdir()
    (shown,) = told(agent)["deployments"]
    assert ("Failed", "record-impossible") == (shown["status"], shown["error_id"])
    assert str(agent.state / "jobs") in shown["message"]
    assert "deploy again" in shown["message"]


def test_a_refused_command_becomes_history_when_there_is_room_again(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The status file has room for one."""
    agent.start()
    server.wait_for_requests(POLL)
    with contextlib.suppress(FileNotFoundError):
        (agent.state / "jobs").rmdir()
    (agent.state / "jobs").touch()
    (agent.state / "history.jsonl").mkdir()
    assert "Failed" == server.run("ApplicationStop", application.revise("one")).status
    (agent.state / "history.jsonl").rmdir()
    wait_until(agent.history, "the daemon tries again")
    assert ["record-impossible"] == [entry["result"]["error_id"] for entry in agent.history()]
    wait_until(lambda: agent.status()["refused"] == {}, "and no longer says so in its status")


def test_a_history_that_cannot_be_read_is_not_an_empty_one(agent: Agent) -> None:
    """`none` would be read as: nothing was ever deployed here."""
    agent.start()
    (agent.state / "history.jsonl").mkdir()
    shown = agent.agentctl("status")
    assert 0 == shown.returncode
    assert "Last deployments:\n  not known" in shown.stdout
    assert f"{agent.state / 'history.jsonl'} can't be read: Is a directory" in shown.stdout
    assert told(agent)["deployments"] is None


def test_a_record_that_cannot_be_read_is_a_problem_and_no_silence(agent: Agent) -> None:
    """The rest is told all the same."""
    agent.start()
    record = agent.state / "jobs" / "00000001-abc" / "record.jsonl"
    record.parent.mkdir(parents=True)
    record.symlink_to(record)
    shown = agent.agentctl("status")
    idle = agent.agentctl("wait-idle", "--timeout", "0")
    stopped = agent.agentctl("stop")
    assert (0, 4, 0) == (shown.returncode, idle.returncode, stopped.returncode)
    assert f"The agent has stopped; what still runs is not known: {record}" in stopped.stdout
    assert f"{record} can't be read: Too many levels of symbolic links" in shown.stdout
    assert f"agentctl: {record}: Too many levels of symbolic links" in idle.stderr


def test_a_disk_that_fails_while_a_file_is_read_is_said_with_the_file(agent: Agent) -> None:
    """Python names no file where opening it worked and reading it did not."""
    agent.start()
    agent.end()
    history = agent.state / "history.jsonl"
    history.unlink(missing_ok=True)
    history.symlink_to("/proc/self/mem")  # reading its beginning is an input/output error
    shown = agent.agentctl("status")
    assert f"  problem     {history} can't be read: Input/output error\n" in shown.stdout
    assert "Last deployments:\n  not known" in shown.stdout


def test_damaged_lines_of_the_history_are_said(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """One of them may have been the failure."""
    agent.start()
    server.carry(application.revise("one"), "ApplicationStop")
    agent.wait_until_idle()
    with (agent.state / "history.jsonl").open("ab") as file:
        file.write(b'{"host_command_identifier": "cut off by a power fail\n\0\0\0\0\n')
    shown = agent.agentctl("status")
    said = "history.jsonl: 2 lines are damaged, so what came of as many commands is not known"
    assert 0 == shown.returncode
    assert said in shown.stdout
    assert said in told(agent)["problem"]
    assert "ApplicationStop" in shown.stdout


def test_who_asks_for_no_deployments_is_not_told_that_there_are_none(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Scripts that want to know about the agent only leave them out."""
    agent.start()
    server.carry(application.revise("one"), "ApplicationStop")
    agent.wait_until_idle()
    assert "Last deployments" not in agent.agentctl("status", "--last", "0").stdout


def test_a_local_deployment_that_was_killed_is_not_in_progress_for_ever(agent: Agent) -> None:
    """Nobody reports for it, and nobody carries it on."""
    facts = {
        "deployment_id": "d-1-local",
        "deployment_group_id": "g",
        "deployment_group_name": "LocalFleet",
        "application_name": "shop",
        "planned_events": ["DownloadBundle", "Install"],
    }
    entry = {
        "host_command_identifier": "local/d-1-local/DownloadBundle",
        "command_name": "DownloadBundle",
        "accepted_at": 1.0,
        "finished_at": 2.0,
        "result": {"status": "Succeeded", "error_code": 0, "message": "", "payload": "{}"},
        "deployment": facts,
    }
    agent.state.mkdir()
    (agent.root / "g").mkdir(parents=True)
    (agent.state / "history.jsonl").write_text(json.dumps(entry) + "\n")
    (shown,) = told(agent)["deployments"]
    assert ("Failed", "deployment-interrupted") == (shown["status"], shown["error_id"])
    assert "has ended before Install" in shown["message"]


# -- the daemon ------------------------------------------------------------------------------------


@pytest.fixture
def frozen(agent: Agent) -> Iterator[Agent]:
    """An agent whose process is stopped, as by SIGSTOP."""
    agent.start()
    stop_process(agent)
    yield agent
    agent.signal(signal.SIGCONT)


def test_a_frozen_agent_is_not_polling(frozen: Agent) -> None:
    """Its last word was `polling`, and it takes no commands."""
    shown = frozen.agentctl("status")
    document = told(frozen)
    assert 1 == shown.returncode
    assert shown.stdout.startswith(
        f"The agent does not work: its process, pid {frozen.pid}, is stopped by a signal, its last sign of life is "
    )
    assert f"kill -CONT {frozen.pid}" in shown.stdout
    assert (False, "frozen", "stopped") == (
        document["running"],
        document["state"],
        document["daemon"]["life"],
    )
    assert document["daemon"]["heartbeat_age_s"] < 60


def test_stop_and_drain_say_that_a_frozen_agent_cannot_obey(frozen: Agent) -> None:
    """They would wait for ever without a word."""
    stop = frozen.agentctl("stop")
    drain = frozen.agentctl("drain")
    undo = frozen.agentctl("drain", "--undo")
    assert (1, 4, 4) == (stop.returncode, drain.returncode, undo.returncode)
    for done in (stop, drain, undo):
        assert f"kill -CONT {frozen.pid}" in done.stderr
        assert "" == done.stdout


def a_status(process: subprocess.Popen[bytes], **changes: Any) -> DaemonStatus:
    facts: dict[str, Any] = {
        "pid": process.pid,
        "version": "1",
        "state": "polling",
        "started_at": 1.0,
        "host_identifier": "h",
        "endpoint": "e",
        "start_ticks": start_ticks(process.pid),
        "boot_id": boot_id(),
        "heartbeat_s": HEARTBEAT_S,
    }
    return DaemonStatus(**{**facts, **changes})


@contextlib.contextmanager
def a_process(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process, once it has said that it has begun."""
    process = subprocess.Popen([sys.executable, "-c", f"print(flush=True)\n{code}"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


ASLEEP, AWAKE = "import time; time.sleep(600)", "import time\nwhile True: time.sleep(0.05)"


@pytest.mark.parametrize(
    ("code", "age_s", "expected"),
    [
        (ASLEEP, 5, (Life.WORKING, False)),
        (ASLEEP, 600, (Life.HUNG, False)),
        (AWAKE, 600, (Life.WORKING, True)),
    ],
    ids=["a young heartbeat", "an old heartbeat", "an old heartbeat of one that wakes up"],
)
def test_a_daemon_without_a_heartbeat_hangs_unless_it_still_wakes_up(
    code: str, age_s: float, expected: tuple[Life, bool]
) -> None:
    """A disk that has become read-only keeps the heartbeat from the file, but not the daemon from its work."""
    with a_process(code) as process:
        vitality = examine(a_status(process), time.time() - age_s)
    assert expected == (vitality.life, vitality.is_silent)


def test_a_daemon_of_an_earlier_boot_or_that_nobody_has_reaped_is_gone() -> None:
    """Early after a boot, pids and start times come again; a zombie has a pid and a start time."""
    with a_process(ASLEEP) as process:
        of_another_boot = examine(a_status(process, boot_id="another"), time.time())
        status = a_status(process)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        zombie = examine(status, time.time())
    assert [Life.GONE, Life.GONE] == [of_another_boot.life, zombie.life]


def test_a_daemon_of_a_version_without_heartbeat_is_running(agent: Agent) -> None:
    """An upgrade: agentctl is the new one, the daemon not yet restarted."""
    agent.start()
    status = agent.status()
    stop_process(agent)
    old = {name: status[name] for name in ("pid", "version", "state", "started_at", "host_identifier")}
    (agent.state / "status.json").write_text(
        json.dumps({**old, "endpoint": "e", "start_ticks": status["start_ticks"]})
    )
    os.utime(agent.state / "status.json", (1.0, 1.0))
    assert "frozen" == told(agent)["state"]
    agent.signal(signal.SIGCONT)
    agent.signal(signal.SIGKILL)
    agent.wait()
    assert "not_running" == told(agent)["state"]


# -- waiting and refusing to start -----------------------------------------------------------------


def test_an_agent_that_waits_for_its_name_says_why_since_when_and_until_when(agent: Agent) -> None:
    """`starting` alone sends nobody to the metadata service."""
    agent.identity_file.unlink()
    agent.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "http://127.0.0.1:1"
    agent.launch()
    wait_until(lambda: agent.status().get("waits_for"), "it has tried")
    document = told(agent)
    shown = agent.agentctl("status").stdout
    assert ("running", "starting") == (document["state"], document["daemon"]["state"])
    assert "http://127.0.0.1:1" in document["waiting"]["for"]
    assert "identity-unavailable" == document["waiting"]["error_id"]
    assert " [identity-unavailable]\n" in shown
    assert document["waiting"]["since"] <= document["waiting"]["next_try_at"]
    assert "  waits for   " in shown
    assert "next try in " in shown
    assert 0 == agent.agentctl("stop").returncode


def test_an_agent_that_waits_for_its_boot_condition_names_it(agent: Agent) -> None:
    """The file that cloud-init was to write, and never will."""
    condition = agent.directory / "ready"
    agent.configure(start_when_file=condition)
    agent.launch()
    wait_until(lambda: agent.status().get("waits_for"), "it has looked")
    assert f"start_when_file {condition} does not exist" == told(agent)["waiting"]["for"]
    condition.touch()
    wait_until(lambda: agent.status()["state"] == "polling", "it goes on")
    assert told(agent)["waiting"] is None


def test_a_start_that_was_refused_is_told_with_its_reason_and_id(agent: Agent) -> None:
    """The service manager has given up, and the reason has scrolled out of the journal."""
    agent.identity_file.write_text("region: us-east-1\n")
    assert 2 == agent.launch().wait()
    shown = agent.agentctl("status")
    document = told(agent)
    agent.identity_file.unlink()
    assert 3 == shown.returncode
    assert "The agent is not running; it refused to start, " in shown.stdout
    assert "iam_user_arn" in shown.stdout
    assert "[configuration-invalid]" in shown.stdout
    assert "configuration-invalid" == document["refused_start"]["error_id"]


def test_a_start_that_was_refused_for_its_settings_is_told_although_status_needs_them_too(
    agent: Agent,
) -> None:
    """The settings that can be read lead to where the reason lies."""
    agent.configure(max_revisions="many")
    assert 2 == agent.launch().wait()
    shown = agent.agentctl("status")
    assert 3 == shown.returncode
    assert "it refused to start, " in shown.stdout
    assert "max_revisions" in shown.stdout


def test_a_second_agent_that_was_refused_is_told_beside_the_first(agent: Agent) -> None:
    """It explains why `systemctl start` failed on a host on which an agent runs."""
    agent.start()
    second = agent.agentctl("run")
    shown = agent.agentctl("status")
    assert (1, 0) == (second.returncode, shown.returncode)
    assert f"The agent is running (pid {agent.pid}, polling)" in shown.stdout
    assert "[agent-already-runs]" in shown.stdout
    agent.end()
    agent.start()
    assert "agent-already-runs" not in agent.agentctl("status").stdout


def test_a_reason_for_a_refused_start_that_was_damaged_is_not_taken_for_none(agent: Agent) -> None:
    """The power failed right after it: `it was stopped` would be the story of the start before."""
    agent.start()
    agent.end()
    (agent.state / "refused-start.json").write_bytes(b"\0" * 20)
    shown = agent.agentctl("status")
    assert 3 == shown.returncode
    assert "refused-start.json can't be read: what is in it is damaged" in shown.stdout


def test_a_running_agent_is_seen_although_its_configuration_has_become_unusable(agent: Agent) -> None:
    """Its next start will fail, and that is worth saying; but it is not dead."""
    agent.start()
    agent.configure(max_revisions="many")
    shown = agent.agentctl("status")
    assert 0 == shown.returncode
    assert "The agent is running" in shown.stdout
    assert "max_revisions" in shown.stderr


def test_without_its_status_file_a_living_agent_is_not_taken_for_one_that_never_ran(agent: Agent) -> None:
    """Somebody has tidied up; the lock on the directory is still held."""
    agent.start()
    stop_process(agent)
    (agent.state / "status.json").unlink()
    shown = agent.agentctl("status")
    agent.signal(signal.SIGCONT)
    assert 4 == shown.returncode
    assert f"An agent, pid {agent.pid}, holds the lock on its directory" in shown.stdout

"""The control endpoint is down, slow, overloaded, or something else answers in its place."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import pytest

from agent.daemon.daemon import Connected, Daemon
from agent.daemon.notification import ServiceNotifier
from agent.daemon.wakeups import Wakeups
from agent.daemon.worker_pool import WorkerPool
from agent.daemon.workers import Repairs, Workers
from agent.errors import EndpointUnavailable
from agent.logs import Log, LogSink
from agent.settings import Settings
from tests.daemon.control_server import (
    ACKNOWLEDGE,
    COMPLETE,
    POLL,
    SERVER_ERROR,
    SPECIFICATION,
    THROTTLED,
    Deployment,
    Fault,
    error,
)
from tests.endpoint.scripted_server import fill_backlog
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.endpoint import HostCommandClient
    from tests.daemon.agent_process import Agent
    from tests.daemon.conftest import MakeAgent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application, Gate

pytestmark = pytest.mark.server

HTML = Fault(body=b"<html>Sign in to the guest network</html>", headers={"Content-Type": "text/html"})
TROUBLE = {
    "error 500": (SERVER_ERROR, "500 ServerException: try again"),
    "error 503 without a body": (Fault(status=503), "503 without a type"),
    "a page of a portal": (
        HTML,
        "no JSON but text/html, and begins with '<html>Sign in to the guest network</html>'. Check that no portal",
    ),
    "an answer cut off": (Fault(body=b'{"HostCommand": {"HostCom'), "the answer is no JSON"),
    "not UTF-8": (Fault(body=b'{"HostCommand": "\xff\xfe"}'), "the answer is no JSON"),
    "nested without end": (Fault(body=b"[" * 200_000), "the answer is no JSON"),
    "a list": (Fault(body=b"[]"), "the answer is no object"),
    "a command that is a number": (Fault(body=b'{"HostCommand": 7}'), "HostCommand is not an object"),
    "a command without identifier": (Fault(body=b'{"HostCommand": {}}'), "no HostCommandIdentifier"),
    "another protocol": (Fault(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), "the answer is not HTTP"),
    "an endless header": (Fault(raw=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), "the answer is not HTTP"),
    "closed without a word": (Fault(raw=b""), "closed the connection without an answer"),
    "reset": (Fault(is_reset=True), "the connection broke"),
    "no answer in time": (Fault(is_silent=True), "no answer came in time"),
    "refused for good": (error(400, "InvalidSignatureException"), "Check the secret key (the keys in "),
    "a redirect": (Fault(status=302, headers={"Location": "http://127.0.0.1:1/"}), "302"),
}

# What the service itself has said no to is not asked again at once.
FINAL = (TROUBLE["refused for good"][0],)
NOTHING = Deployment(deployment_id="d-1", group_id="g", revision={})


def failed_status(agent: Agent) -> dict[str, Any]:
    """What the status file says once a poll has failed."""

    def found() -> dict[str, Any] | None:
        assert agent.process is not None
        assert agent.process.poll() is None, agent.output()
        status = agent.status()
        return status if status.get("failures") else None

    status: dict[str, Any] = wait_until(found, "a poll has failed")
    return status


@pytest.mark.parametrize("name", TROUBLE)
def test_after_a_bad_answer_the_agent_waits_and_says_why(
    server: ControlServer, make_agent: MakeAgent, name: str
) -> None:
    """A fleet that asks again at once would keep a service down that is just getting up."""
    fault, reason = TROUBLE[name]
    server.break_down(POLL, fault)
    agent = make_agent({"http_read_timeout": 1}).launch()
    status = failed_status(agent)
    assert 1 == status["failures"]
    assert reason in status["last_poll_result"]
    assert server.url in status["last_poll_result"]
    assert (
        f"{status['last_poll_result']} [{status['last_error_id']}] Next try"
        in agent.agentctl("status").stdout
    )
    polls = server.of(POLL)
    assert (1 if fault in FINAL else 4) == len(polls)
    # 10 s after the first attempt: what the repetitions took counts as waiting.
    began_at = polls[0].at + time.time() - time.monotonic()
    assert 10 == pytest.approx(status["next_poll_at"] - began_at, abs=0.6)
    (line,) = agent.logged("poll_failed")
    assert reason in line.replace('\\"', '"')
    assert " error_id=endpoint-" in line
    assert 0 == agent.end()


def test_a_poll_that_broke_is_made_again_at_once(
    server: ControlServer, make_agent: MakeAgent, application: Application
) -> None:
    """Two broken connections must not keep a command waiting for ten seconds, nor alarm anybody."""
    server.trouble(POLL, Fault(is_reset=True), SERVER_ERROR, HTML)
    agent = make_agent().launch()
    identifier = server.send("DownloadBundle", application.revise())
    assert "Succeeded" == server.completion(identifier).status
    polls = server.of(POLL)
    assert polls[3].at - polls[0].at < 2.5
    assert [] == agent.logged("poll_failed") + agent.logged("poll_recovered")
    assert 0 == agent.status()["failures"]


def test_different_faults_in_a_row_cost_seconds(
    server: ControlServer, make_agent: MakeAgent, application: Application
) -> None:
    """What throttles has answered: its pause is neither a failure of the curve, nor is a fault after it the second."""
    server.trouble(POLL, SERVER_ERROR, Fault(is_reset=True), THROTTLED, Fault(status=302))
    make_agent().launch()
    identifier = server.send("DownloadBundle", application.revise())
    assert "Succeeded" == server.completion(identifier).status
    polls = server.of(POLL)
    assert polls[4].at - polls[0].at < 5


def test_sigterm_between_two_repetitions_ends_the_agent(server: ControlServer, make_agent: MakeAgent) -> None:
    """A restart must not wait for an endpoint that is down."""
    server.break_down(POLL, Fault(is_reset=True))
    agent = make_agent().launch()
    server.wait_for_requests(POLL, 3)
    began = time.monotonic()
    assert 0 == agent.end()
    assert time.monotonic() - began < 1


def test_a_drain_between_two_repetitions_is_obeyed(server: ControlServer, make_agent: MakeAgent) -> None:
    """`agentctl drain` promises that no command is taken from then on."""
    server.break_down(POLL, SERVER_ERROR)
    agent = make_agent().launch()
    server.wait_for_requests(POLL, 2)
    drained = agent.agentctl("drain")
    assert 0 == drained.returncode, drained.stderr
    wait_until(lambda: agent.status()["state"] == "draining", "it drains")
    polls = len(server.of(POLL))
    server.heal()
    server.send("DownloadBundle", NOTHING)
    time.sleep(1.5)
    assert polls == len(server.of(POLL))


def test_after_a_refused_connection_the_agent_waits_and_agentctl_says_why(
    server: ControlServer, make_agent: MakeAgent
) -> None:
    """The endpoint's machine is up, the endpoint is not."""
    server.stop()
    agent = make_agent().launch()
    failed_status(agent)
    shown = agent.agentctl("status")
    assert 0 == shown.returncode
    assert "FAILED (1 in a row, last success never)" in shown.stdout
    assert "nothing listens there" in shown.stdout
    assert "Next try in " in shown.stdout


def test_throttling_doubles_the_wait_and_two_log_lines_tell_of_it(
    server: ControlServer, make_agent: MakeAgent
) -> None:
    """A line per attempt buries what matters; the figures are in the status file."""
    server.trouble(
        POLL,
        *(error(400, "ThrottlingException", "Rate exceeded", x_amzn_RequestId=f"req-{n}") for n in (1, 2)),
    )
    agent = make_agent().launch()
    polls = server.wait_for_requests(POLL, 3)
    waits = [later.at - earlier.at for earlier, later in pairwise(polls)]
    assert 0.75 <= waits[0] <= 1.4
    assert 1.5 <= waits[1] <= 2.4
    server.send("Unknown", NOTHING)
    wait_until(lambda: agent.logged("poll_recovered"), "the daemon has noticed")
    assert (1, 1) == (len(agent.logged("poll_failed")), len(agent.logged("poll_recovered")))
    assert 0 == agent.status()["failures"]


def test_polls_go_on_after_a_failure_and_what_waited_is_carried_out(
    server: ControlServer, make_agent: MakeAgent, application: Application
) -> None:
    """Nothing is lost while the endpoint is away. Throttled, because that is the failure with the shortest wait."""
    deployment = application.revise()
    server.trouble(POLL, THROTTLED)
    agent = make_agent().launch()
    failed_status(agent)
    server.stop()
    server.start()
    identifier = server.send("DownloadBundle", deployment)
    assert "Succeeded" == server.completion(identifier).status
    first, second = server.of(POLL)[:2]
    assert 0.7 <= second.at - first.at <= 3


def test_an_endpoint_that_swallows_everything_keeps_the_agent_from_nothing(make_agent: MakeAgent) -> None:
    """A firewall drops its packets: drain and stop are still obeyed at once, not when the connection is given up."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as waiting:
        port = listener.getsockname()[1]
        fill_backlog(port, waiting)
        agent = make_agent({"deploy_control_endpoint": f"http://127.0.0.1:{port}"}).start()
        wait_until(lambda: is_connecting(port), "it tries to connect")
        began = time.monotonic()
        agent.agentctl("drain")
        wait_until(lambda: agent.status()["state"] == "draining", "it drains")
        assert time.monotonic() - began < 5
        began = time.monotonic()
        assert 0 == agent.end()
        assert time.monotonic() - began < 1


def is_connecting(port: int) -> bool:
    """Whether somebody waits for a connection to this port: state 02 is SYN_SENT."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(line.split()[2:4] == [f"0100007F:{port:04X}", "02"] for line in table)


class Clock(Wakeups):
    """Time passes only while the daemon sleeps, and then at once; `slept_s` is how long each time."""

    def __init__(self, tick: Callable[[], None]) -> None:
        super().__init__(tick, tick_interval_s=0.01)
        self.slept_s: list[float] = []

    def sleep_until(self, moment: float, unless: Callable[[], bool]) -> None:
        if (seconds := moment - time.monotonic()) > 0:
            self.slept_s.append(seconds)
        super().sleep_until(time.monotonic(), unless)


def test_polls_that_fail_one_after_the_other_come_after_ten_seconds_and_then_more_rarely(
    tmp_path: Path,
) -> None:
    """The waits of the existing agents, to the second: a fleet of 10,000 hosts behaves as the service expects.

    From one failed poll to the next, its repetitions included.
    """

    class Client:
        polls = 0

        def poll_host_command(self) -> None:
            self.polls += 1
            if self.polls > 20:
                clock._note(signal.SIGTERM, None)
                return
            raise EndpointUnavailable("It is away.")

    clock = Clock(lambda: daemon.tick())  # noqa: PLW0108 - defined below
    connected = Connected(
        client=cast("HostCommandClient", Client()),
        workers=Workers(
            pool=WorkerPool(lambda _work: 0, lambda _job, _connection: None),
            refuse=lambda _command, _reason: 0,
            abandon=lambda _: 0,
        ),
        host_identifier="h",
        endpoint="e",
    )
    daemon = Daemon(
        settings=replace(Settings(), root_dir=tmp_path, pid_dir=tmp_path),
        connect=lambda: connected,
        repairs=Repairs(restore=lambda _: 0, recover_installs=lambda: 0),
        wakeups=clock,
        notifier=ServiceNotifier({}),
        log=Log(LogSink(tmp_path / "log", to_stderr=False)),
    )
    daemon.run()
    per_poll = [clock.slept_s[first : first + 4] for first in range(0, 20, 4)]
    assert [10, 13, 17, 21, 27] == [round(sum(slept_s)) for slept_s in per_poll]
    assert all(sum(slept_s[:3]) <= 2 for slept_s in per_poll)


def test_a_throttled_report_holds_up_the_polls_as_well(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The service counts requests of the host, not of its processes."""
    server.hold_s = 0
    deployment = application.revise()
    server.carry(deployment, "DownloadBundle")
    server.trouble(COMPLETE, THROTTLED)
    identifier = server.send("BeforeInstall", deployment)
    assert "Succeeded" == server.completion(identifier).status
    throttled_at = next(exchange.at for exchange in server.of(COMPLETE) if exchange.fault)
    server.wait_for_requests(POLL, len(server.of(POLL)) + 1)
    during = [
        exchange.operation
        for exchange in server.exchanges
        if throttled_at + 0.1 < exchange.at < throttled_at + 0.7
    ]
    assert [] == during


@pytest.mark.parametrize("operation", [SPECIFICATION, ACKNOWLEDGE, COMPLETE])
def test_trouble_in_the_middle_of_a_command_costs_time_and_nothing_else(
    server: ControlServer, agent: Agent, application: Application, operation: str
) -> None:
    """One run and one report, whichever request met the trouble; one line in the log."""
    deployment = application.revise("one", ["BeforeInstall"])
    server.carry(deployment, "DownloadBundle")
    server.trouble(operation, SERVER_ERROR, HTML, Fault(is_reset=True))
    identifier = server.send("BeforeInstall", deployment)
    assert "Succeeded" == server.completion(identifier).status
    agent.wait_until_idle()
    assert 1 == len(server.completions(identifier))
    assert ["BeforeInstall of one"] == application.trace
    assert 1 == len(agent.logged("endpoint_trouble"))


# What a proxy, a portal or a firewall answers in the service's place, and refusals that may pass.
NOT_THE_SERVICE = (
    Fault(status=403, body=b"<html>blocked</html>", headers={"Content-Type": "text/html"}),
    Fault(status=302, headers={"Location": "http://127.0.0.1:1/"}),
    error(400, "SerializationException", "the body was cut off"),
)


@pytest.mark.parametrize("operation", [SPECIFICATION, ACKNOWLEDGE, COMPLETE])
def test_what_answers_in_the_place_of_the_service_decides_nothing(
    server: ControlServer, agent: Agent, application: Application, operation: str
) -> None:
    """One odd answer of a proxy must neither fail a command nor lose the report of one that was carried out."""
    deployment = application.revise("one", ["BeforeInstall"])
    server.carry(deployment, "DownloadBundle")
    server.trouble(operation, *NOT_THE_SERVICE)
    identifier = server.send("BeforeInstall", deployment)
    assert "Succeeded" == server.completion(identifier).status
    agent.wait_until_idle()
    assert 1 == len(server.completions(identifier))
    assert ["BeforeInstall of one"] == application.trace
    (line,) = [line for line in agent.logged("endpoint_trouble") if identifier in line]
    assert (
        "403 without a type. The answer begins with '<html>blocked</html>'. Check that no portal or proxy answers"
        in line
    )


@pytest.mark.parametrize("operation", [SPECIFICATION, ACKNOWLEDGE])
def test_a_question_that_is_refused_for_good_fails_the_command(
    server: ControlServer, agent: Agent, application: Application, operation: str
) -> None:
    """The service would otherwise wait for an hour."""
    deployment = application.revise("one", ["BeforeInstall"])
    server.carry(deployment, "DownloadBundle")
    server.trouble(operation, error(400, "ClientException", "no such deployment"))
    completion = server.run("BeforeInstall", deployment)
    assert ("Failed", 5) == (completion.status, completion.code)
    assert "no such deployment" in completion.message
    assert completion.message.endswith("[endpoint-refused]")
    assert [] == application.trace


def test_a_report_that_is_refused_for_good_is_given_up_and_logged(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The service has forgotten the command; repeating it for a day would help nobody."""
    deployment = application.revise()
    server.trouble(COMPLETE, error(400, "ClientException", "no such command"))
    identifier = server.send("DownloadBundle", deployment)
    server.wait_for_requests(COMPLETE)
    agent.wait_until_idle()
    (line,) = agent.logged("report_refused")
    assert identifier in line
    assert "no such command" in line
    assert ["Succeeded"] == [entry["result"]["status"] for entry in agent.history()]


def test_a_poll_in_the_dark_is_over_at_sigterm(server: ControlServer, make_agent: MakeAgent) -> None:
    """Also while it waits for its next attempt."""
    server.stop()
    agent = make_agent().launch()
    failed_status(agent)
    began = time.monotonic()
    assert 0 == agent.end()
    assert time.monotonic() - began < 1


def test_a_finished_command_polls_again_at_once_though_the_last_poll_failed(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> None:
    """A report that was taken proves that the endpoint is back."""
    deployment = application.revise("one", ["BeforeInstall"], script=gate.script)
    server.carry(deployment, "DownloadBundle")
    identifier = server.send("BeforeInstall", deployment)
    wait_until(lambda: gate.is_reached, "the script runs")
    server.stop()
    failed_status(agent)
    server.start()
    gate.open()
    server.completion(identifier)
    began = time.monotonic()
    server.carry(deployment, "Install")
    assert time.monotonic() - began < 5

"""Long polls, delivery and the waits of the protocol."""

from __future__ import annotations

import http.client
import signal
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.controlplane.endpoint_process import open_shop
from tests.controlplane.scripted_host import NORMAL, SECURE, HostRefusedError, ScriptedHost, sign
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.controlplane.endpoint_process import ControlEndpoint, Shop

pytestmark = pytest.mark.server


class OpenPoll:
    """A poll in a thread: what it was answered, and when."""

    def __init__(self, host: ScriptedHost) -> None:
        self._host = host
        self.command: dict[str, Any] | None = None
        self.answered_at = 0.0
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def _poll(self) -> None:
        self.command = self._host.poll(timeout_s=60)
        self.answered_at = time.monotonic()

    @property
    def is_open(self) -> bool:
        return self._thread.is_alive()

    def wait(self) -> None:
        self._thread.join(timeout=30)
        assert not self.is_open


def open_connections(endpoint: ControlEndpoint) -> int:
    """How many connections the server has open."""
    port = urlsplit(endpoint.url).port
    assert endpoint.process is not None
    with open(f"/proc/{endpoint.process.pid}/net/tcp") as table:
        rows = [line.split() for line in table]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def hold_poll(endpoint: ControlEndpoint, host: ScriptedHost) -> OpenPoll:
    """A poll that the server is holding open."""
    before = open_connections(endpoint)
    poll = OpenPoll(host)
    wait_until(lambda: open_connections(endpoint) > before, "the connection of the poll")
    return poll


def test_a_held_poll_is_answered_when_a_deployment_is_created(
    start_endpoint: Callable[..., ControlEndpoint],
) -> None:
    """Deployments start now, not at the next poll in a minute."""
    endpoint = start_endpoint("--poll-hold", "60")
    shop = open_shop(endpoint)
    poll = hold_poll(endpoint, shop.host("web-1"))
    created_at = time.monotonic()
    shop.deploy()
    poll.wait()
    assert poll.command is not None
    assert poll.answered_at - created_at < 1.0


def test_a_held_poll_is_answered_when_the_previous_event_completes(
    start_endpoint: Callable[..., ControlEndpoint],
) -> None:
    """Seven events follow each other without seven waits."""
    endpoint = start_endpoint("--poll-hold", "60")
    shop = open_shop(endpoint)
    host = shop.host("web-1")
    shop.deploy()
    command = host.expect("ApplicationStop")
    host.acknowledge(command)
    poll = hold_poll(endpoint, host)
    completed_at = time.monotonic()
    host.complete(command)
    poll.wait()
    assert poll.command is not None
    assert poll.command["CommandName"] == "DownloadBundle"
    assert poll.answered_at - completed_at < 1.0


def test_an_idle_poll_ends_after_the_hold_time_with_null(shop: Shop) -> None:
    """Agents look for HostCommand and take null for nothing to do."""
    host = shop.host("web-1")
    started_at = time.monotonic()
    assert host.call("PollHostCommand", HostIdentifier=host.arn) == {"HostCommand": None}
    assert time.monotonic() - started_at >= 0.3


def test_the_server_ends_within_a_second_with_polls_open(
    start_endpoint: Callable[..., ControlEndpoint],
) -> None:
    """A restart of the endpoint must not hang on hosts that have nothing to do."""
    endpoint = start_endpoint("--poll-hold", "60")
    shop = open_shop(endpoint)
    polls = [hold_poll(endpoint, shop.host(f"web-{number}")) for number in range(3)]
    told_at = time.monotonic()
    assert endpoint.end(signal.SIGTERM) == 0
    assert time.monotonic() - told_at < 2.0
    for poll in polls:
        poll.wait()
    assert [poll.command for poll in polls] == [None] * 3


def test_a_command_is_not_given_to_a_host_that_hung_up(
    start_endpoint: Callable[..., ControlEndpoint],
) -> None:
    """An agent that restarts during its poll gets the command at its next poll, not after the redelivery wait."""
    endpoint = start_endpoint("--poll-hold", "60")
    shop = open_shop(endpoint)
    host = shop.host("web-1")
    prefix, service = NORMAL
    body = b'{"HostIdentifier": "%s"}' % host.arn.encode()
    headers = sign(
        endpoint.url, f"{prefix}.PollHostCommand", body, credentials=host.credentials, service=service
    )
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(endpoint.url).port or 0)
    before = open_connections(endpoint)
    connection.request("POST", "/", body=body, headers=headers)
    wait_until(lambda: open_connections(endpoint) > before, "the poll")
    connection.close()
    wait_until(lambda: open_connections(endpoint) == before, "the end of the connection")
    shop.deploy()
    assert host.expect("ApplicationStop")


def test_an_unacknowledged_command_is_delivered_again(start_endpoint: Callable[..., ControlEndpoint]) -> None:
    """The answer to a poll can get lost on the way; the deployment must not hang on it."""
    endpoint = start_endpoint("--poll-hold", "60", "--redeliver-after", "0.5")
    shop = open_shop(endpoint)
    host = shop.host("web-1")
    shop.deploy()
    lost = host.expect("ApplicationStop")
    assert host.expect("ApplicationStop") == lost


def test_an_acknowledged_command_is_never_delivered_again(
    start_endpoint: Callable[..., ControlEndpoint],
) -> None:
    """A script that runs for minutes must not be started a second time."""
    endpoint = start_endpoint("--redeliver-after", "0.1")
    shop = open_shop(endpoint)
    host = shop.host("web-1")
    shop.deploy()
    host.acknowledge(host.expect("ApplicationStop"))
    assert [host.poll(), host.poll()] == [None, None]


def test_both_stacks_serve_the_same_commands(shop: Shop) -> None:
    """Hosts in private networks use the secure stack."""
    host = shop.host("web-1")
    host.stack = SECURE
    shop.deploy()
    host.carry_out("ApplicationStop")
    host.stack = NORMAL
    host.carry_out("DownloadBundle")


@pytest.mark.parametrize("stack", [(NORMAL[0], SECURE[1]), (SECURE[0], NORMAL[1])])
def test_a_mix_of_stacks_is_an_unknown_operation(shop: Shop, stack: tuple[str, str]) -> None:
    """The error that tells an administrator to change enable_auth_policy."""
    host = shop.host("web-1")
    host.stack = stack
    with pytest.raises(HostRefusedError, match="enable_auth_policy") as caught:
        host.poll()
    assert (caught.value.status, caught.value.code) == (400, "UnknownOperationException")


def test_an_unknown_operation_says_so(shop: Shop) -> None:
    """An agent newer than the endpoint."""
    with pytest.raises(HostRefusedError, match="UnknownOperationException"):
        shop.host("web-1").call("PutHostMood")


class TestWaits:
    """Commands that nobody carries out."""

    def test_a_host_that_never_polls_fails_with_what_to_check(
        self, start_endpoint: Callable[..., ControlEndpoint]
    ) -> None:
        """A dead agent must not look like a broken ApplicationStop script."""
        shop = open_shop(start_endpoint("--host-unseen-after", "0.4"))
        host = shop.host("web-1")
        deployment = shop.deploy()
        wait_until(lambda: shop.get(deployment)["status"] == "Failed", "the failure")
        event = shop.target(deployment, host)["lifecycleEvents"][0]
        assert event["status"] == "Failed"
        assert "it never polled before" in event["diagnostics"]["message"]
        assert "agentctl status" in event["diagnostics"]["message"]
        assert "1 host not seen for" in shop.get(deployment)["errorInformation"]["message"]

    def test_silence_is_no_application_stop_failure_to_ignore(
        self, start_endpoint: Callable[..., ControlEndpoint]
    ) -> None:
        """Ignoring is meant for a broken stop script; a dead host must not be waited for twice."""
        shop = open_shop(start_endpoint("--host-unseen-after", "0.4"))
        host = shop.host("web-1")
        deployment = shop.deploy(ignoreApplicationStopFailures=True)
        wait_until(lambda: shop.get(deployment)["status"] == "Failed", "the failure")
        events = shop.events(deployment, host)
        assert (events["ApplicationStop"], events["DownloadBundle"]) == ("Failed", "Skipped")

    def test_a_host_that_went_silent_is_told_apart(
        self, start_endpoint: Callable[..., ControlEndpoint]
    ) -> None:
        """Last seen when? That narrows down what happened."""
        shop = open_shop(start_endpoint("--host-unseen-after", "0.4"))
        host = shop.host("web-1")
        host.poll()
        deployment = shop.deploy()
        wait_until(lambda: shop.get(deployment)["status"] == "Failed", "the failure")
        event = shop.target(deployment, host)["lifecycleEvents"][0]
        assert "last seen 20" in event["diagnostics"]["message"]

    def test_a_host_that_keeps_polling_is_not_unseen(
        self, start_endpoint: Callable[..., ControlEndpoint]
    ) -> None:
        """A host that holds a command back while it finishes another is alive."""
        shop = open_shop(start_endpoint("--host-unseen-after", "1.5", "--redeliver-after", "60"))
        host = shop.host("web-1")
        deployment = shop.deploy()
        command = host.expect("ApplicationStop")
        held_until = time.monotonic() + 3
        while time.monotonic() < held_until:
            assert host.poll() is None
        host.acknowledge(command)
        host.complete(command)
        assert shop.events(deployment, host)["ApplicationStop"] == "Succeeded"

    def test_a_command_that_is_never_completed_times_out(
        self, start_endpoint: Callable[..., ControlEndpoint]
    ) -> None:
        """A host that died in the middle must not block its group for ever."""
        shop = open_shop(start_endpoint("--command-timeout", "0.4"))
        host = shop.host("web-1")
        deployment = shop.deploy()
        host.acknowledge(host.expect("ApplicationStop"))
        wait_until(lambda: shop.get(deployment)["status"] == "Failed", "the timeout")
        event = shop.target(deployment, host)["lifecycleEvents"][0]
        assert event["diagnostics"]["errorCode"] == "ScriptTimedOut"
        assert "neither completed nor updated" in event["diagnostics"]["message"]

    def test_updates_keep_a_long_command_alive(self, start_endpoint: Callable[..., ControlEndpoint]) -> None:
        """A database migration may take hours as long as its host says that it is at work."""
        shop = open_shop(start_endpoint("--command-timeout", "1.5"))
        host = shop.host("web-1")
        deployment = shop.deploy()
        command = host.expect("ApplicationStop")
        host.acknowledge(command)
        busy_until = time.monotonic() + 3
        while time.monotonic() < busy_until:
            update = host.call(
                "PostHostCommandUpdate", HostCommandIdentifier=command["HostCommandIdentifier"]
            )
            assert update == {"CommandStatus": "InProgress"}
            assert host.poll() is None
        host.complete(command)
        assert shop.events(deployment, host)["ApplicationStop"] == "Succeeded"

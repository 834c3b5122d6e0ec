"""The endpoint is killed at a bad moment and started again."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.controlplane.endpoint_process import open_shop
from tests.controlplane.scripted_host import EVENTS
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.controlplane.endpoint_process import ControlEndpoint, Shop
    from tests.controlplane.scripted_host import ScriptedHost

pytestmark = pytest.mark.server


def kill_and_restart(endpoint: ControlEndpoint, shop: Shop, host: ScriptedHost, *options: str) -> None:
    endpoint.end(signal.SIGKILL)
    endpoint.start("--poll-hold", "0.3", *options)
    shop.client = endpoint.client()
    host.url = endpoint.url


def test_a_deployment_survives_a_kill_after_every_step(
    start_endpoint: Callable[..., ControlEndpoint],
) -> None:
    """Whatever was answered is on disk: no event is lost, none runs twice."""
    endpoint = start_endpoint("--redeliver-after", "0.05")
    shop = open_shop(endpoint)
    host = shop.host("web-1")
    deployment = shop.deploy()
    kill_and_restart(endpoint, shop, host, "--redeliver-after", "0.05")
    command = host.expect("ApplicationStop")
    kill_and_restart(endpoint, shop, host, "--redeliver-after", "0.05")
    assert host.expect("ApplicationStop") == command
    assert host.acknowledge(command) == "InProgress"
    kill_and_restart(endpoint, shop, host, "--redeliver-after", "0.05")
    assert host.poll() is None
    host.complete(command)
    kill_and_restart(endpoint, shop, host, "--redeliver-after", "0.05")
    host.carry_out(*EVENTS[1:])
    kill_and_restart(endpoint, shop, host)
    assert shop.get(deployment)["status"] == "Succeeded"


def test_hosts_are_not_blamed_for_the_time_the_endpoint_was_down(
    start_endpoint: Callable[..., ControlEndpoint],
) -> None:
    """A long outage of the endpoint must not fail every deployment at its return."""
    endpoint = start_endpoint()
    shop = open_shop(endpoint)
    host = shop.host("web-1")
    deployment = shop.deploy()
    assert host.expect("ApplicationStop")
    seen_at = time.monotonic()
    endpoint.end(signal.SIGKILL)
    wait_until(lambda: time.monotonic() - seen_at > 2.0, "an outage longer than the wait for a host")
    endpoint.start("--poll-hold", "0.3", "--host-unseen-after", "2", "--redeliver-after", "0.05")
    shop.client, host.url = endpoint.client(), endpoint.url
    host.carry_out("ApplicationStop")
    assert shop.events(deployment, host)["ApplicationStop"] == "Succeeded"


def test_the_time_a_host_was_seen_survives_a_stop(start_endpoint: Callable[..., ControlEndpoint]) -> None:
    """`host list` is where an administrator looks for silent hosts."""
    endpoint = start_endpoint()
    shop = open_shop(endpoint)
    host = shop.host("web-1")
    assert "  -  -  " in endpoint.control("host", "list")
    host.poll()
    endpoint.end(signal.SIGTERM)
    assert "scripted/1.0" in endpoint.control("host", "list")


def test_the_signing_authority_stays_the_same(start_endpoint: Callable[..., ControlEndpoint]) -> None:
    """Every host was told this CA; a new one would stop all deployments."""
    endpoint = start_endpoint()
    before = endpoint.control("ca")
    endpoint.end(signal.SIGKILL)
    endpoint.start()
    assert endpoint.control("ca") == before

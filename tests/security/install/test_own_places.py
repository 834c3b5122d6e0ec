"""Bundles whose destination is what the agent itself keeps: its records, its logs, the archives of deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.protocol import FileExistsBehavior
from tests.install.host import GROUP
from tests.security.install.attacker import SECURITY
from tests.security.install.surroundings import WWW, SharedHost, refusal

if TYPE_CHECKING:
    from agent.install import InstallRequest

pytestmark = SECURITY

OTHER = "99999999-2222-3333-4444-555555555555"
PLACES = [
    "",
    "/deployment-instructions",
    "/deployment-logs",
    "/ongoing-deployment",
    f"/{GROUP}",
    f"/{GROUP}/d-000000001/deployment-archive",
    f"/{OTHER}/d-1/deployment-archive",
    f"/{OTHER}/d-1/new",
    "/new",
]


@pytest.fixture
def used(host: SharedHost) -> SharedHost:
    """A host on which several groups were deployed."""
    install(host.request({"app/a": "a"}, WWW, durable=False))
    host.write(
        {
            "deployment-instructions/other-cleanup": "/srv/other\n",
            "deployment-logs/agent-deployments.log": "a line\n",
            "ongoing-deployment/d-1": "an identifier",
            f"{OTHER}/d-1/deployment-archive/appspec.yml": "version: 0.0",
        },
        host.base / "root",
    )
    return host


def assert_refused(request: InstallRequest, host: SharedHost, place: str) -> None:
    """All who look and the Install say the same, with the path, and nothing has changed."""
    assert place in refusal(request, host).message


@pytest.mark.parametrize("below", PLACES)
@pytest.mark.parametrize("behavior", FileExistsBehavior)
def test_a_bundle_is_not_installed_into_what_the_agent_keeps(
    used: SharedHost, below: str, behavior: FileExistsBehavior
) -> None:
    """A list of another group's says what its next deployment removes, and an archive which scripts run as root."""
    appspec = f"files: [{{source: app, destination: '@BASE@/root{below}'}}]"
    request = used.request({"app/new-cleanup": "/etc/passwd\n"}, appspec, behavior=behavior, durable=False)
    assert_refused(request, used, f"{used.base}/root{below}")


@pytest.mark.parametrize(
    ("below", "name"),
    [
        ("/deployment-instructions", "other-cleanup"),
        ("/deployment-instructions", f"{GROUP}-manifest"),
        (f"/{OTHER}/d-1/deployment-archive", "appspec.yml"),
        ("/deployment-logs", "agent-deployments.log"),
    ],
)
def test_what_the_agent_keeps_is_not_replaced(used: SharedHost, below: str, name: str) -> None:
    """The rule for files that are there already is no way to replace the agent's own."""
    appspec = f"files: [{{source: app, destination: '@BASE@/root{below}'}}]"
    overwrite = FileExistsBehavior.OVERWRITE
    request = used.request({f"app/{name}": "intruder"}, appspec, behavior=overwrite, durable=False)
    assert_refused(request, used, f"{used.base}/root{below}")


def test_not_from_above_either(used: SharedHost) -> None:
    """The tree of the bundle may have the agent's directories in it."""
    appspec = "files: [{source: app, destination: '@BASE@'}]"
    archive = {"app/root/deployment-instructions/new-cleanup": "/etc/passwd\n"}
    request = used.request(archive, appspec, durable=False)
    assert_refused(request, used, f"{used.base}/root")


def test_not_through_a_link_either(used: SharedHost) -> None:
    """Root's links are followed, so it counts where they lead."""
    (used.dest / "alias").symlink_to(used.instructions)
    appspec = "files: [{source: app, destination: '@DEST@/alias'}]"
    request = used.request({"app/new-cleanup": "/etc/passwd\n"}, appspec, durable=False)
    assert_refused(request, used, f"{used.dest}/alias")


def test_a_file_does_not_take_the_place_of_what_the_agent_keeps(used: SharedHost) -> None:
    """To remove that, as is right for a directory of others, would be bad advice."""
    appspec = "files: [{source: app, destination: '@BASE@'}]"
    overwrite = FileExistsBehavior.OVERWRITE
    request = used.request({"app/root": "a file"}, appspec, behavior=overwrite, durable=False)
    assert_refused(request, used, f"{used.base}/root (it is the agent's own)")

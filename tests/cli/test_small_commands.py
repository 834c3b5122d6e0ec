"""`agentctl version`, `explain` and `whoami`, and what all subcommands have in common."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

import pytest

from agent import __version__
from tests.daemon.control_server import HOST
from tests.identity.metadata_server import ROLES, MetadataServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import AgentCtl
    from tests.daemon.agent_process import Agent

WITH_EXIT_CODES = (
    "deploy",
    "drain",
    "plan",
    "recover",
    "run",
    "status",
    "stop",
    "wait-idle",
    "whoami",
)
SUBCOMMANDS = (*WITH_EXIT_CODES, "explain", "version")


def test_the_version_is_told_to_people_and_to_scripts(agentctl: AgentCtl) -> None:
    """The first question of every bug report."""
    assert f"agentctl {__version__} (Python {platform.python_version()})\n" == agentctl("version").stdout
    told = json.loads(agentctl("version", "--json").stdout)
    assert {"version": __version__, "python": platform.python_version()} == told
    assert __version__ in agentctl("--version").stdout


def test_help_names_every_subcommand_and_each_has_exit_codes_or_examples(agentctl: AgentCtl) -> None:
    """Help is what there is at 3 a.m."""
    overview = agentctl("--help")
    assert 0 == overview.returncode
    for name in SUBCOMMANDS:
        assert f"  {name} " in overview.stdout
    for name in WITH_EXIT_CODES:
        shown = agentctl(name, "-h").stdout
        assert "Exit codes:" in shown
        assert f"  agentctl {name}" in shown


def test_an_unknown_subcommand_is_bad_input(agentctl: AgentCtl) -> None:
    """A typing error must not look like a failed deployment."""
    done = agentctl("stauts")
    assert (2, "") == (done.returncode, done.stdout)
    assert "stauts" in done.stderr


@pytest.mark.parametrize(
    "written",
    [
        "bundle-not-found",
        "[bundle-not-found]",
        "[bundle-not-found].",
        "error_id=bundle-not-found",
        "Bundle_not_found",
    ],
)
def test_an_error_id_is_explained_also_as_it_stands_in_messages(agentctl: AgentCtl, written: str) -> None:
    """Copied with or without its brackets."""
    done = agentctl("explain", written)
    assert 0 == done.returncode
    assert "bundle-not-found" == done.stdout.splitlines()[0]
    assert "\nWhy:\n  " in done.stdout
    assert "\nWhat to do:\n  " in done.stdout


def test_a_misspelt_error_id_gets_its_neighbours_named(agentctl: AgentCtl) -> None:
    """Typed by hand from a photograph of a screen."""
    done = agentctl("explain", "bundle-notfound")
    assert (2, "") == (done.returncode, done.stdout)
    assert "there is no error id bundle-notfound" in done.stderr
    assert "Did you mean bundle-not-found" in done.stderr


def test_without_an_id_all_are_listed(agentctl: AgentCtl) -> None:
    """To see what there is."""
    lines = agentctl("explain").stdout.splitlines()
    names = [line.split()[0] for line in lines]
    assert sorted(names) == names
    assert {"worker-lost", "hook-failed", "appspec-invalid"} <= set(names)


def test_an_on_premises_host_knows_who_it_is_and_says_how(agent: Agent) -> None:
    """Most trouble with a new host is about exactly this."""
    told = json.loads(agent.agentctl("whoami", "--json").stdout)
    assert (HOST, "us-east-1", "AKIAEXAMPLE") == (
        told["host_identifier"],
        told["region"],
        told["access_key_id"],
    )
    assert str(agent.identity_file) in told["according_to"]
    assert "not-so-secret" not in json.dumps(told)
    text = agent.agentctl("whoami")
    assert 0 == text.returncode
    assert f"host identifier    {HOST}\n" in text.stdout
    assert "not-so-secret" not in text.stdout


@pytest.fixture
def metadata_server() -> Iterator[MetadataServer]:
    yield from MetadataServer().running()


@pytest.mark.server
def test_an_instance_asks_its_metadata(agent: Agent, metadata_server: MetadataServer) -> None:
    """And says which service it has asked."""
    agent.identity_file.unlink()
    agent.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = metadata_server.url
    told = json.loads(agent.agentctl("whoami", "--json").stdout)
    assert "arn:aws:ec2:eu-west-1:123456789012:instance/i-0abc1234567890def" == told["host_identifier"]
    assert metadata_server.url in told["credentials_from"]
    metadata_server.texts[ROLES] = ""
    without_role = agent.agentctl("whoami")
    assert 1 == without_role.returncode
    assert "no role is attached to this instance" in without_role.stderr
    assert "access key id      NONE" in without_role.stdout


def test_a_host_that_is_nobody_is_told_what_was_tried(agent: Agent) -> None:
    """Neither a file nor metadata."""
    agent.identity_file.unlink()
    agent.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "http://127.0.0.1:1"
    done = agent.agentctl("whoami")
    assert (1, "") == (done.returncode, done.stdout)
    # A sentence for people, and no line of a log.
    assert done.stderr.startswith("agentctl: This host does not know who it is.")
    assert done.stderr.endswith(" [identity-unavailable]\n")
    assert str(agent.identity_file) in done.stderr
    assert "http://127.0.0.1:1" in done.stderr


def test_a_wrong_on_premises_file_is_bad_input(agent: Agent) -> None:
    """With what is wrong in it."""
    agent.identity_file.write_text("region: us-east-1\n")
    done = agent.agentctl("whoami")
    assert (2, "") == (done.returncode, done.stdout)
    assert "iam_user_arn" in done.stderr
    assert "Traceback" not in done.stderr

"""What `agentctl` answers to a shell that asks what could come next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.cli.explain import load_explanations
from agent.deployments import CommandResult, DeploymentFacts, History, HistoryEntry
from agent.protocol import IN_PLACE_ORDER, CommandStatus
from tests.cli.test_small_commands import SUBCOMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import AgentCtl

    Offered = Callable[..., dict[str, str]]

SHOP = "6c1e2f4a-0000-0000-0000-000000000000"
OFFICE = "70000000-0000-0000-0000-000000000000"


@pytest.fixture
def offered(agentctl: AgentCtl) -> Offered:
    """What could stand for the last of these words: each with what is told of it, which may be nothing."""

    def ask(*words: object) -> dict[str, str]:
        line = " ".join(("agentctl", *map(str, words)))
        done = agentctl(_AGENTCTL_COMPLETE="zsh_complete", COMP_WORDS=line, COMP_CWORD=str(len(words)))
        assert (0, "") == (done.returncode, done.stderr)
        lines = done.stdout.splitlines()
        return dict(zip(lines[1::3], ["" if text == "_" else text for text in lines[2::3]], strict=True))

    return ask


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """Of an agent with two groups, one of which has been deployed to by this agent."""
    instructions = tmp_path / "root/deployment-instructions"
    instructions.mkdir(parents=True)
    for group_id in (SHOP, OFFICE):
        (instructions / f"{group_id}_last_successful_install").touch()
        (instructions / f"{group_id}-cleanup").touch()
    state = tmp_path / "state"
    state.mkdir()
    deployment = DeploymentFacts(
        deployment_id="d-1",
        deployment_group_id=SHOP,
        deployment_group_name="production",
        application_name="shop",
    )
    result = CommandResult(status=CommandStatus.SUCCEEDED, error_code=0, message="", payload="")
    History(state).add(
        HistoryEntry(
            host_command_identifier="1",
            command_name="Install",
            accepted_at=1,
            finished_at=2,
            result=result,
            deployment=deployment,
        )
    )
    path = tmp_path / "agent.yml"
    path.write_text(f"root_dir: {tmp_path}/root\npid_dir: {state}\n")
    return path


def test_subcommands_are_offered_with_what_they_do(offered: Offered) -> None:
    """Somebody who calls agentctl once a year finds the way."""
    assert set(SUBCOMMANDS) == set(offered(""))
    assert {"wait-idle": "Wait until no command runs on this host"} == offered("wait")


def test_error_ids_are_offered_with_what_they_mean(offered: Offered) -> None:
    """A hundred ids; the beginning is often all that is remembered."""
    summaries = {name: texts["summary"] for name, texts in load_explanations().items()}
    told = {name.replace("\\:", ":"): text for name, text in offered("explain", "hook-").items()}
    assert {name: text for name, text in summaries.items() if name.startswith("hook-")} == told
    assert told


@pytest.mark.parametrize("command", ["plan", "deploy"])
def test_groups_of_this_host_are_offered_with_their_names(
    offered: Offered, config_file: Path, command: str
) -> None:
    """Ids come from the service and say nothing; a group that only another agent knows has no name here."""
    assert {SHOP: "shop/production", OFFICE: ""} == {
        **offered(command, "-c", config_file, "-g", "6"),
        **offered(command, "--config-file", config_file, "--deployment-group", "7"),
    }
    assert {} == offered(command, "-c", config_file, "-g", "8")


def test_for_recover_only_interrupted_groups_are_offered(offered: Offered, config_file: Path) -> None:
    """There is nothing to recover in the others."""
    arguments = ("recover", "-c", config_file, "-g", "6")
    assert {} == offered(*arguments)
    (config_file.parent / f"root/deployment-instructions/{SHOP}-journal").touch()
    assert {SHOP: "shop/production"} == offered(*arguments)


def test_events_are_offered_one_after_the_other(offered: Offered) -> None:
    """In the order of a deployment, and none twice."""
    assert {event: "" for event in IN_PLACE_ORDER if event.startswith("A")} == offered("deploy", "-e", "A")
    begun = "ApplicationStop,DownloadBundle,"
    assert list(offered("deploy", "-e", f"{begun}A")) == [
        f"{begun}{event}"
        for event in IN_PLACE_ORDER
        if event.startswith("A") and event not in begun.split(",")
    ]


@pytest.mark.parametrize(
    "content", [None, "root_dir: [", "root_dir: relative\n", "root_dir: /nowhere/at/all\n"]
)
def test_what_cant_be_found_out_is_not_offered_and_not_complained_about(
    offered: Offered, tmp_path: Path, content: str | None
) -> None:
    """A message in the middle of a line that is being typed would destroy it."""
    path = tmp_path / "agent.yml"
    if content is not None:
        path.write_text(content)
    for command in ("plan", "deploy", "recover"):
        assert {} == offered(command, "-c", path, "-g", "6")


def test_a_history_that_is_damaged_only_costs_the_names(offered: Offered, config_file: Path) -> None:
    """A crash may have cut a line off."""
    (config_file.parent / "state/history.jsonl").write_bytes(b'\xff\xfe{"host\n[]\n')
    assert {SHOP: ""} == offered("plan", "-c", config_file, "-g", "6")

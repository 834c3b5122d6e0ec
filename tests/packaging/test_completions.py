"""What TAB does in bash, zsh and fish for those who have the packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.packaging.typed_line import COMMANDS, COMPLETIONS, terminal_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.packaging.typed_line import Terminal

SHELLS = ("bash", "zsh", "fish")

# What is typed before TAB → the line after it.
LINES = {
    "agentctl exp": "agentctl explain",
    "agentctl wait": "agentctl wait-idle",
    "agentctl explain bundle-enc": "agentctl explain bundle-encrypted",
    "agentctl stop --n": "agentctl stop --now",
    "agentctl deploy --type dir": "agentctl deploy --type directory",
    "agentctl deploy -e Down": "agentctl deploy -e DownloadBundle",
    "agentctl status -c /etc/passw": "agentctl status -c /etc/passwd",
    "agentctl plan /etc/passw": "agentctl plan /etc/passwd",
    "codedeploy-local --appl": "codedeploy-local --application-name",
    "codedeploy-local -t dir": "codedeploy-local -t directory",
    "codedeploy-local -l /etc/passw": "codedeploy-local -l /etc/passwd",
    "codedeploy-agent rest": "codedeploy-agent restart",
    "codedeploy-agent --conf": "codedeploy-agent --config_file",
    "codedeploy-agent --config_file /etc/passw": "codedeploy-agent --config_file /etc/passwd",
}


@pytest.fixture(params=SHELLS)
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    with terminal_with(request.param, tmp_path) as opened:
        yield opened


def test_every_command_has_a_completion_for_every_shell() -> None:
    """Nobody chooses a shell for our sake. Whatever else lay there would be installed as a completion, too."""
    wanted = {f"{command}.{shell}" for command in COMMANDS for shell in SHELLS}
    assert wanted == {path.name for path in COMPLETIONS.iterdir()}


def test_subcommands_options_values_and_files_are_completed(terminal: Terminal) -> None:
    """As people type it, in the shell itself, with one TAB."""
    completed = {line: " ".join(terminal.completed(line)) for line in LINES}
    assert completed == LINES


def test_deployment_groups_of_this_host_are_completed(terminal: Terminal, tmp_path: Path) -> None:
    """Ids of groups are 36 characters that nobody knows by heart."""
    group_id = "6c1e2f4a-aaaa-bbbb-cccc-1234567890ab"
    instructions = tmp_path / "root/deployment-instructions"
    instructions.mkdir(parents=True)
    (instructions / f"{group_id}_last_successful_install").touch()
    config_file = tmp_path / "agent.yml"
    config_file.write_text(f"root_dir: {tmp_path}/root\npid_dir: {tmp_path}/state\n")
    for command in ("agentctl plan", "codedeploy-local"):
        typed = f"{command} -c {config_file} --deployment-group 6c"
        assert f"{command} -c {config_file} --deployment-group {group_id}" == " ".join(
            terminal.completed(typed)
        )


def test_a_program_that_is_gone_is_not_complained_about(terminal: Terminal) -> None:
    """A shell stays open for weeks, over removals and upgrades; a message in the middle of a line destroys it."""
    assert ["agentctl", "explain"] == terminal.completed("agentctl exp")
    (terminal.programs / "agentctl").unlink()
    for line in ("agentctl expl", "codedeploy-local --appl"):
        assert line.split() == terminal.completed(line)
    assert "No such file" not in terminal.shown
    assert "not found" not in terminal.shown

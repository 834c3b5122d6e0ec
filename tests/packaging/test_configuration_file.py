"""The configuration files that are installed say what the agent does."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from agent.settings import Settings
from agent.settings_file import parse_settings

CONF = Path(__file__).parents[2] / "conf"
FULL = CONF / "codedeployagent.yml"
UNPRIVILEGED = CONF / "codedeployagent-unprivileged.yml"

# `key: value`, or the same in a comment: what somebody gets who takes the # away.
_KEY = re.compile(r"^(# )?([a-z0-9_]+):( .*)?$")

# As in the configuration that the existing agents bring. Without a file, as with any other agent, 30.
_AS_INSTALLED = replace(Settings(), wait_between_runs=1.0)
_OTHER_THAN_DEFAULT = ("wait_between_runs",)


def entries(path: Path) -> list[str]:
    """The lines with a key, without the # before those that are switched off."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("# ") for line in lines if _KEY.match(line)]


def keys(path: Path) -> list[str]:
    return [line.partition(":")[0] for line in entries(path)]


def test_every_setting_is_in_the_file_and_nothing_else_in_the_order_of_the_program() -> None:
    """What is not in the file does not exist for who configures the agent, and what is only there has no effect."""
    assert [item.name for item in fields(Settings)] == keys(FULL)


def test_the_file_changes_nothing_but_the_pause_between_polls() -> None:
    """An agent without the file and one with the file as installed behave the same; so does one with a line deleted."""
    loaded = parse_settings(FULL.read_bytes(), source=str(FULL))
    assert () == loaded.warnings
    assert _AS_INSTALLED == loaded.settings


def test_what_stands_in_a_comment_is_the_default() -> None:
    """Who takes the # away, to change the value next, changes nothing yet."""
    everything = "\n".join(entries(FULL)).encode()
    assert _AS_INSTALLED == parse_settings(everything, source="all").settings


def test_a_value_that_is_not_the_default_says_what_the_default_is() -> None:
    """Who deletes the line should know what happens."""
    text = FULL.read_text(encoding="utf-8")
    for name in _OTHER_THAN_DEFAULT:
        default = f"{getattr(Settings(), name):g}"
        explanation = text[: text.index(f"\n{name}:")].rpartition("\n\n")[2]
        assert f"Without this key: {default}." in explanation


def test_every_key_is_explained_right_above_it() -> None:
    """At 3 a.m. nobody looks for the manual page."""
    lines = FULL.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if _KEY.match(line):
            above = lines[number - 1]
            assert above.startswith("# "), line
            assert not _KEY.match(above), line
            assert above.endswith((".", ".)")), line


def test_keys_in_the_style_of_the_existing_agents_mean_the_same() -> None:
    """Somebody copies a line from an old file into this one, or this file to a host with an existing agent."""
    old_style = re.sub(r"^([a-z0-9_]+):", r":\1:", FULL.read_text(encoding="utf-8"), flags=re.MULTILINE)
    loaded = parse_settings(old_style.encode(), source="old style")
    assert parse_settings(FULL.read_bytes(), source=str(FULL)) == loaded


def test_the_unprivileged_agent_differs_in_its_places_only() -> None:
    """All other keys are explained in one file, and have one default."""
    loaded = parse_settings(UNPRIVILEGED.read_bytes(), source=str(UNPRIVILEGED))
    assert () == loaded.warnings
    places = {"root_dir", "pid_dir", "log_dir", "on_premises_config_file"}
    assert places | set(_OTHER_THAN_DEFAULT) == set(keys(UNPRIVILEGED))
    others: dict[str, Any] = {name: getattr(Settings(), name) for name in places}
    assert _AS_INSTALLED == replace(loaded.settings, **others)


def test_the_two_agents_share_no_place() -> None:
    """A host may change from one to the other; neither must find files of the other that it can't read."""
    root = parse_settings(FULL.read_bytes(), source=str(FULL)).settings
    unprivileged = parse_settings(UNPRIVILEGED.read_bytes(), source=str(UNPRIVILEGED)).settings
    for name in ("root_dir", "pid_dir", "log_dir", "on_premises_config_file"):
        assert getattr(root, name) != getattr(unprivileged, name)
    assert Path("/var/lib/codedeploy-agent") in unprivileged.root_dir.parents
    assert Path("/var/lib/codedeploy-agent") in unprivileged.pid_dir.parents

"""conf/appspec.schema.json, for editors: it marks nothing that the agent accepts, and nearly all that it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import yaml

from agent.appspec import parse_appspec
from agent.errors import AppSpecInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

HERE = Path(__file__).parent
SCHEMA = json.loads((HERE.parents[1] / "conf" / "appspec.schema.json").read_text(encoding="utf-8"))
FIXTURES = sorted((HERE / "fixtures").glob("*.yml"))
GOOD = [path for path in FIXTURES if not path.name.startswith("invalid_")]
# A validator follows each alias, so those that multiply would keep it busy for ever.
INVALID = [path for path in FIXTURES if path.match("invalid_*") and not path.match("*_that_multiply.yml")]

# The schema sees values as YAML readers make them of what is written (0888 is 888, 7:55 is 475), and
# a pattern can't count, compare or know the host.
BEYOND_SCHEMA = {
    "invalid_acl_default_on_files_only",
    "invalid_context_categories_go_down",
    "invalid_context_category_twice",
    "invalid_context_range_goes_down",
    "invalid_files_nul_in_destination",
    "invalid_files_source_outside_and_back",
    "invalid_hook_timeout_binary",
    "invalid_hook_timeout_clock",
    "invalid_hook_timeout_hexadecimal",
    "invalid_hook_timeout_huge",
    "invalid_hook_timeout_huge_exponent",
    "invalid_hook_timeout_infinite",
    "invalid_hook_timeout_not_a_number",
    "invalid_hook_timeout_underscore_at_end",
    "invalid_hook_timeout_underscores",
    "invalid_mode_float",
    "invalid_mode_hexadecimal",
    "invalid_mode_not_octal",
    "invalid_mode_sexagesimal",
}
# PyYAML does not build a value from these, although its parser reads them.
UNREADABLE = {"merge_of_nothing", "list_as_key", "mapping_as_key"}


class _EditorLoader(yaml.CSafeLoader):
    """Editors leave dates as texts."""

    # The stubs call it an attribute of instances, which it is not.
    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, Any]]]] = {  # type: ignore[misc]
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def problems_of(text: bytes) -> list[str] | None:
    """What the schema has against a text; None when it is no YAML for a standard reader."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    try:
        document: Any = next(yaml.load_all(text, Loader=_EditorLoader), None)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError):
        return None
    return [error.message for error in validator.iter_errors(document)]


def test_the_schema_is_one() -> None:
    """An editor ignores a schema that it can't read, without a word."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_what_the_agent_accepts_without_a_warning_is_valid_in_an_editor(path: Path) -> None:
    """An editor that marks a working AppSpec as wrong makes people change it; what is ignored they should change."""
    text = path.read_bytes()

    problems = problems_of(text)

    if path.stem in UNREADABLE:
        assert problems is None
    else:
        assert problems == [] or parse_appspec(text, path="appspec.yml").warnings


def test_what_the_agent_refuses_is_marked_in_an_editor() -> None:
    """Most mistakes can be found while writing; what can't is listed, and nothing else."""
    unnoticed = {path.stem for path in INVALID if problems_of(path.read_bytes()) == []}

    assert unnoticed == BEYOND_SCHEMA


def _keys_of_the_schema() -> Iterator[tuple[str, str]]:
    """Each key with an AppSpec in which it stands, without a value."""
    head = "version: 0.0\nos: linux\n"
    definitions = SCHEMA["$defs"]
    for key in definitions["file"]["properties"]:
        yield key, f"{head}files: [{{? {key} }}]\n"
    for key in definitions["script"]["properties"]:
        yield key, f"{head}hooks: {{AfterInstall: [{{location: a, ? {key} }}]}}\n"
    for key in definitions["permission"]["properties"]:
        yield key, f"{head}permissions: [{{object: a, ? {key} }}]\n"
    for key in definitions["permission"]["properties"]["context"]["properties"]:
        yield key, f"{head}permissions: [{{object: a, context: {{type: b, ? {key} }}}}]\n"
    for key in SCHEMA["properties"]:
        yield key, f"{head}{key}:\n"


@pytest.mark.parametrize(("key", "text"), list(_keys_of_the_schema()))
def test_the_agent_knows_each_key_of_the_schema(key: str, text: str) -> None:
    """An editor must not offer a key that the agent ignores."""
    assert [] == [message for message in _messages(text.encode()) if f"unknown key '{key}'" in message]


def test_the_schema_knows_each_key_of_the_agent() -> None:
    """What the agent reads in the fixture that has everything, the editor explains."""
    document = yaml.safe_load((HERE / "fixtures" / "everything.yml").read_text(encoding="utf-8"))
    definitions = SCHEMA["$defs"]
    permissions = definitions["permission"]["properties"]

    assert set(SCHEMA["properties"]) == set(document)
    assert set(definitions["file"]["properties"]) == _keys(document["files"])
    assert set(permissions) == _keys(document["permissions"])
    assert set(definitions["script"]["properties"]) == {
        key for scripts in document["hooks"].values() for key in _keys(scripts)
    }


def _keys(entries: list[dict[str, Any]]) -> set[str]:
    return {key for entry in entries for key in entry}


def _messages(text: bytes) -> list[str]:
    try:
        return [warning.message for warning in parse_appspec(text, path="appspec.yml").warnings]
    except AppSpecInvalid as error:
        return [problem.message for problem in error.problems]

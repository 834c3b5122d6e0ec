"""conf/appspec.schema.json, for editors: it may be laxer than the parser, never stricter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
SCHEMA = HERE.parents[1] / "conf" / "appspec.schema.json"
GOOD = [path for path in sorted((HERE / "fixtures").glob("*.yml")) if not path.name.startswith("invalid_")]

# The schema sees values, not how they were written, and knows nothing of the host or of YAML's own mistakes.
BEYOND_SCHEMA = {
    "invalid_acl_default_on_file",
    "invalid_acl_twice",
    "invalid_aliases_that_multiply",
    "invalid_context_category",
    "invalid_context_range",
    "invalid_files_source_outside_and_back",
    "invalid_files_nul_in_destination",
    "invalid_hook_nul_in_argument",
    "invalid_hook_timeout_huge",
    "invalid_hook_timeout_infinite",
    "invalid_merges_that_multiply",
    "invalid_mode_five_digits",
    "invalid_mode_float",
    "invalid_mode_not_octal",
    "invalid_mode_python_octal",
}

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")


def problems_of(text: bytes) -> list[str] | None:
    """What the schema has against a text; None when it is no YAML for a standard reader."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    try:
        document: Any = next(yaml.safe_load_all(text), None)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError):
        return None
    return [error.message for error in validator.iter_errors(document)]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_what_the_agent_accepts_is_valid_in_an_editor(path: Path) -> None:
    """An editor that marks a working AppSpec as wrong makes people change it."""
    assert [] == problems_of(path.read_bytes())


def test_what_the_agent_refuses_is_marked_in_an_editor() -> None:
    """Most mistakes can be found while writing."""
    unnoticed = {
        path.stem
        for path in sorted((HERE / "fixtures").glob("invalid_*.yml"))
        if problems_of(path.read_bytes()) == []
    }

    assert set() == unnoticed - BEYOND_SCHEMA

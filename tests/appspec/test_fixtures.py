"""What an AppSpec means, or what is wrong with it: one fixture for each rule, with its expected outcome."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import pytest

FIXTURES = sorted(Path(__file__).with_name("fixtures").glob("*.yml"))


def _outcome_of(text: bytes) -> dict[str, Any]:
    """The function of the module beside this one: tests are no package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location("appspec_outcome", Path(__file__).with_name("outcome.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outcome: dict[str, Any] = module.outcome_of(text)
    return outcome


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_fixture(path: Path) -> None:
    """Existing bundles must go on to work, and a mistake must be found where it was made."""
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))

    assert expected == _outcome_of(path.read_bytes())


def test_invalid_fixtures_are_those_that_are_called_so() -> None:
    """The name of a fixture says what it is."""
    for path in FIXTURES:
        has_problems = "problems" in json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert has_problems == path.name.startswith("invalid_"), path.name


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"[" * 1_000_000, id="deep"),
        pytest.param(b"{a: " * 200_000, id="deep mappings"),
        pytest.param(b"- " * 500_000, id="deep block lists"),
        pytest.param(
            b"a: &a [x]\n" + b"".join(b"b%d: [*a, *a]\n" % i for i in range(30_000)), id="many aliases"
        ),
        pytest.param(
            b"a0: &a0 [x]\n"
            + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 60)),
            id="alias bomb",
        ),
        pytest.param(b"x" * (1024 * 1024 + 1), id="too large"),
        pytest.param(b"a: 'x\n" + b"y\n" * 500_000, id="unclosed quote"),
        pytest.param(bytes(range(256)) * 4000, id="binary"),
    ],
)
def test_hostile_texts_are_refused_quickly(text: bytes) -> None:
    """Nobody may stop a host's deployments with one odd file."""
    started = time.process_time()

    assert "problems" in _outcome_of(text)

    assert time.process_time() - started < 5

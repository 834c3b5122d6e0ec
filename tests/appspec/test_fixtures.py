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


HEAD = b"version: 0.0\nos: linux\n"


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
        pytest.param(
            HEAD
            + b"x0: &x0 [{location: a}]\n"
            + b"".join(b"x%d: &x%d [*x%d, *x%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 40))
            + b"files: *x39\n",
            id="alias bomb in files",
        ),
        pytest.param(
            b"m0: &m0 {a: 1}\n"
            + b"".join(b"m%d: &m%d {<<: *m%d, b%d: 1}\n" % (i, i, i - 1, i) for i in range(1, 2000)),
            id="merge keys in a chain",
        ),
        pytest.param(
            b"m: &m {" + b", ".join(b"k%d: 1" % i for i in range(1000)) + b"}\n"
            b"x: {<<: [" + b",".join([b"*m"] * 5000) + b"]}\n",
            id="merge keys in a list",
        ),
        pytest.param(bytes(range(256)) * 4000, id="binary"),
        pytest.param(b"\0" * 1_000_000, id="NUL"),
        pytest.param(b"\t" * 1_000_000, id="tabs"),
        pytest.param(b"#\n" * 500_000, id="comments"),
        pytest.param(b"x" * 1_000_000, id="one long word"),
        pytest.param(HEAD + b"k" * 1_000_000 + b": 1\n", id="one long key"),
        pytest.param(b"!" * 1_000_000, id="one long tag"),
        pytest.param(b"? " * 500_000, id="keys of keys"),
        pytest.param(b"k: 1\n" * 200_000, id="one key, repeated"),
        pytest.param(b"".join(b"hook%d: 1\n" % i for i in range(90_000)), id="misspelt keys"),
        pytest.param(HEAD + b"files:\n" + b"- {source: a, destination: b}\n" * 35_000, id="many files"),
        pytest.param(
            HEAD + b"hooks:\n" + b"".join(b" BeforeInstal%d: [x]\n" % i for i in range(14_000)),
            id="misspelt events",
        ),
        pytest.param(
            HEAD + b"environment:\n" + b"".join(b" 1%d: x\n" % i for i in range(29_000)), id="bad names"
        ),
        *[
            pytest.param(HEAD + b"permissions: [{object: a, " + rule % (letter * 900_000), id=rule.decode())
            for rule, letter in [
                (b"mode: %s}]\n", b"u"),
                (b"mode: %s}]\n", b"7"),
                (b"acls: ['%s']}]\n", b"u:"),
                (b"context: {type: a, range: 's0:%s'}}]\n", b"c0,"),
                (b"type: [%s]}]\n", b"file"),
            ]
        ],
        *[
            pytest.param(HEAD + b"hooks: {A: [{location: a, " + rule % (letter * 900_000), id=rule.decode())
            for rule, letter in [
                (b"timeout: %s}]}\n", b"9"),
                (b"timeout: 1%s}]}\n", b" 1"),
                (b"environment: {%s: a}}]}\n", b"1"),
                (b"location: %s/a}]}\n", b"../"),
            ]
        ],
        pytest.param(HEAD + b"os: [" + b"[]," * 30_000 + b"]\n", id="a list for a word"),
    ],
)
def test_hostile_texts_are_refused_quickly(text: bytes) -> None:
    """Nobody may stop a host's deployments with one odd file: a tenth of a second on a host at rest."""
    attempts = [_timed_outcome_of(text) for _attempt in range(3)]

    assert all("problems" in outcome for outcome, _seconds in attempts)
    assert min(seconds for _outcome, seconds in attempts) < 0.5


def _timed_outcome_of(text: bytes) -> tuple[dict[str, Any], float]:
    started = time.process_time()
    return _outcome_of(text), time.process_time() - started


def test_a_large_appspec_is_accepted() -> None:
    """Some builds list each file of a revision."""
    text = (
        HEAD
        + b"files:\n"
        + b"".join(b"- {source: a/%d, destination: /srv/%d}\n" % (i, i) for i in range(10_000))
    )

    assert 10_000 == len(_outcome_of(text)["files"])

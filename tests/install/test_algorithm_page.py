"""docs/install-algorithm.md names the letters, moments, modules and invariants that the code has, and no others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from agent.install.journal.entries import Entry, letter_of
from agent.install.model.moments import Moment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "install-algorithm.md").read_text(encoding="utf-8")
_NUMBER = re.compile(r"\bI\d+\b")


def section(title: str) -> str:
    """The text below this title."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """What stands in the first column of tables, without their heads."""
    return [line.split("|")[1].strip().strip("`") for line in text.splitlines() if line.startswith("| ")][1:]


def test_the_letters_of_the_journal_are_those_of_the_code() -> None:
    """Whoever looks at the journal of a broken host has this page beside it."""
    letters = {letter_of(kind).decode() for kind in get_args(Entry)}
    text = section("The journal")
    rules = re.findall(r"^    (?:begin|note|change) *= (.*?)   ", text, re.MULTILINE)

    assert letters == set(first_cells(text))
    assert letters == set(re.findall(r"\w+", " ".join(rules)))


def test_the_moments_are_those_of_the_code() -> None:
    """Each is one at which an Install was killed by a test, and the page says what that leads to."""
    cells = [line.split("|")[2] for line in section("Moments").splitlines() if line.startswith("| ")]
    named = {name for cell in cells for name in re.findall(r"`([^`]*)`", cell)}
    assert {moment.value for moment in Moment} == named - {"staging"}


def test_the_modules_are_there() -> None:
    """A page that sends its reader to a file that was renamed is no help in the night."""
    named = set(re.findall(r"`([a-z_]+/[a-z_]+\.py)`", PAGE))
    assert named
    assert [] == sorted(name for name in named if not (ROOT / "agent" / "install" / name).exists())


def test_the_names_that_keep_an_invariant_are_there() -> None:
    """The same of functions and classes."""
    named = re.findall(
        r"`([A-Za-z_.]+)`", "".join(line.rpartition(" | ")[2] for line in section("Invariants").splitlines())
    )
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "agent" / "install").rglob("*.py"))
    names = {part for name in named for part in name.split(".")}
    assert names
    assert [] == sorted(
        name for name in names if not re.search(rf"^ *(def|class) {name}\b", text, re.MULTILINE)
    )


def test_each_invariant_is_named_where_it_is_kept_and_where_it_is_tested() -> None:
    """A number finds the place that keeps it, and the tests that would break."""
    numbers = first_cells(section("Invariants"))
    in_code = _numbers_in(ROOT / "agent" / "install")
    in_tests = _numbers_in(ROOT / "tests" / "install") | _numbers_in(ROOT / "tests" / "security" / "install")

    assert [f"I{number}" for number in range(1, len(numbers) + 1)] == numbers
    assert set(numbers) == in_code
    assert set(numbers) == in_tests


def _numbers_in(directory: Path) -> set[str]:
    """Invariants that files below this directory name."""
    return {
        found
        for path in directory.rglob("*.py")
        for found in _NUMBER.findall(path.read_text(encoding="utf-8"))
    }

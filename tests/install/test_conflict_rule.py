"""The conflict rule, all of it: what is at a path, what the AppSpec wants there, and what becomes of it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from agent.install.plan.rule import Action, Cause, Decision, Found, Wanted, decide
from agent.protocol import FileExistsBehavior

DISALLOW, OVERWRITE, RETAIN = (
    FileExistsBehavior.DISALLOW,
    FileExistsBehavior.OVERWRITE,
    FileExistsBehavior.RETAIN,
)
FILE, DIRECTORY = Wanted.FILE, Wanted.DIRECTORY
ADD, REPLACE, KEEP, STAYS = Action.ADD, Action.REPLACE, Action.KEEP, Action.RETAIN
RULE, KIND, LINK, AGENT, APPSPEC = Cause.RULE, Cause.KIND, Cause.LINK, Cause.AGENT, Cause.APPSPEC

TABLE: list[tuple[Found, Wanted, Decision, Decision, Decision]] = [
    # at the path                 wanted     DISALLOW OVERWRITE RETAIN
    (Found.NOTHING,               FILE,      ADD,     ADD,      ADD),
    (Found.OUR_FILE,              FILE,      REPLACE, REPLACE,  REPLACE),
    (Found.FOREIGN_FILE,          FILE,      RULE,    REPLACE,  STAYS),
    (Found.LINK_TO_DIRECTORY,     FILE,      RULE,    REPLACE,  STAYS),
    (Found.LINK_NOT_FOLLOWED,     FILE,      RULE,    REPLACE,  STAYS),
    (Found.OUR_DIRECTORY,         FILE,      REPLACE, REPLACE,  REPLACE),
    (Found.OUR_DIRECTORY_IN_USE,  FILE,      KIND,    KIND,     STAYS),
    (Found.FOREIGN_DIRECTORY,     FILE,      KIND,    KIND,     STAYS),
    (Found.AGENTS_DIRECTORY,      FILE,      AGENT,   AGENT,    STAYS),
    (Found.PLANNED_FILE,          FILE,      APPSPEC, APPSPEC,  APPSPEC),
    (Found.PLANNED_DIRECTORY,     FILE,      APPSPEC, APPSPEC,  APPSPEC),
    (Found.PLANNED_DIRECTORY_OF_OTHERS, FILE, APPSPEC, APPSPEC, STAYS),
    (Found.MET_BEFORE,            FILE,      APPSPEC, APPSPEC,  STAYS),

    (Found.NOTHING,               DIRECTORY, ADD,     ADD,      ADD),
    (Found.OUR_FILE,              DIRECTORY, REPLACE, REPLACE,  REPLACE),
    (Found.FOREIGN_FILE,          DIRECTORY, KIND,    KIND,     KIND),
    (Found.LINK_TO_DIRECTORY,     DIRECTORY, KEEP,    KEEP,     KEEP),
    (Found.LINK_NOT_FOLLOWED,     DIRECTORY, LINK,    LINK,     LINK),
    (Found.OUR_DIRECTORY,         DIRECTORY, KEEP,    KEEP,     KEEP),
    (Found.OUR_DIRECTORY_IN_USE,  DIRECTORY, KEEP,    KEEP,     KEEP),
    (Found.FOREIGN_DIRECTORY,     DIRECTORY, KEEP,    KEEP,     KEEP),
    (Found.AGENTS_DIRECTORY,      DIRECTORY, AGENT,   AGENT,    AGENT),
    (Found.PLANNED_FILE,          DIRECTORY, APPSPEC, APPSPEC,  APPSPEC),
    (Found.PLANNED_DIRECTORY,     DIRECTORY, KEEP,    KEEP,     KEEP),
    (Found.PLANNED_DIRECTORY_OF_OTHERS, DIRECTORY, KEEP, KEEP,  KEEP),
    (Found.MET_BEFORE,            DIRECTORY, APPSPEC, APPSPEC,  KEEP),
]  # fmt: skip

DOCUMENT = Path(__file__).parents[2] / "docs" / "appspec.md"
WORDS = {
    FILE: {ADD: "is put there", REPLACE: "replaces it", STAYS: "is left out"},
    DIRECTORY: {ADD: "is created", REPLACE: "replaces it", KEEP: "is used"},
}


@pytest.mark.parametrize(("found", "wanted", "disallow", "overwrite", "retain"), TABLE)
def test_the_rule(
    found: Found, wanted: Wanted, disallow: Decision, overwrite: Decision, retain: Decision
) -> None:
    """Whoever asks what becomes of something that is already there finds the answer in one line."""
    decided = [decide(found, wanted, behavior) for behavior in (DISALLOW, OVERWRITE, RETAIN)]
    assert [disallow, overwrite, retain] == decided


def test_the_table_has_every_case_once() -> None:
    """A case that nobody has thought of is decided by accident."""
    assert sorted(
        ((found.name, wanted.name) for found, wanted in itertools.product(Found, Wanted))
    ) == sorted((found.name, wanted.name) for found, wanted, *_decisions in TABLE)


def test_the_document_shows_the_same() -> None:
    """Whoever writes an AppSpec decides by that table what may be lost on a host."""
    rows = [
        "| at the path is | a file or link of the revision | a directory of the revision |",
        "|---|---|---|",
        *(f"| {found.value} | {cell(found, FILE)} | {cell(found, DIRECTORY)} |" for found in Found),
    ]
    assert "\n".join(rows) in DOCUMENT.read_text(encoding="utf-8")


def cell(found: Found, wanted: Wanted) -> str:
    """What becomes of it, for each value of `file_exists_behavior` that makes a difference."""
    values: dict[str, list[str]] = {}
    for behavior in (DISALLOW, OVERWRITE, RETAIN):
        decision = decide(found, wanted, behavior)
        words = "conflict" if isinstance(decision, Cause) else WORDS[wanted][decision]
        values.setdefault(words, []).append(f"`{behavior.value}`")
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{', '.join(names)}: {words}" for words, names in values.items())

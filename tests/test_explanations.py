"""Every error id that somebody may meet in a report or a log is explained, and no other."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import agent
from agent.errors import AgentError, CommandFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "agent/cli/explanations").glob("*.yml"))
# Classes of errors whose first argument is the id.
TAKE_ID = ("CommandFailure", "HostNotReady")
PARTS = ("summary", "cause", "remedy")


def error_ids() -> dict[str, str]:
    """Each id in the sources of the agent, with a place where it stands."""
    found = {}
    for path in sorted((ROOT / "agent").rglob("*.py")):
        for line, error_id in _error_ids_of(ast.parse(path.read_text(encoding="utf-8"))):
            found[error_id] = f"{path.relative_to(ROOT)}:{line}"
    return found


def raised_classes() -> set[str]:
    """Names of all classes of errors that are made somewhere in the sources."""
    made = set()
    for path in sorted((ROOT / "agent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                made.add(_name(node.func))
    return made


def error_classes(parent: type[AgentError] = AgentError) -> Iterator[type[AgentError]]:
    """The whole error tree, wherever its classes are defined."""
    yield parent
    for child in parent.__subclasses__():
        yield from error_classes(child)


def _error_ids_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Ids are literals, so that they can be found by looking: arguments of errors, `error_id=`, and tables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _ids_of_call(node)
        elif isinstance(node, (ast.ClassDef, ast.Module)):
            # Not what a function calls so.
            for statement in node.body:
                if isinstance(statement, ast.Assign):
                    yield from _ids_of_assignment(statement)


def _ids_of_call(call: ast.Call) -> Iterator[tuple[int, str]]:
    first = call.args[0] if call.args else None
    is_literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
    is_init = isinstance(call.func, ast.Attribute) and call.func.attr == "__init__"
    takes_id = _name(call.func) in TAKE_ID
    if takes_id and first is not None and not is_literal:
        said = ast.unparse(first)
        is_handed_on = said in {"error.error_id", "failure.error_id", "error_id"}
        assert is_handed_on or said.startswith("ERROR_IDS["), said
    elif is_literal and (takes_id or is_init):
        # The latter: an error class that gives its own id to its parent.
        assert isinstance(first, ast.Constant)
        yield call.lineno, str(first.value)
    for keyword in call.keywords:
        if keyword.arg == "error_id" and isinstance(keyword.value, ast.Constant) and keyword.value.value:
            yield keyword.value.lineno, str(keyword.value.value)


def _ids_of_assignment(assignment: ast.Assign) -> Iterator[tuple[int, str]]:
    names = [_name(target) for target in assignment.targets]
    if names == ["error_id"]:
        values = [assignment.value]
    elif names == ["ERROR_IDS"]:
        # A table, for errors of one kind.
        assert isinstance(assignment.value, ast.Dict)
        values = assignment.value.values
    else:
        return
    for value in values:
        assert isinstance(value, ast.Constant), ast.unparse(value)
        if value.value:
            yield value.lineno, str(value.value)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def explained() -> dict[str, dict[str, str]]:
    """All entries of all files."""
    entries: dict[str, dict[str, str]] = {}
    for path in FILES:
        entries.update(yaml.safe_load(path.read_text(encoding="utf-8")))
    return entries


def test_every_error_id_is_explained() -> None:
    """The id in a report is all that somebody at 3 a.m. has to go on."""
    entries = explained()
    assert {} == {error_id: place for error_id, place in error_ids().items() if error_id not in entries}


def test_nothing_is_explained_that_never_happens() -> None:
    """Who looks for the cause of a fault must not be sent after one that is gone."""
    assert set() == set(explained()) - set(error_ids())


def test_every_class_of_errors_that_is_raised_has_an_id_that_is_explained_and_no_other_has_one() -> None:
    """A log line or a message that ends with nothing to look up helps nobody."""
    for info in pkgutil.walk_packages(agent.__path__, "agent."):
        if not info.name.endswith(("__main__", "._batched")):  # the latter is a library, not a module
            importlib.import_module(info.name)
    raised, entries = raised_classes(), explained()
    tree = [kind for kind in error_classes() if not issubclass(kind, CommandFailure)]
    without = {kind.__name__ for kind in tree if kind.__name__ in raised and kind.error_id not in entries}
    assert set() == without
    # The ids of a class that nobody raises would be explained for nothing.
    ids_of_raised = {kind.error_id for kind in tree if kind.__name__ in raised}
    assert set() == {kind.error_id for kind in tree if kind.error_id} - ids_of_raised


@pytest.mark.parametrize("room", ["daemon", "worker"])
def test_a_log_line_about_one_of_our_errors_has_its_id(room: str) -> None:
    """`error=error.message` without `error_id=` leaves out what `agentctl explain` takes."""
    without = []
    for path in sorted((ROOT / "agent" / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            facts = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if facts.get("error", "").endswith(".message") and "error_id" not in facts:
                without.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert [] == without


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_explanation_has_all_its_parts_and_each_says_something(path: Path) -> None:
    """What happened, why, and what to do: whole sentences."""
    for error_id, texts in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        assert set(PARTS) == set(texts), error_id
        for part in PARTS:
            text = texts[part].strip()
            assert len(text.split()) >= 4, f"{error_id}: {part}"
            assert text.endswith((".", ".)", "?")), f"{error_id}: {part}"
        assert 1 == len(texts["summary"].strip().splitlines()), error_id


def test_no_id_is_explained_in_two_files() -> None:
    """One of the two would never be shown."""
    seen: dict[str, str] = {}
    for path in FILES:
        for error_id in yaml.safe_load(path.read_text(encoding="utf-8")):
            assert error_id not in seen, f"{error_id} in {seen.get(error_id)} and {path.name}"
            seen[error_id] = path.name

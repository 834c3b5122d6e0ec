"""What has grown too large to be read at one go: a part of it has a job of its own by then."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAMS = ("agent", "controlplane")
MOST_LINES_OF_FILE, MOST_LINES_OF_CLASS = 400, 200


def classes_over(limit: int, source: str) -> list[str]:
    """Names of the classes that take more lines than that, decorators not counted, with how many."""
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    lengths = {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in classes}
    return [f"{name}: {length}" for name, length in lengths.items() if length > limit]


def test_files_and_classes_of_the_programs_can_be_read_at_one_go() -> None:
    """Whoever looks for a rule at night reads one file, and holds one class in mind."""
    sources = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for program in PROGRAMS
        for path in (ROOT / program).rglob("*.py")
    }
    files = [name for name, source in sources.items() if source.count("\n") > MOST_LINES_OF_FILE]
    classes = [
        f"{name}: {found}"
        for name, source in sources.items()
        for found in classes_over(MOST_LINES_OF_CLASS, source)
    ]

    assert len(sources) > 300
    assert ([], []) == (files, classes)


def test_a_class_that_is_too_long_is_seen_wherever_it_is() -> None:
    """Also one in another one, and one in a function."""
    source = "class A:\n    class B:\n        x = 1\n        y = 2\ndef f():\n    class C:\n        x = 1\n        y = 2\n"
    assert ["A: 4", "B: 3", "C: 3"] == classes_over(2, source)
    assert ["A: 4"] == classes_over(3, source)

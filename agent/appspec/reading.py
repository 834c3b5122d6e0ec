"""Typed access to the nodes of a document, collecting every problem instead of stopping at the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.appspec.document import MAX_NODES, Mapping, Scalar, Sequence
from agent.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from agent.appspec.document import Node


class TooManyProblems(Exception):
    """There is no point in going on: the list of problems is long enough."""


class Reading:
    """One pass over a document: what is wrong with it, and what looks odd.

    `problems` and `warnings` grow while the sections are read. A method that finds something
    wrong notes it and answers None, so that its caller can go on with the next key.
    """

    MAX_PROBLEMS = 50

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._steps = 0

    def refuse(self, node: Node, message: str) -> None:
        """Note a problem at this node."""
        self._refuse(Problem(message=message, line=node.line, column=node.column))

    def warn(self, node: Node, message: str) -> None:
        """Note something that is ignored, or hardly meant so."""
        if len(self.warnings) < self.MAX_PROBLEMS:
            self.warnings.append(Problem(message=message, line=node.line, column=node.column))

    def mapping(self, node: Node, what: str, known: tuple[str, ...]) -> dict[str, Node] | None:
        """Values by key, without those that hold nothing; unknown and repeated keys are warned about."""
        self._count(node)
        if not isinstance(node, Mapping):
            self.refuse(
                node, f"{what} must be a mapping with keys such as {listed(known[:3])}, not {kind_of(node)}"
            )
            return None
        self._warn_repeated(node, what)
        values: dict[str, Node] = {}
        for key, value in node.items:
            self._count(value)
            if key.text not in known:
                self.warn(
                    key,
                    f"{what} has an unknown key {quoted(key.text)}, which is ignored{nearest(key.text, known)}",
                )
            elif not is_nothing(value):
                values[key.text] = value
        return values

    def entries(self, node: Node, what: str) -> list[tuple[Scalar, Node]]:
        """Pairs of a mapping whose keys are free; empty when there is nothing, or no mapping."""
        self._count(node)
        if is_nothing(node):
            return []
        if not isinstance(node, Mapping):
            self.refuse(node, f"{what} must be a mapping, not {kind_of(node)}")
            return []
        self._warn_repeated(node, what)
        for _key, value in node.items:
            self._count(value)
        return list(node.items)

    def items(self, node: Node, what: str, of_what: str) -> Iterable[Node]:
        """Items of a list; empty when there is nothing, or no list."""
        self._count(node)
        if is_nothing(node):
            return ()
        if not isinstance(node, Sequence):
            hint = "start each entry with '- '"
            self.refuse(node, f"{what} must be a list of {of_what}, not {kind_of(node)}; {hint}")
            return ()
        for item in node.items:
            self._count(item)
        return node.items

    def text(self, node: Node, what: str) -> str | None:
        """A single value as it was written."""
        if not isinstance(node, Scalar) or node.is_null:
            self.refuse(node, f"{what} must be a text, not {kind_of(node)}")
            return None
        if "\0" in node.text:
            self.refuse(node, f"{what} holds a NUL character")
            return None
        return node.text

    def nonempty(self, node: Node, what: str) -> str | None:
        """The same, and not empty."""
        text = self.text(node, what)
        if text is not None and not text.strip():
            self.refuse(node, f"{what} must not be empty")
            return None
        return text

    def texts(self, node: Node, what: str) -> tuple[str, ...] | None:
        """A list of single values."""
        before = len(self.problems)
        found = [self.text(item, f"each item of {what}") for item in self.items(node, what, "texts")]
        return None if len(self.problems) > before else tuple(text for text in found if text is not None)

    def required(self, node: Node, values: dict[str, Node], key: str, what: str) -> Node | None:
        """The value of a key that has to be there."""
        if key not in values:
            self.refuse(node, f"{what} has no {quoted(key)}{self._near_miss(node, key)}")
        return values.get(key)

    def _near_miss(self, node: Node, key: str) -> str:
        """The key may be there in another spelling, which was only warned about."""
        for written, _value in node.items if isinstance(node, Mapping) else ():
            if written.text != key and nearest(written.text, (key,)):
                return f"; is {quoted(written.text)} in line {written.line} meant to be it?"
        return ""

    def _warn_repeated(self, node: Mapping, what: str) -> None:
        for key in node.repeated:
            self.warn(key, f"{what} has the key {quoted(key.text)} twice; the last one counts")

    def _refuse(self, problem: Problem) -> None:
        self.problems.append(problem)
        if len(self.problems) >= self.MAX_PROBLEMS:
            raise TooManyProblems

    def _count(self, node: Node) -> None:
        """Aliases can make a small file huge: the same list may hang in a thousand places."""
        self._steps += 1
        if self._steps > MAX_NODES:
            self.refuse(node, f"with its aliases the file holds more than {MAX_NODES} values")
            raise TooManyProblems


def is_nothing(node: Node) -> bool:
    """Whether the key is there, but has no value."""
    return isinstance(node, Scalar) and node.is_null


def kind_of(node: Node) -> str:
    """What this is, for a message."""
    match node:
        case Scalar(is_null=True):
            return "nothing"
        case Scalar(text=text):
            return f"the single value {quoted(text)}"
        case Sequence():
            return "a list"
        case Mapping():
            return "a mapping"


def quoted(text: str, width: int = 80) -> str:
    """The text for a message: in quotes, shortened, and without control characters."""
    short = text if len(text) <= width else text[: width - 1] + "…"
    return "'" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in short) + "'"


def listed(names: Collection[str]) -> str:
    """`a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def nearest(name: str, known: Collection[str]) -> str:
    """`; did you mean 'x'?` when a known name is near, else an empty text."""
    # Only a file with a mistake needs it.
    from difflib import get_close_matches  # noqa: PLC0415

    by_lower = {candidate.lower(): candidate for candidate in known}
    found = get_close_matches(name[:80].lower(), by_lower, n=1, cutoff=0.7)
    return f"; did you mean {quoted(by_lower[found[0]])}?" if found else ""

"""Typed access to the nodes of a document, collecting every problem instead of stopping at the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.appspec.document import MAX_NODES, MERGE, Mapping, Scalar, Sequence
from agent.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from agent.appspec.document import Node


_CONFIDENTIAL = frozenset({"environment"})
# Keys that existing agents ignore, whatever stands there: nothing there may keep a deployment from them or us.
OWN_KEYS = frozenset({"environment", "args", "login"})
_FALSE = frozenset({"false", "no", "off"})
_ODD_KEY = "can't be a key here; if a text in brackets or braces is meant, put it in quotes"


class TooManyProblems(Exception):
    """There is no point in going on: the list of problems is long enough."""


class Reading:
    """One pass over a document: what is wrong with it, and what looks odd.

    `problems` and `warnings` grow while the sections are read. A method that finds something
    wrong notes it and answers None, so that its caller can go on with the next key. `lost` are
    those of the warnings that are about something that was meant to be carried out, and will not be.
    """

    MAX_PROBLEMS = 50
    MAX_HINTS = 100

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.lost: list[Problem] = []
        self._steps = 0
        self._refused: set[tuple[int, int]] = set()
        self._hints: dict[tuple[str, tuple[str, ...]], str] = {}

    def refuse(self, node: Node, message: str) -> None:
        """Note a problem at this node, unless it should not be read at all."""
        if (node.line, node.column) in self._refused:
            return
        self._refuse(Problem(message=message, line=node.line, column=node.column))

    def warn(self, node: Node, message: str) -> None:
        """Note something that is ignored, or hardly meant so."""
        if len(self.warnings) < self.MAX_PROBLEMS:
            self.warnings.append(Problem(message=message, line=node.line, column=node.column))

    def warn_of_loss(self, node: Node, message: str) -> None:
        """Note that something will not be carried out, though its author hardly wrote it for nothing."""
        self.warn(node, message)
        self.lose(node, message)

    def lose(self, node: Node, message: str) -> None:
        """Note that something will not be carried out, of which `warnings` say so already."""
        if len(self.lost) < self.MAX_PROBLEMS:
            self.lost.append(Problem(message=message, line=node.line, column=node.column))

    def read(self, node: Node) -> Node:
        """The node, with a note on it if it is not fit to be read, or not all of it is."""
        if node.refusal:
            self.refuse(node, node.refusal)
            self._refused.add((node.line, node.column))
        elif node.remark:
            self.warn(node, node.remark)
        return node

    def unless_false(self, values: dict[str, Node], key: str) -> Node | None:
        """The value of this key; None also when it is `false`, which agents take for nothing in some places."""
        node = values.get(key)
        if isinstance(node, Scalar) and node.text.lower() in _FALSE:
            self.warn(node, f"{key} can't be {quoted(node.text)}; it is taken for nothing")
            return None
        return node

    def nearest(self, name: str, known: Collection[str]) -> str:
        """`; did you mean 'x'?` or an empty text, see the function of this name; empty after the first hundred names."""
        # Comparing costs 50 µs a name: a file of nothing but odd names would cost seconds.
        key = (name, tuple(known))
        if key not in self._hints and len(self._hints) < self.MAX_HINTS:
            self._hints[key] = nearest(name, known)
        return self._hints.get(key, "")

    def mapping(
        self, node: Node, what: str, known: tuple[str, ...], also: Collection[str] = ()
    ) -> dict[str, Node] | None:
        """Values by key, without those that hold nothing; unknown and repeated keys are warned about.

        `also` are keys that have no meaning here, but about which the caller has more to say.
        """
        self._count(node)
        if not isinstance(node, Mapping):
            keys = listed(known[:3], "and")
            self.refuse(node, f"{what} must be a mapping with keys such as {keys}, not {kind_of(node)}")
            return None
        for key in node.repeated:
            self.warn(key, _repeated(key, what))
        for odd in node.odd_keys:
            self.warn(odd, f"{what} has a key that is ignored: {_kind(odd)} {_ODD_KEY}")
        values: dict[str, Node] = {}
        for key, value in node.items:
            self._count(value)
            if key.text in known or key.text in also:
                self.read(key)
                if key.text in OWN_KEYS and value.refusal:
                    self.warn(value, f"{key.text} is ignored: {value.refusal}")
                elif not is_nothing(self.read(value)):
                    values[key.text] = value
            elif key.text == MERGE:
                self.warn(key, f"{what} has a << that is ignored: it takes a mapping, or a list of mappings")
            else:
                hint = self.nearest(key.text, known)
                self.warn(key, f"{what} has an unknown key {quoted(key.text)}, which is ignored{hint}")
        return values

    def entries(self, node: Node, what: str, form: str) -> list[tuple[Scalar, Node]]:
        """Pairs of a mapping whose keys are free; empty when there is nothing, or no mapping."""
        self._count(node)
        if is_nothing(node):
            return []
        if not isinstance(node, Mapping):
            self.refuse(node, f"{what} must be a mapping, not {kind_of(node)}; {form}")
            return []
        for key in node.repeated:
            self.warn_of_loss(key, _repeated(key, what))
        for odd in node.odd_keys:
            self.refuse(odd, f"{_kind(odd)} {_ODD_KEY}")
        for key, value in node.items:
            self._count(value)
            self.read(key)
            self.read(value)
        return list(node.items)

    def items(self, node: Node, what: str, of_what: str) -> Iterable[Node]:
        """Items of a list; empty when there is nothing, or no list."""
        self._count(node)
        if is_nothing(node) or (isinstance(node, Mapping) and not node.items):
            return ()
        if not isinstance(node, Sequence):
            hint = "start each entry with '- '"
            self.refuse(node, f"{what} must be a list of {of_what}, not {kind_of(node)}; {hint}")
            return ()
        for item in node.items:
            self._count(item)
            self.read(item)
        return node.items

    def text(self, node: Node, what: str) -> str | None:
        """A single value as it was written."""
        if not isinstance(node, Scalar) or node.is_null:
            self.refuse(node, f"{what} must be a text, not {kind_of(node)}{_braces_hint(node)}")
            return None
        if "\0" in node.text:
            self.refuse(node, f"{what} holds a NUL character: {quoted(node.text)}")
            return None
        return node.text

    def nonempty(self, node: Node, what: str) -> str | None:
        """A single value as it was written, which must hold more than blanks."""
        text = self.text(node, what)
        if text is not None and not text.strip():
            self.refuse(node, f"{what} must not be empty or blank, but it is {quoted(text)}")
            return None
        return text

    def trimmed(self, node: Node, what: str) -> str | None:
        """A single value without the blanks and line ends around it, which a block of YAML (`|`, `>`) brings along."""
        text = self.nonempty(node, what)
        return None if text is None else text.strip()

    def texts(self, node: Node, what: str) -> tuple[str, ...] | None:
        """A list of single values."""
        before = len(self.problems)
        found = [self.text(item, f"each item of {what}") for item in self.items(node, what, "texts")]
        return None if len(self.problems) > before else tuple(text for text in found if text is not None)

    def required(
        self, node: Node, values: dict[str, Node], key: str, what: str, *, expected: str
    ) -> Node | None:
        """The value of a key that has to be there; `expected` is what to write."""
        if key in values:
            return values[key]
        for written, _value in node.items if isinstance(node, Mapping) else ():
            if written.text == key:
                self.refuse(written, f"{quoted(key)} has no value; write {expected}")
                return None
        hint = self._near_miss(node, key) or f"; add {expected}"
        self.refuse(node, f"{what} has no {quoted(key)}{hint}")
        return None

    def _near_miss(self, node: Node, key: str) -> str:
        """The key may be there in another spelling, which was only warned about."""
        for written, _value in node.items if isinstance(node, Mapping) else ():
            if written.text != key and self.nearest(written.text, (key,)):
                return f"; is {quoted(written.text)} in line {written.line} meant to be it?"
        return ""

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


def _braces_hint(node: Node) -> str:
    """For `{{ name }}` and `{name}`, which YAML takes for mappings."""
    if isinstance(node, Mapping) and all(is_nothing(value) for _key, value in node.items):
        return "; if a text in braces is meant, put it in quotes"
    return ""


def _repeated(key: Scalar, what: str) -> str:
    return f"{what} has the key {quoted(key.text)} twice; the last one counts"


def _kind(node: Node) -> str:
    return "a list" if isinstance(node, Sequence) else "a mapping" if isinstance(node, Mapping) else "a value"


def kind_of(node: Node) -> str:
    """What this is, for a message, with what it holds."""
    match node:
        case Scalar(is_null=True):
            return "nothing"
        case Scalar(text=text):
            return f"the single value {quoted(text)}"
        case Sequence():
            return f"the list {as_written(node)}"
        case Mapping():
            return f"the mapping {as_written(node)}"


def as_written(node: Node, width: int = 80) -> str:
    """The node in one line such as `{location: 'a.sh', timeout: '5'}`, shortened."""
    line = ""
    # Aliases can make a node endless to write down, so it is written no further than it is shown.
    for piece in _pieces(node):
        line += piece
        if len(line) > width:
            return line[: width - 1] + "…"
    return line


def _pieces(node: Node) -> Iterator[str]:
    match node:
        case Scalar(is_null=True):
            yield "null"
        case Scalar(text=text):
            yield quoted(text)
        case Sequence(items=items):
            yield "["
            for index, item in enumerate(items):
                yield ", " if index else ""
                yield from _pieces(item)
            yield "]"
        case Mapping(items=pairs, odd_keys=odd_keys):
            yield "{"
            for odd in odd_keys:
                yield from _pieces(odd)
            for index, (key, value) in enumerate(pairs):
                yield f"{', ' if index else ''}{_plain(key.text)}: "
                if key.text in _CONFIDENTIAL:
                    yield "***"
                else:
                    yield from _pieces(value)
            yield "}"


def quoted(text: str, width: int = 80) -> str:
    """The text for a message: in quotes, shortened, and without control characters."""
    return f"'{_plain(text, width)}'"


def _plain(text: str, width: int = 80) -> str:
    short = text if len(text) <= width else text[: width - 1] + "…"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in short)


def listed(names: Collection[str], conjunction: str = "or") -> str:
    """`a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def nearest(name: str, known: Collection[str]) -> str:
    """`; did you mean 'x'?` when a known name is near, else an empty text."""
    # Only a file with a mistake needs it.
    from difflib import get_close_matches  # noqa: PLC0415

    by_lower = {candidate.lower(): candidate for candidate in known}
    found = get_close_matches(name[:80].lower(), by_lower, n=1, cutoff=0.7)
    return f"; did you mean {quoted(by_lower[found[0]])}?" if found else ""

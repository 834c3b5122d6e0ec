"""AppSpec text → a tree of nodes that know their place and keep scalars as they were written.

YAML's own idea of values is not used: it reads `0644` as 420 and `on` as a truth value. What a
scalar means is for the key to say that it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from agent.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_NODES = 100_000

_MERGE = "<<"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_CORE = "tag:yaml.org,2002:"
_CORE_TAGS = frozenset(_CORE + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))


class DocumentProblem(Exception):
    """The text can't be read at all; `problem` says why, and where."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A single value. `is_null` is true for nothing at all, `~` and `null` without quotes."""

    text: str
    is_null: bool
    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Keys and values, in the order of the file; merge keys (`<<`) are resolved already."""

    items: tuple[tuple[Scalar, Node], ...]
    line: int
    column: int
    repeated: tuple[Scalar, ...] = ()
    """Keys that came a second time: the last one counts."""


Node: TypeAlias = Scalar | Sequence | Mapping


def read_document(text: bytes) -> tuple[Node | None, bool]:
    """The first document of the text, and whether more documents follow it.

    None means that there is nothing but comments. An alias is the very node that it names, so a
    tree may hold one node in several places; a walk has to count its steps.

    Raises:
        DocumentProblem: not UTF-8, not YAML, too large, too deep, or with tags of a language.
    """
    if len(text) > MAX_BYTES:
        raise DocumentProblem(
            Problem(message=f"it is larger than {MAX_BYTES // 1024} KiB ({len(text)} bytes)")
        )
    decoded = _decoded(text)
    # PyYAML costs some 10 ms and 4 MB: only who reads an AppSpec pays for it.
    import yaml  # noqa: PLC0415

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        composer = _Composer(yaml.parse(decoded, Loader=loader), yaml)
        return composer.document(), composer.has_more()
    except yaml.YAMLError as error:
        raise DocumentProblem(_explained(error, decoded)) from error


def _decoded(text: bytes) -> str:
    encoding = "utf-16" if text.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return text.decode(encoding)
    except UnicodeDecodeError as error:
        before = text[: error.start]
        message = "this is not UTF-8 text; save the file as UTF-8"
        if encoding == "utf-16":
            raise DocumentProblem(
                Problem(message="this is not UTF-16 text; save the file as UTF-8")
            ) from error
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise DocumentProblem(Problem(message=message, line=line, column=column)) from error


def _explained(error: Any, text: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return _unprintable(error, text)
    line, column = mark.line + 1, mark.column + 1
    lines = text.splitlines()
    written = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        message = "this line is indented with a tab; YAML allows only spaces there"
        return Problem(message=message, line=line, column=written.index("\t") + 1)
    context = f" {error.context}" if error.context else ""
    return Problem(
        message=f"this is not valid YAML:{context} {error.problem}".strip(), line=line, column=column
    )


def _unprintable(error: Any, text: str) -> Problem:
    """YAML forbids most control characters, and tells only how far into the text it found one."""
    position = getattr(error, "position", None)
    if not isinstance(position, int) or position < 0:
        return Problem(message="this is not valid YAML")
    before = text[:position]
    return Problem(
        message="there is a control character here, which YAML does not allow (is this a text file?)",
        line=before.count("\n") + 1,
        column=len(before) - before.rfind("\n"),
    )


class _Composer:
    """Builds nodes from parser events, with limits that the parser itself does not have."""

    def __init__(self, events: Iterator[Any], yaml: Any) -> None:
        self._events = events
        self._yaml = yaml
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def document(self) -> Node | None:
        for event in self._events:
            if isinstance(event, self._yaml.NodeEvent):
                node = self._node(event, 0)
                next(self._events)  # the end of the document
                return node
            if isinstance(event, self._yaml.DocumentEndEvent | self._yaml.StreamEndEvent):
                return None
        return None

    def has_more(self) -> bool:
        return not isinstance(next(self._events, None), self._yaml.StreamEndEvent | None)

    def _node(self, event: Any, depth: int) -> Node:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        self._count(line, column, depth)
        if isinstance(event, self._yaml.AliasEvent):
            return self._alias(event.anchor, line, column)
        self._check_tag(event, line, column)
        node: Node
        if isinstance(event, self._yaml.ScalarEvent):
            plain = not event.style and event.tag in {None, f"{_CORE}null"}
            node = Scalar(text=event.value, is_null=plain and event.value in _NULLS, line=line, column=column)
        elif isinstance(event, self._yaml.SequenceStartEvent):
            node = Sequence(items=tuple(self._children(depth)), line=line, column=column)
        else:
            node = self._mapping(list(self._children(depth)), line, column)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _children(self, depth: int) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, self._yaml.SequenceEndEvent | self._yaml.MappingEndEvent):
                return
            yield self._node(event, depth + 1)

    def _alias(self, anchor: str, line: int, column: int) -> Node:
        if anchor not in self._anchors:
            message = f"the alias *{anchor} stands for an anchor that does not come before it"
            raise DocumentProblem(Problem(message=message, line=line, column=column))
        return self._anchors[anchor]

    def _mapping(self, children: list[Node], line: int, column: int) -> Mapping:
        own: dict[str, tuple[Scalar, Node]] = {}
        merged: dict[str, tuple[Scalar, Node]] = {}
        repeated = []
        for key, value in zip(children[::2], children[1::2], strict=True):
            if not isinstance(key, Scalar):
                message = "a list or a mapping can't be a key here"
                raise DocumentProblem(Problem(message=message, line=key.line, column=key.column))
            if key.text == _MERGE:
                self._merge(merged, value)
                continue
            if key.text in own:
                repeated.append(key)
            own[key.text] = (key, value)
        both = {**{name: item for name, item in merged.items() if name not in own}, **own}
        return Mapping(items=tuple(both.values()), line=line, column=column, repeated=tuple(repeated))

    def _merge(self, merged: dict[str, tuple[Scalar, Node]], value: Node) -> None:
        """Earlier sources win over later ones, as YAML's merge key wants it."""
        for source in value.items if isinstance(value, Sequence) else (value,):
            if not isinstance(source, Mapping):
                message = "<< takes a mapping, or a list of mappings"
                raise DocumentProblem(Problem(message=message, line=value.line, column=value.column))
            for key, item in source.items:
                self._count(key.line, key.column, 0)
                merged.setdefault(key.text, (key, item))

    def _count(self, line: int, column: int, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            message = f"the file holds more than {MAX_NODES} values"
            raise DocumentProblem(Problem(message=message, line=line, column=column))
        if depth > MAX_DEPTH:
            message = f"values are nested more than {MAX_DEPTH} deep"
            raise DocumentProblem(Problem(message=message, line=line, column=column))

    def _check_tag(self, event: Any, line: int, column: int) -> None:
        if event.tag in {None, "!"} or event.tag in _CORE_TAGS:
            return
        message = f"the tag {event.tag} is not allowed in an AppSpec"
        raise DocumentProblem(Problem(message=message, line=line, column=column))

"""AppSpec text → a tree of nodes that know their place and keep scalars as they were written.

YAML's own idea of values is not used: it reads `0644` as 420 and `on` as a truth value. What a
scalar means is for the key to say that it belongs to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from agent.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
# Some 10,000 entries of `files`. A hostile text gets there in a tenth of a second.
MAX_NODES = 51_000

MERGE = "<<"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_INDICATORS = "*&@`%"
_CORE = "tag:yaml.org,2002:"
_CORE_TAGS = frozenset(_CORE + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))
# With one of these, nothing is not null.
_VALUE_TAGS = _CORE_TAGS - {_CORE + "null"} | {"!"}
# What these make of a value is not what is written: an object of a program, or decoded bytes.
_CHANGING_TAG = re.compile(
    rf"(!|{_CORE})((ruby|python|perl|java|javax|js|php|lua)/.*|binary|set|omap|pairs|timestamp)", re.DOTALL
)
_CONFLICT = re.compile(r"^(<{7}|\|{7}|={7}|>{7})(?: .*)?\r?$", re.MULTILINE)


class DocumentProblem(Exception):
    """The text can't be read at all; `problem` says why, and where."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A single value. `is_null` is true for nothing at all, `~` and `null` without quotes.

    Attributes:
        is_plain: it stands there without quotes, and is no block of text.
        refusal: why nobody may read this node. Where nobody does, it does no harm.
        remark: what whoever reads it should know.
    """

    text: str
    is_null: bool
    line: int
    column: int
    is_plain: bool = True
    refusal: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A list; `refusal` and `remark` as for a single value."""

    items: tuple[Node, ...]
    line: int
    column: int
    refusal: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Keys and values, in the order of the file; merge keys (`<<`) are resolved already.

    Attributes:
        repeated: keys that came a second time: the last one counts.
        odd_keys: lists and mappings that stand where a key should; their values are left out.
    """

    items: tuple[tuple[Scalar, Node], ...]
    line: int
    column: int
    repeated: tuple[Scalar, ...] = ()
    odd_keys: tuple[Node, ...] = ()
    refusal: str = ""
    remark: str = ""


Node: TypeAlias = Scalar | Sequence | Mapping


def read_document(text: bytes) -> tuple[Node | None, bool]:
    """The first document of the text, and whether more documents follow it.

    None means that there is nothing but comments. An alias is the very node that it names, so a
    tree may hold one node in several places; a walk has to count its steps.

    Raises:
        DocumentProblem: not UTF-8, not YAML, or too large.
    """
    if len(text) > MAX_BYTES:
        raise DocumentProblem(
            Problem(message=f"it is larger than {MAX_BYTES // 1024} KiB ({len(text)} bytes)")
        )
    decoded = _decoded(text)
    # PyYAML costs some 10 ms and 4 MB: only who reads an AppSpec pays for it.
    import yaml  # noqa: PLC0415

    parser: Any = None
    try:
        parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(decoded)
        composer = _Composer(iter(parser.get_event, None), yaml)
        return composer.document(), composer.has_more()
    except yaml.YAMLError as error:
        raise DocumentProblem(_explained(error, decoded)) from error
    finally:
        if parser is not None:
            parser.dispose()


def _decoded(text: bytes) -> str:
    encoding = "utf-16" if text.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return text.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            problem = Problem(message="this is not UTF-16 text; save the file as UTF-8")
            raise DocumentProblem(problem) from error
        before = text[: error.start].decode("utf-8-sig")
        message = f"the byte 0x{text[error.start]:02x} is not UTF-8 text; save the file as UTF-8"
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise DocumentProblem(Problem(message=message, line=line, column=column)) from error


def _explained(error: Any, text: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return _unprintable(error, text)
    conflict = _CONFLICT.search(text)
    if conflict is not None:
        written = conflict.group().strip()[:80]
        message = f"this line is a mark of a merge conflict, {written!r}; decide which lines stay, and remove the marks"
        return Problem(message=message, line=text.count("\n", 0, conflict.start()) + 1, column=1)
    line, column = mark.line + 1, mark.column + 1
    lines = text.splitlines()
    written = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        message = "this line is indented with a tab; YAML allows only spaces there"
        return Problem(message=message, line=line, column=written.index("\t") + 1)
    context = f" {error.context}" if error.context else ""
    hint = _quotes_hint(written, mark.column)
    message = f"this is not valid YAML:{context} {error.problem}{hint}"
    return Problem(message=message, line=line, column=column)


def _quotes_hint(written: str, index: int) -> str:
    """What most often is wrong at this character of a line, or at the one before it."""
    for character in written[max(0, index - 1) : index + 1]:
        if character in _INDICATORS and not written.startswith("%"):
            return f"; a value that starts with {character} needs quotes"
        if character == ":":
            return "; if ': ' is part of a value, put that in quotes, else look at the indentation"
    return ""


def _unprintable(error: Any, text: str) -> Problem:
    """YAML forbids most control characters; the first one is where reading ended."""
    # Its position is counted in bytes or in characters, depending on the reader: so it is looked for.
    code = getattr(error, "character", None)
    position = text.find(chr(code)) if isinstance(code, int) else -1
    if position < 0:
        return Problem(message="this is not valid YAML; save the file as UTF-8 text")
    before = text[:position]
    character = repr(text[position])
    return Problem(
        message=f"the character {character} is not allowed in YAML; save the file as UTF-8 text, without control characters",
        line=before.count("\n") + 1,
        column=len(before) - before.rfind("\n"),
    )


class _Composer:
    """Builds nodes from parser events, with limits that the parser itself does not have."""

    def __init__(self, events: Iterator[Any], yaml: Any) -> None:
        self._events = events
        self._yaml = yaml
        self._scalar_event, self._alias_event = yaml.ScalarEvent, yaml.AliasEvent
        self._ends = frozenset({yaml.SequenceEndEvent, yaml.MappingEndEvent})
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
        """Whether another document follows, and there is something in it."""
        try:
            for event in self._events:
                if isinstance(event, self._yaml.ScalarEvent):
                    if event.value:
                        return True
                elif isinstance(event, self._yaml.NodeEvent):
                    return True
        except self._yaml.YAMLError:
            return True  # nobody reads what follows, so it need not be YAML
        return False

    def _node(self, event: Any, depth: int) -> Node:
        start = event.start_mark
        line, column = start.line + 1, start.column + 1
        self._count(line, column)
        kind = type(event)
        if kind is self._alias_event:
            return self._alias(event.anchor, line, column)
        if depth > MAX_DEPTH:
            return self._passed_over(event, line, column)
        refusal, remark = _judged_tag(event.tag)
        node: Node
        if kind is self._scalar_event:
            text, is_plain = event.value, not event.style
            node = Scalar(
                text=text,
                is_null=is_plain and text in _NULLS and event.tag not in _VALUE_TAGS,
                line=line,
                column=column,
                is_plain=is_plain,
                refusal=refusal,
                remark=remark,
            )
        elif kind is self._yaml.SequenceStartEvent:
            items = tuple(self._children(depth))
            node = Sequence(items=items, line=line, column=column, refusal=refusal, remark=remark)
        else:
            node = self._mapping(self._children(depth), line, column, refusal=refusal, remark=remark)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _children(self, depth: int) -> list[Node]:
        children: list[Node] = []
        for event in self._events:
            if type(event) in self._ends:
                break
            children.append(self._node(event, depth + 1))
        return children

    def _passed_over(self, event: Any, line: int, column: int) -> Node:
        """What lies too deep for anybody to read it; the events of all that is in it are used up."""
        depth = 0
        while True:
            if isinstance(event, self._yaml.CollectionStartEvent):
                depth += 1
            elif type(event) in self._ends:
                depth -= 1
            if not depth:
                break
            event = next(self._events)
            self._count(line, column)
        refusal = f"values are nested more than {MAX_DEPTH} deep"
        return Scalar(text="", is_null=True, line=line, column=column, refusal=refusal)

    def _alias(self, anchor: str, line: int, column: int) -> Node:
        if anchor not in self._anchors:
            name = "*" + anchor[:80]
            message = f"the alias {name!r} stands for an anchor that does not come before it"
            message += "; if it is meant as a text, put it in quotes"
            raise DocumentProblem(Problem(message=message, line=line, column=column))
        return self._anchors[anchor]

    def _mapping(self, children: list[Node], line: int, column: int, *, refusal: str, remark: str) -> Mapping:
        own: dict[str, tuple[Scalar, Node]] = {}
        merged: dict[str, tuple[Scalar, Node]] = {}
        repeated = []
        odd_keys = []
        for key, value in zip(children[::2], children[1::2], strict=True):
            if not isinstance(key, Scalar):
                odd_keys.append(key)
                continue
            if key.text == MERGE and _is_mergeable(value):
                self._merge(merged, value)
                continue
            if key.text in own:
                repeated.append(key)
            own[key.text] = (key, value)
        inherited = (item for name, item in merged.items() if name not in own)
        return Mapping(
            items=(*inherited, *own.values()),
            line=line,
            column=column,
            repeated=tuple(repeated),
            odd_keys=tuple(odd_keys),
            refusal=refusal,
            remark=remark,
        )

    def _merge(self, merged: dict[str, tuple[Scalar, Node]], value: Node) -> None:
        """Earlier sources win over later ones, as YAML's merge key wants it."""
        for source in value.items if isinstance(value, Sequence) else (value,):
            for key, item in source.items if isinstance(source, Mapping) else ():
                self._count(key.line, key.column)
                merged.setdefault(key.text, (key, item))

    def _count(self, line: int, column: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            message = f"the file holds more than {MAX_NODES} values"
            raise DocumentProblem(Problem(message=message, line=line, column=column))


def _is_mergeable(value: Node) -> bool:
    """Whether `<<` can take this: nothing, a mapping, or a list of mappings; else it is a key like any other."""
    if isinstance(value, Sequence):
        return all(isinstance(source, Mapping) for source in value.items)
    return isinstance(value, Mapping) or value.is_null


def _judged_tag(tag: str | None) -> tuple[str, str]:
    """Why a value with this tag may not be read, or else what to remark on it."""
    if tag is None or tag == "!" or tag in _CORE_TAGS:
        return "", ""
    if _CHANGING_TAG.fullmatch(tag):
        return f"the tag {tag[:80]!r} is not allowed in an AppSpec; write the plain value", ""
    return "", f"the tag {tag[:80]!r} has no meaning in an AppSpec; the value is taken as it is written"

"""AppSpec text → AppSpec."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.appspec.document import DocumentProblem, Mapping, Scalar, Sequence, read_document
from agent.appspec.hooks import never_runs, read_environment, read_hooks
from agent.appspec.misplaced import (
    MISPLACED,
    SECTIONS,
    note_misplaced,
    note_misplaced_at_top,
    platform_problem,
)
from agent.appspec.model import AppSpec, FileMapping
from agent.appspec.paths import leaves_archive
from agent.appspec.permissions import read_permissions
from agent.appspec.reading import (
    Reading,
    TooManyProblems,
    as_written,
    is_nothing,
    kind_of,
    listed,
    nearest,
    quoted,
)
from agent.errors import AppSpecInvalid, Problem
from agent.protocol import LIFECYCLE_EVENTS, FileExistsBehavior

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.appspec.document import Node

_KEYS = ("version", "os", "files", "permissions", "hooks", "file_exists_behavior", "environment")
_ZERO = re.compile(r"[+-]?(0+(\.0*)?|\.0+)")
_FILE_KEYS = ("source", "destination")
_NO_FILE_KEYS = ("overwrite", "file_exists_behavior")
"""Keys that no agent has ever known here, and yet many AppSpecs have them."""
_BEHAVIORS = tuple(behavior.value for behavior in FileExistsBehavior)


def parse_appspec(
    text: bytes,
    *,
    path: str,
    possible_events: Collection[str] | None = None,
    only_event: str | None = None,
) -> AppSpec:
    """What the AppSpec says.

    Args:
        text: content of the file.
        path: how messages name the file.
        possible_events: when given, scripts for any other event are refused (Install does so).
        only_event: when given, only what scripts of this event need is read: other events have none then, and
            there are no files and permissions. What is wrong there is nobody's business any more.

    Raises:
        AppSpecInvalid: with all problems at once (at most 50), each with line and column.
    """
    reading = Reading()
    try:
        appspec = _read(reading, text, path, only_event)
    except DocumentProblem as error:
        raise AppSpecInvalid(path, [error.problem]) from None
    except TooManyProblems:
        raise AppSpecInvalid(path, _by_place(reading.problems), is_all=False) from None
    problems = reading.problems
    if appspec is not None and possible_events is not None:
        problems = problems + impossible_events(appspec, possible_events)
    if problems or appspec is None:
        raise AppSpecInvalid(path, _by_place(problems))
    return appspec


def impossible_events(appspec: AppSpec, possible_events: Collection[str]) -> list[Problem]:
    """A problem for each event with scripts that is not among those that the deployment can have."""
    problems: list[Problem] = []
    possible = (
        f"possible are {listed(sorted(possible_events))}"
        if possible_events
        else "it has no events for scripts"
    )
    for event in appspec.hooks:
        if event in possible_events:
            continue
        if len(problems) == Reading.MAX_PROBLEMS:
            break
        line, column = appspec.event_places.get(event, (0, 0))
        hint = nearest(event, possible_events) or f"; {possible}"
        message = f"{quoted(event)} is not a lifecycle event of this deployment{hint}"
        problems.append(Problem(message=message, line=line, column=column))
    return problems


def require_effect(appspec: AppSpec) -> None:
    """Refuse an AppSpec that would do nothing at all of what its author meant: it would only look like a deployment.

    Install asks for that. Other events don't: the scripts of a revision that another agent has
    deployed so must not keep a better one from being deployed.

    Raises:
        AppSpecInvalid: with what would be ignored.
    """
    if appspec.lost:
        failure = AppSpecInvalid(appspec.path, appspec.lost)
        failure.add("Nothing else in the file does anything, so nothing at all would be done.")
        raise failure


def _by_place(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.line, problem.column))


def _read(reading: Reading, text: bytes, path: str, only_event: str | None) -> AppSpec | None:
    document, has_more = read_document(text)
    if document is None or is_nothing(document):
        message = "it is empty; it needs at least version: 0.0 and os: linux"
        if has_more:
            message = (
                "only the first document of the file is read, and that is empty; remove the '---' before it"
            )
        reading.problems.append(Problem(message=message))
        return None
    if has_more:
        reading.warn_of_loss(
            document, "only the first document of the file is read; what follows '---' is ignored"
        )
    reading.read(document)
    if not isinstance(document, Mapping):
        reading.refuse(
            document, f"an AppSpec must be a mapping with version: 0.0 and os: linux, not {kind_of(document)}"
        )
        return None
    return _read_sections(reading, document, path, only_event)


def _read_sections(reading: Reading, document: Mapping, path: str, only_event: str | None) -> AppSpec | None:
    values = reading.mapping(document, "an AppSpec", _KEYS, LIFECYCLE_EVENTS) or {}
    other_platform = platform_problem(document)
    if other_platform is not None:
        if "os" not in values or isinstance(values.get("hooks"), Sequence):
            reading.refuse(*other_platform)
            return None
        reading.warn_of_loss(*other_platform)
    note_misplaced_at_top(reading, document)
    _check_version(reading, document, values)
    _check_os(reading, document, values)
    sections = {name: reading.unless_false(values, name) for name in SECTIONS}
    hooks, places = read_hooks(reading, sections["hooks"], only_event)
    if only_event is not None:
        environment = read_environment(reading, values.get("environment"), "environment")
        return AppSpec(
            path=path,
            hooks=MappingProxyType(hooks),
            event_places=MappingProxyType(places),
            environment=environment,
            warnings=tuple(_by_place(reading.warnings)),
        )
    files = _read_files(reading, sections["files"])
    permissions = read_permissions(reading, sections["permissions"])
    behavior = _read_behavior(reading, values.get("file_exists_behavior"))
    environment = read_environment(reading, values.get("environment"), "environment")
    has_effect = files or any(scripts and not never_runs(event) for event, scripts in hooks.items())
    return AppSpec(
        path=path,
        files=files,
        permissions=permissions,
        hooks=MappingProxyType(hooks),
        event_places=MappingProxyType(places),
        file_exists_behavior=behavior,
        environment=environment,
        warnings=tuple(_by_place(reading.warnings)),
        lost=() if has_effect else tuple(_by_place(reading.lost)),
    )


def _check_version(reading: Reading, document: Node, values: dict[str, Node]) -> None:
    node = reading.required(document, values, "version", "the file", expected="version: 0.0")
    if node is None:
        return
    if not isinstance(node, Scalar):
        reading.refuse(node, f"version must be 0.0, not {kind_of(node)}")
    elif not _ZERO.fullmatch(node.text):
        reading.refuse(node, f"version must be 0.0, not {quoted(node.text)}")


def _check_os(reading: Reading, document: Node, values: dict[str, Node]) -> None:
    node = reading.required(document, values, "os", "the file", expected="os: linux")
    if node is None or (isinstance(node, Scalar) and node.text == "linux"):
        return
    if isinstance(node, Scalar) and node.text.lower() == "windows":
        reading.refuse(
            node,
            f"os is {quoted(node.text)}, but this host runs linux; deploy a revision that is made for linux",
        )
        return
    reading.refuse(node, f"os must be linux (in lower case), not {kind_of(node)}")


def _read_behavior(reading: Reading, node: Node | None) -> FileExistsBehavior | None:
    if node is None:
        return None
    if isinstance(node, Scalar) and node.text in _BEHAVIORS:
        return FileExistsBehavior(node.text)
    hint = reading.nearest(node.text, _BEHAVIORS) if isinstance(node, Scalar) else ""
    message = f"file_exists_behavior must be {listed(_BEHAVIORS)} (in upper case), not {kind_of(node)}{hint}"
    reading.refuse(node, message)
    return None


def _read_files(reading: Reading, node: Node | None) -> tuple[FileMapping, ...]:
    if node is None:
        return ()
    items = reading.items(node, "files", "entries with source and destination")
    found = [_read_file(reading, item) for item in items]
    return tuple(mapping for mapping in found if mapping is not None)


def _read_file(reading: Reading, node: Node) -> FileMapping | None:
    what = "this entry of files"
    values = reading.mapping(node, what, _FILE_KEYS, {*_NO_FILE_KEYS, *MISPLACED})
    if values is None:
        return None
    note_misplaced(reading, node, what)
    for key in _NO_FILE_KEYS:
        if key in values:
            advice = "to replace files, write file_exists_behavior: OVERWRITE at the top of the file"
            reading.warn(values[key], f"{quoted(key)} has no effect in files; {advice}")
    if not values.keys() >= {*_FILE_KEYS}:
        what = f"{what} {as_written(node)}"
    source_node = reading.required(node, values, "source", what, expected="source: what to copy")
    destination_node = reading.required(
        node, values, "destination", what, expected="destination: the directory to copy into"
    )
    if source_node is None or destination_node is None:
        return None
    # With an empty text existing agents take all of the revision, as with a slash.
    is_all = isinstance(source_node, Scalar) and not source_node.text
    source = "/" if is_all else reading.nonempty(source_node, "source")
    destination = reading.nonempty(destination_node, "destination")
    if source is None or destination is None:
        return None
    if leaves_archive(source):
        reading.refuse(source_node, f"source {quoted(source)} points outside the deployment archive")
        return None
    return FileMapping(source=source, destination=destination, line=node.line)

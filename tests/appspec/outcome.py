"""What parsing a text comes to, as JSON: what an AppSpec says beyond the defaults, or its problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any

from agent.appspec import parse_appspec
from agent.errors import AppSpecInvalid, Problem


def outcome_of(text: bytes) -> dict[str, Any]:
    """Either the values with `warnings`, or `problems`; a problem is `line:column message`."""
    try:
        appspec = parse_appspec(text, path="appspec.yml")
    except AppSpecInvalid as error:
        return {"problems": [_plain(problem) for problem in error.problems]}
    found: dict[str, Any] = _plain(appspec)
    return {name: value for name, value in found.items() if name not in {"path", "event_places"}}


def _plain(value: object) -> Any:  # noqa: PLR0911 - one line for each kind
    if isinstance(value, Problem):
        return f"{value.line}:{value.column} {value.message}"
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not _is_default(field, getattr(value, field.name))
        }
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return field.default is not dataclasses.MISSING and bool(value == field.default)

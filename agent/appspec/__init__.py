"""AppSpec text → AppSpec, with the line and column of everything that is wrong in it.

Nothing here costs more than reading the file: PyYAML is imported when a text is parsed.
"""

from __future__ import annotations

from agent.appspec.locate import DEFAULT_NAME, appspec_names, find_appspec, read_appspec
from agent.appspec.model import (
    DEFAULT_TIMEOUT_S,
    EVERYTHING,
    AclEntry,
    AclKind,
    AppSpec,
    FileMapping,
    HookScript,
    ObjectType,
    Permission,
    SelinuxContext,
)
from agent.appspec.parse import impossible_events, parse_appspec, require_effect

__all__ = [
    "DEFAULT_NAME",
    "DEFAULT_TIMEOUT_S",
    "EVERYTHING",
    "AclEntry",
    "AclKind",
    "AppSpec",
    "FileMapping",
    "HookScript",
    "ObjectType",
    "Permission",
    "SelinuxContext",
    "appspec_names",
    "find_appspec",
    "impossible_events",
    "parse_appspec",
    "read_appspec",
    "require_effect",
]

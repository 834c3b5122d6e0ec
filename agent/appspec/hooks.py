"""The sections `hooks` and `environment`."""

from __future__ import annotations

import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.appspec.document import Scalar, Sequence
from agent.appspec.model import DEFAULT_TIMEOUT_S, HookScript
from agent.appspec.paths import leaves_archive
from agent.appspec.reading import as_written, kind_of, quoted
from agent.protocol import DOWNLOAD_BUNDLE, INSTALL, LIFECYCLE_EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.appspec.document import Node
    from agent.appspec.reading import Reading

_KEYS = ("location", "timeout", "runas", "sudo", "login", "args", "environment")
_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n"})
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Existing agents read digits as far as there are any, so with a unit of seconds they do what is meant.
_SECONDS = re.compile(r"(?P<number>[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+))( *(s|secs?|seconds?))?")
_LONGER = re.compile(r"(?P<number>[1-9][0-9]{0,5}) *(?P<unit>m|mins?|minutes?|h|hours?)")

_Hooks = tuple[dict[str, tuple[HookScript, ...]], dict[str, tuple[int, int]]]


def read_hooks(reading: Reading, node: Node | None) -> _Hooks:
    """Scripts by event, and the place of each event's name in the file."""
    hooks: dict[str, tuple[HookScript, ...]] = {}
    places: dict[str, tuple[int, int]] = {}
    if node is None:
        return hooks, places
    for event, value in reading.entries(
        node, "hooks", "write an event such as AfterInstall: on its own line"
    ):
        _warn_about_event(reading, event)
        what = f"the event {quoted(event.text)}"
        found = [
            _read_script(reading, item) for item in reading.items(value, what, "scripts with a location")
        ]
        hooks[event.text] = tuple(script for script in found if script is not None)
        places[event.text] = (event.line, event.column)
    return hooks, places


def read_environment(reading: Reading, node: Node | None, what: str) -> Mapping[str, str]:
    """Variables by name; a variable without a value is set to an empty text."""
    variables: dict[str, str] = {}
    if node is None:
        return MappingProxyType(variables)
    form = "write NAME: VALUE on each line"
    if isinstance(node, Sequence) or (isinstance(node, Scalar) and not node.is_null):
        # Without what it holds: `- PASSWORD=…` is a common slip, and this text goes into reports.
        kind = "a list" if isinstance(node, Sequence) else "a single value"
        reading.refuse(node, f"{what} must be a mapping, not {kind}; {form}")
        return MappingProxyType(variables)
    for name, value in reading.entries(node, what, form):
        if not _VARIABLE.fullmatch(name.text):
            reading.refuse(
                name, f"{quoted(name.text)} can't be the name of a variable: use A-Z, a-z, 0-9 and _ only"
            )
            continue
        if isinstance(value, Scalar) and "\0" not in value.text:
            variables[name.text] = "" if value.is_null else value.text
        else:
            reading.refuse(value, f"the variable {name.text} must be a single text without NUL characters")
    return MappingProxyType(variables)


def _warn_about_event(reading: Reading, event: Scalar) -> None:
    if event.text in LIFECYCLE_EVENTS:
        return
    if event.text in {DOWNLOAD_BUNDLE, INSTALL}:
        reading.warn(event, f"scripts never run at {event.text}; use BeforeInstall or AfterInstall")
        return
    hint = reading.nearest(event.text, LIFECYCLE_EVENTS)
    if hint:
        reading.warn(event, f"{quoted(event.text)} is not one of the usual lifecycle events{hint}")


def _read_script(reading: Reading, node: Node) -> HookScript | None:
    values = reading.mapping(node, "this script", _KEYS)
    if values is None:
        return None
    location = _read_location(reading, node, values)
    timeout_s = _read_timeout(reading, values.get("timeout"))
    runas = reading.trimmed(values["runas"], "runas") if "runas" in values else None
    sudo = _read_truth(reading, values.get("sudo"), "sudo")
    login = _read_truth(reading, values.get("login"), "login")
    if login and sudo:
        reading.refuse(values["login"], "login makes no sense with sudo: use runas to name the user")
    args = reading.texts(values["args"], "args") if "args" in values else ()
    environment = read_environment(reading, values.get("environment"), "environment")
    if location is None or timeout_s is None or args is None:
        return None
    return HookScript(
        location=location,
        timeout_s=timeout_s,
        runas=runas,
        sudo=sudo,
        login=login,
        args=args,
        environment=environment,
        line=node.line,
    )


def _read_location(reading: Reading, script: Node, values: dict[str, Node]) -> str | None:
    what = "this script" if "location" in values else f"this script {as_written(script)}"
    expected = "location: the script's path in the revision"
    node = reading.required(script, values, "location", what, expected=expected)
    location = None if node is None else reading.trimmed(node, "location")
    if node is not None and location is not None and leaves_archive(location):
        reading.refuse(node, f"location {quoted(location)} points outside the deployment archive")
        return None
    return location


def _read_timeout(reading: Reading, node: Node | None) -> float | None:
    if node is None:
        return DEFAULT_TIMEOUT_S
    found = _SECONDS.fullmatch(node.text.strip()) if isinstance(node, Scalar) else None
    if found is not None:
        timeout_s = float(found["number"])
        if timeout_s > 0 and math.isfinite(timeout_s):
            return timeout_s
    expected = "timeout must be a number of seconds greater than 0, such as 300"
    reading.refuse(node, f"{expected}, not {kind_of(node)}{_in_seconds(node)}")
    return None


def _in_seconds(node: Node) -> str:
    """How to write minutes and hours, which some agents take for seconds."""
    found = _LONGER.fullmatch(node.text.strip()) if isinstance(node, Scalar) else None
    if found is None:
        return ""
    factor = 3600 if found["unit"].startswith("h") else 60
    return f"; write {int(found['number']) * factor}"


def _read_truth(reading: Reading, node: Node | None, what: str) -> bool:
    if node is None:
        return False
    word = node.text.lower() if isinstance(node, Scalar) else None
    if word not in _TRUE | _FALSE:
        reading.refuse(node, f"{what} must be true or false, not {kind_of(node)}")
    return word in _TRUE

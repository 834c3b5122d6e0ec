"""The sections `hooks` and `environment`."""

from __future__ import annotations

import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.appspec.document import Scalar
from agent.appspec.model import DEFAULT_TIMEOUT_S, HookScript
from agent.appspec.paths import leaves_archive
from agent.appspec.reading import is_nothing, kind_of, nearest, quoted
from agent.protocol import DOWNLOAD_BUNDLE, INSTALL, LIFECYCLE_EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.appspec.document import Node
    from agent.appspec.reading import Reading

_KEYS = ("location", "timeout", "runas", "sudo", "login", "args", "environment")
_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n"})
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")

_Hooks = tuple[dict[str, tuple[HookScript, ...]], dict[str, tuple[int, int]]]


def read_hooks(reading: Reading, node: Node | None) -> _Hooks:
    """Scripts by event, and the place of each event's name in the file."""
    hooks: dict[str, tuple[HookScript, ...]] = {}
    places: dict[str, tuple[int, int]] = {}
    if node is None:
        return hooks, places
    for event, value in reading.entries(node, "hooks"):
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
    for name, value in reading.entries(node, what):
        if not _VARIABLE.fullmatch(name.text):
            reading.refuse(
                name, f"{quoted(name.text)} can't be the name of a variable: use A-Z, a-z, 0-9 and _ only"
            )
            continue
        text = "" if is_nothing(value) else reading.text(value, f"the variable {name.text}")
        if text is not None:
            variables[name.text] = text
    return MappingProxyType(variables)


def _warn_about_event(reading: Reading, event: Scalar) -> None:
    if event.text in LIFECYCLE_EVENTS:
        return
    if event.text in {DOWNLOAD_BUNDLE, INSTALL}:
        reading.warn(event, f"scripts never run at {event.text}; use BeforeInstall or AfterInstall")
        return
    hint = nearest(event.text, LIFECYCLE_EVENTS)
    if hint:
        reading.warn(event, f"{quoted(event.text)} is not one of the usual lifecycle events{hint}")


def _read_script(reading: Reading, node: Node) -> HookScript | None:
    what = "this script"
    values = reading.mapping(node, what, _KEYS)
    if values is None:
        return None
    location_node = reading.required(node, values, "location", what)
    location = None if location_node is None else _read_location(reading, location_node)
    timeout_s = _read_timeout(reading, values.get("timeout"))
    runas = reading.nonempty(values["runas"], "runas") if "runas" in values else None
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


def _read_location(reading: Reading, node: Node) -> str | None:
    location = reading.nonempty(node, "location")
    if location is not None and leaves_archive(location):
        reading.refuse(node, f"location {quoted(location)} points outside the deployment archive")
        return None
    return location


def _read_timeout(reading: Reading, node: Node | None) -> float | None:
    if node is None:
        return DEFAULT_TIMEOUT_S
    if isinstance(node, Scalar) and _NUMBER.fullmatch(node.text.strip()):
        timeout_s = float(node.text)
        if timeout_s > 0 and math.isfinite(timeout_s):
            return timeout_s
    reading.refuse(node, f"timeout must be a number of seconds greater than 0, not {kind_of(node)}")
    return None


def _read_truth(reading: Reading, node: Node | None, what: str) -> bool:
    if node is None:
        return False
    word = node.text.lower() if isinstance(node, Scalar) else None
    if word not in _TRUE | _FALSE:
        reading.refuse(node, f"{what} must be true or false, not {kind_of(node)}")
    return word in _TRUE

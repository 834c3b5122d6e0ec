"""The sections `hooks` and `environment`."""

from __future__ import annotations

import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.appspec.document import Mapping, Scalar, Sequence
from agent.appspec.misplaced import MISPLACED, note_misplaced
from agent.appspec.model import DEFAULT_TIMEOUT_S, HookScript
from agent.appspec.paths import leaves_archive
from agent.appspec.reading import as_written, kind_of, quoted
from agent.protocol import DOWNLOAD_BUNDLE, INSTALL, LIFECYCLE_EVENTS

if TYPE_CHECKING:
    from collections import abc

    from agent.appspec.document import Node
    from agent.appspec.reading import Reading

_KEYS = ("location", "timeout", "runas", "sudo", "login", "args", "environment")
_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n"})
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Digits as YAML groups them, so that 1_000 and 1,000 are a thousand; 1,5 is left to its author.
_DIGITS = r"([0-9]{1,3}(,[0-9]{3})+|[0-9]+(_[0-9]+)*)"
# Existing agents read digits as far as there are any, so with a unit of seconds they do what is meant.
_SECONDS = re.compile(
    rf"(?P<number>[+-]?({_DIGITS}(\.[0-9]*(e[+-][0-9]+)?)?|\.[0-9]+))( *(s|secs?|seconds?))?", re.IGNORECASE
)
_LONGER = re.compile(r"(?P<number>[1-9][0-9]{0,5}) *(?P<unit>m|mins?|minutes?|h|hours?)")
_SEPARATORS = str.maketrans("", "", "_- ")

_Hooks = tuple[dict[str, tuple[HookScript, ...]], dict[str, tuple[int, int]]]


def read_hooks(reading: Reading, node: Node | None, only_event: str | None) -> _Hooks:
    """Scripts by event, and the place of each event's name in the file; of one event only, when that is given."""
    hooks: dict[str, tuple[HookScript, ...]] = {}
    places: dict[str, tuple[int, int]] = {}
    if node is None:
        return hooks, places
    form = "write an event such as AfterInstall: on its own line"
    if isinstance(node, Sequence) and any(isinstance(item, Mapping) for item in node.items):
        form += ", without '- ' before it"
    for event, value in reading.entries(node, "hooks", form):
        places[event.text] = (event.line, event.column)
        if only_event is not None and event.text != only_event:
            hooks[event.text] = ()
            continue
        what = f"the event {quoted(event.text)}"
        found = [
            _read_script(reading, item) for item in reading.items(value, what, "scripts with a location")
        ]
        hooks[event.text] = tuple(script for script in found if script is not None)
        _warn_about_event(reading, event, hooks[event.text])
    return hooks, places


def never_runs(event: str) -> bool:
    """Whether no deployment runs scripts at what a file calls so, whatever events of its own it has."""
    return event in {DOWNLOAD_BUNDLE, INSTALL} or bool(_other_spelling(event))


def _other_spelling(event: str) -> str:
    """The lifecycle event that differs from this name in capitals, hyphens and underscores only."""
    plain = event.translate(_SEPARATORS).lower()
    return next((name for name in LIFECYCLE_EVENTS if name.lower() == plain and name != event), "")


def read_environment(reading: Reading, node: Node | None, what: str) -> abc.Mapping[str, str]:
    """Variables by name; a variable without a value is set to an empty text.

    Existing agents don't know this key. What stands there in another form was hardly meant for this
    agent, so it is ignored, with a warning. No warning says what it holds: it goes into reports.
    """
    variables: dict[str, str] = {}
    if node is None:
        return MappingProxyType(variables)
    if not isinstance(node, Mapping):
        kind = "a list" if isinstance(node, Sequence) else "a single value"
        reading.warn(
            node, f"{what} is ignored: it must be a mapping, not {kind}; write NAME: VALUE on each line"
        )
        return MappingProxyType(variables)
    for key in node.repeated:
        reading.warn(key, f"{what} has the variable {quoted(key.text)} twice; the last one counts")
    for odd in node.odd_keys:
        reading.warn(odd, f"a variable of {what} is ignored: its name must be a single word")
    for name, value in node.items:
        if not _VARIABLE.fullmatch(name.text):
            expected = "use A-Z, a-z, 0-9 and _ only"
            reading.warn(
                name,
                f"{quoted(name.text)} can't be the name of a variable, so it is not set: {expected}",
            )
        elif not isinstance(value, Scalar) or value.refusal or "\0" in value.text:
            expected = "it must be a single text without NUL characters"
            reading.warn(value, f"the variable {name.text} is not set: {expected}")
        else:
            reading.read(value)
            variables[name.text] = "" if value.is_null else value.text
    return MappingProxyType(variables)


def _warn_about_event(reading: Reading, event: Scalar, scripts: tuple[HookScript, ...]) -> None:
    if event.text in LIFECYCLE_EVENTS:
        return
    warn = reading.warn_of_loss if scripts and never_runs(event.text) else reading.warn
    if event.text in {DOWNLOAD_BUNDLE, INSTALL}:
        warn(event, f"scripts never run at {event.text}; use BeforeInstall or AfterInstall")
        return
    exact = _other_spelling(event.text)
    hint = f"; did you mean {quoted(exact)}?" if exact else reading.nearest(event.text, LIFECYCLE_EVENTS)
    if hint:
        warn(event, f"{quoted(event.text)} is not one of the usual lifecycle events{hint}")


def _read_script(reading: Reading, node: Node) -> HookScript | None:
    values = reading.mapping(node, "this script", _KEYS, MISPLACED)
    if values is None:
        return None
    note_misplaced(reading, node, "a script")
    location = _read_location(reading, node, values)
    timeout_s = _read_timeout(reading, reading.unless_false(values, "timeout"))
    sudo = _read_sudo(reading, values.get("sudo"))
    if location is None or timeout_s is None:
        return None
    return HookScript(
        location=location,
        timeout_s=timeout_s,
        runas=_read_runas(reading, values.get("runas")),
        sudo=sudo,
        login=_read_login(reading, values.get("login"), sudo=sudo),
        args=_read_args(reading, values.get("args")),
        environment=read_environment(reading, values.get("environment"), "environment"),
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
        timeout_s = float(found["number"].replace("_", "").replace(",", ""))
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


def _read_runas(reading: Reading, node: Node | None) -> str | None:
    """The user; None for an empty text, with which existing agents go on as who they are."""
    if node is None:
        return None
    text = reading.text(node, "runas")
    return text.strip() or None if text is not None else None


def _read_sudo(reading: Reading, node: Node | None) -> bool:
    if node is None:
        return False
    word = node.text.lower() if isinstance(node, Scalar) else None
    if word not in _TRUE | _FALSE:
        reading.warn(node, f"sudo must be true or false; {kind_of(node)} is taken for true")
    return word not in _FALSE


def _read_login(reading: Reading, node: Node | None, *, sudo: bool) -> bool:
    if node is None:
        return False
    word = node.text.lower() if isinstance(node, Scalar) else None
    if word not in _TRUE | _FALSE:
        reading.warn(node, f"login is ignored: it must be true or false, not {kind_of(node)}")
        return False
    if word in _TRUE and sudo:
        reading.warn(node, "login is ignored: it makes no sense with sudo; use runas to name the user")
        return False
    return word in _TRUE


def _read_args(reading: Reading, node: Node | None) -> tuple[str, ...]:
    """The arguments; none at all when they are not a list of texts, which existing agents don't mind."""
    if node is None or (isinstance(node, Mapping) and not node.items):
        return ()
    if not isinstance(node, Sequence):
        hint = "start each entry with '- '"
        reading.warn(node, f"args is ignored: it must be a list of texts, not {kind_of(node)}; {hint}")
        return ()
    arguments = []
    for item in node.items:
        if not isinstance(item, Scalar) or item.is_null or item.refusal or "\0" in item.text:
            expected = "each item must be a text without NUL characters"
            reading.warn(item, f"args is ignored: {expected}, not {kind_of(item)}")
            return ()
        reading.read(item)
        arguments.append(item.text)
    return tuple(arguments)

"""Configuration files: YAML text → Settings, with everything that is wrong in one message."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from agent.errors import ConfigurationError, Problem
from agent.settings import HARDENING_KEYS, RETIRED_KEYS, Settings, list_parsers, scalar_parsers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """Settings, and what their author should be told although they can be used."""

    settings: Settings
    warnings: tuple[Problem, ...] = ()


class SettingsInvalid(ConfigurationError):
    """A configuration file with problems; `usable` are the settings with the values that are right."""

    def __init__(self, source: str, problems: Sequence[Problem], usable: Settings) -> None:
        super().__init__(source, problems)
        self.usable = usable


def load_settings(path: Path) -> LoadedSettings:
    """The settings of this configuration file.

    Raises:
        ConfigurationError: the file can't be read.
        SettingsInvalid: it has problems; all of them are listed.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        message = f"It can't be read ({error.strerror or error}). {_advice(error)}"
        raise ConfigurationError(str(path), [Problem(message=message)]) from error
    return parse_settings(text, source=str(path))


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "Try again with sudo, or as the user that the agent runs as."
    if isinstance(error, IsADirectoryError):
        return "Name the file in it with --config-file."
    if isinstance(error, FileNotFoundError):
        return "Create it, or name another one with --config-file."
    return "Fix that, or name another one with --config-file."


def parse_settings(text: bytes, *, source: str) -> LoadedSettings:
    """The settings that this YAML text describes; keys may be written `key:` or `:key:`.

    An empty text gives the defaults.

    Raises:
        ConfigurationError: all problems, with their lines.
    """
    try:
        document = yaml.compose(text.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        message = f"the file is not UTF-8 text (byte {error.start})"
        raise ConfigurationError(source, [Problem(message=message)]) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(source, [_yaml_problem(error)]) from error
    if document is None:
        return LoadedSettings(settings=Settings())
    if not isinstance(document, yaml.MappingNode):
        message = "expected lines of the form `key: value`"
        raise ConfigurationError(source, [_problem(document, message)])
    return _Reader(source).read(document)


def _without_password(value: str) -> str:
    """The value without what stands before an @: in an address that may be a user and a password."""
    before, at, host = value.rpartition("@")
    if not at:
        return value
    scheme, slashes, _ = before.partition("//")
    return f"{scheme if slashes else ''}{slashes}***@{host}"


def _yaml_problem(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or " ".join(str(error).split())
    if mark is None:
        return Problem(message=f"this is not YAML: {what}")
    return Problem(message=f"this is not YAML: {what}", line=mark.line + 1, column=mark.column + 1)


def _problem(node: yaml.Node, message: str) -> Problem:
    return Problem(message=message, line=node.start_mark.line + 1, column=node.start_mark.column + 1)


class _Reader:
    """Collects values, problems and warnings of one document."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.values: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.places: dict[str, yaml.Node] = {}
        self.parsers = scalar_parsers()
        self.list_parsers = list_parsers()

    def read(self, document: yaml.MappingNode) -> LoadedSettings:
        for key_node, value_node in document.value:
            key = key_node.value.strip(":") if isinstance(key_node, yaml.ScalarNode) else ""
            if key in self.places:
                self.problems.append(_problem(key_node, f"`{key}` is written twice; keep one of the two"))
            self.places[key] = key_node
            self._read_value(key, key_node, value_node)
        if self.problems:
            # What would only be a warning may explain a problem: a misspelt key beside a missing value.
            listed = sorted([*self.problems, *self.warnings], key=lambda problem: problem.line)
            raise SettingsInvalid(self.source, listed, Settings(**self.values))
        if self.values.get("hardening") == "strict":
            self.values = {**dict.fromkeys(HARDENING_KEYS, True), **self.values}
        settings = Settings(**self.values)
        self._warn_of_plain_http(settings)
        return LoadedSettings(settings=settings, warnings=tuple(self.warnings))

    def _read_value(self, key: str, key_node: yaml.Node, value_node: yaml.Node) -> None:
        if key in RETIRED_KEYS:
            self.warnings.append(_problem(key_node, f"`{key}` has no effect any more; remove it"))
        elif key == "environment":
            self._read_environment(value_node)
        elif key in self.parsers:
            self._read_scalar(key, value_node)
        elif key in self.list_parsers:
            self._read_list(key, value_node)
        else:
            self.warnings.append(_problem(key_node, f"`{key}` is not a setting{self._nearest(key)}"))

    def _nearest(self, key: str) -> str:
        near = difflib.get_close_matches(key, [*self.parsers, *self.list_parsers, "environment"], n=1)
        return f"; did you mean `{near[0]}`?" if near else " and is ignored"

    def _read_scalar(self, key: str, node: yaml.Node) -> None:
        if not isinstance(node, yaml.ScalarNode):
            self.problems.append(_problem(node, f"`{key}` must be one value, not a list or mapping"))
            return
        if node.tag == "tag:yaml.org,2002:null":
            return
        try:
            self.values[key] = self.parsers[key](node.value)
        except ValueError as error:
            message = f"`{key}` is `{_without_password(node.value)}`; expected {error}"
            self.problems.append(_problem(node, message))
            return
        if (
            node.value.startswith(("http://", "https://"))
            and "@" in node.value.split("/")[2]
            and "@" not in self.values[key]
        ):
            message = f"the user and password in `{key}` are not used: requests there are signed; remove them"
            self.warnings.append(_problem(node, message))

    def _read_list(self, key: str, node: yaml.Node) -> None:
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        values = []
        for item in items:
            if not isinstance(item, yaml.ScalarNode):
                self.problems.append(_problem(item, f"`{key}` must be a list of texts"))
                continue
            if item.tag == "tag:yaml.org,2002:null":
                continue
            try:
                values.append(self.list_parsers[key](item.value))
            except ValueError as error:
                self.problems.append(_problem(item, f"`{key}` has `{item.value}`; expected {error}"))
        self.values[key] = tuple(values)

    def _read_environment(self, node: yaml.Node) -> None:
        if not isinstance(node, yaml.MappingNode):
            self.problems.append(_problem(node, "`environment` must be a mapping of names to texts"))
            return
        variables = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
                self.problems.append(_problem(name, "`environment` maps one name to one text a line"))
            elif not name.value or "=" in name.value or "\0" in name.value + value.value:
                self.problems.append(_problem(name, f"`{name.value}` is no name for a variable"))
            else:
                variables[name.value] = value.value
        self.values["environment"] = variables

    def _warn_of_plain_http(self, settings: Settings) -> None:
        endpoint = settings.deploy_control_endpoint
        if endpoint and endpoint.startswith("http://"):
            message = f"`deploy_control_endpoint` {endpoint} is not encrypted; use https outside of tests"
            self.warnings.append(_problem(self.places["deploy_control_endpoint"], message))

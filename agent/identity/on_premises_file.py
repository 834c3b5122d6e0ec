"""The on-premises file: YAML → who this host is. Needs PyYAML: not for the process at rest."""

from __future__ import annotations

import difflib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import yaml

from agent.errors import ConfigurationError, Problem
from agent.identity.credentials import can_be_key
from agent.identity.on_premises import IamSession, IamUser, OnPremisesIdentity
from agent.protocol import Secret

_USER_KEYS = ("iam_user_arn", "aws_access_key_id", "aws_secret_access_key")
_SESSION_KEYS = ("iam_session_arn", "aws_credentials_file")
_KNOWN_KEYS = ("region", *_USER_KEYS, *_SESSION_KEYS)

_OTHER_ARN = {
    **dict.fromkeys(_USER_KEYS, "iam_session_arn"),
    **dict.fromkeys(_SESSION_KEYS, "iam_user_arn"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPremisesFile:
    """What the file says.

    Attributes:
        identity: complete and well-formed.
        warnings: what an administrator should look at, though it does no harm yet.
    """

    identity: OnPremisesIdentity
    warnings: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A value as it is written, and where."""

    key: str
    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """What a value must look like, for the machine and for people."""

    pattern: re.Pattern[str]
    description: str


_REGION = _Form(
    pattern=re.compile(r"[a-z0-9]+(-[a-z0-9]+)*"),
    description="the name of a region, such as eu-west-1",
)
_USER_ARN = _Form(
    pattern=re.compile(r"arn:[a-z0-9-]+:iam::\d{12}:user/[\w+=,.@/-]+"),
    description="the ARN of a user, such as arn:aws:iam::123456789012:user/name",
)
_SESSION_ARN = _Form(
    pattern=re.compile(r"arn:[a-z0-9-]+:sts::\d{12}:(assumed-role|federated-user)/[\w+=,.@/-]+"),
    description="the ARN of a session, such as arn:aws:sts::123456789012:assumed-role/role/name",
)
_ABSOLUTE_PATH = _Form(pattern=re.compile(r"/.+"), description="an absolute path")


def read_on_premises(path: Path) -> OnPremisesFile | None:
    """What the file says; None if there is no such file, which means that this host is on EC2.

    Raises:
        ConfigurationError: it can't be read, or it is wrong.
    """
    try:
        with path.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            text = stream.read()
    except FileNotFoundError as error:
        dangling = next(
            (place for place in (path, *path.parents) if place.is_symlink() and not place.exists()), None
        )
        if dangling is None:
            return None
        # Somebody has said who this host is, and what says it is not there yet, as a disk that is not mounted.
        why = f"{dangling} is a link to {dangling.readlink()}, where nothing is. Mount or write that, or remove the link."
        raise ConfigurationError(str(path), [Problem(message=why)]) from error
    except OSError as error:
        why = f"It can't be read by this user (uid {os.geteuid()}): {error.strerror}. It says who this host is: "
        why += (
            f"put a file there that the agent can read (`ls -l {path}`), or remove it if this host is on EC2."
        )
        raise ConfigurationError(str(path), [Problem(message=why)]) from error
    parsed = parse_on_premises(text, str(path))
    if not isinstance(parsed.identity, IamUser) or not mode & 0o077:
        return parsed
    exposed = Problem(
        message=f"It holds a secret key, but its mode is {mode:04o}, so other users of this host may read it. "
        f"Run: chmod 600 {path}"
    )
    return OnPremisesFile(identity=parsed.identity, warnings=(*parsed.warnings, exposed))


def parse_on_premises(text: bytes, source: str) -> OnPremisesFile:
    """What the text says; keys may be written `key:` or `:key:`.

    Args:
        text: the whole file.
        source: its name, for messages.

    Raises:
        ConfigurationError: with everything that is wrong.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    entries = _entries(_mapping(text, source), problems, warnings)
    _check_region(entries, problems)
    identity: OnPremisesIdentity | None = None
    if "iam_user_arn" in entries and "iam_session_arn" in entries:
        problems.append(
            Problem(
                message="iam_user_arn and iam_session_arn exclude each other: "
                "keep the first for keys that stay, the second for keys that are rotated.",
                line=max(entries["iam_user_arn"].line, entries["iam_session_arn"].line),
            )
        )
    elif "iam_session_arn" in entries:
        identity = _session(entries, problems, warnings)
    else:
        identity = _user(entries, problems, warnings)
    if problems or identity is None:
        raise ConfigurationError(source, sorted(problems, key=lambda problem: problem.line))
    return OnPremisesFile(identity=identity, warnings=tuple(warnings))


def _mapping(text: bytes, source: str) -> yaml.MappingNode:
    try:
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise ConfigurationError(
            source, [Problem(message=f"This is not YAML: {error.problem}.", line=line, column=column)]
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(source, [Problem(message=f"This is not YAML: {error}.")]) from error
    if isinstance(document, yaml.MappingNode):
        return document
    raise ConfigurationError(
        source,
        [
            Problem(
                message="It must have lines of the form `key: value`; see the documentation of on-premises hosts."
            )
        ],
    )


def _entries(
    mapping: yaml.MappingNode, problems: list[Problem], warnings: list[Problem]
) -> dict[str, _Entry]:
    """The known keys that have a value; values are the text as written, also if they look like numbers."""
    entries: dict[str, _Entry] = {}
    for key_node, value_node in mapping.value:
        line = key_node.start_mark.line + 1
        key = str(key_node.value).lstrip(":") if isinstance(key_node, yaml.ScalarNode) else ""
        if key not in _KNOWN_KEYS:
            warnings.append(Problem(message=_unknown_key(key), line=line))
        elif not isinstance(value_node, yaml.ScalarNode):
            problems.append(Problem(message=f"{key} must have one plain value.", line=line))
        elif key in entries:
            problems.append(
                Problem(
                    message=f"{key} is written twice; the first is in line {entries[key].line}.", line=line
                )
            )
        elif value_node.value and value_node.tag != "tag:yaml.org,2002:null":
            entries[key] = _Entry(key=key, text=value_node.value, line=line)
    return entries


def _unknown_key(key: str) -> str:
    nearest = difflib.get_close_matches(key, _KNOWN_KEYS, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(_KNOWN_KEYS)}."
    return f'"{key}" is not known and is ignored; {hint}'


def _check_region(entries: dict[str, _Entry], problems: list[Problem]) -> None:
    if "region" in entries:
        _check_form(entries["region"], _REGION, problems)
    else:
        problems.append(Problem(message="region is missing; write, for example, `region: eu-west-1`."))


def _user(entries: dict[str, _Entry], problems: list[Problem], warnings: list[Problem]) -> IamUser | None:
    if not any(key in entries for key in _USER_KEYS):
        problems.append(
            Problem(
                message=f"It does not say who this host is: {_listed(_USER_KEYS)} are missing "
                f"(or, for keys that are rotated, {_listed(_SESSION_KEYS)})."
            )
        )
        return None
    _warn_of_unused(_SESSION_KEYS, entries, warnings)
    if not _require(_USER_KEYS, entries, problems):
        return None
    _check_form(entries["iam_user_arn"], _USER_ARN, problems)
    _check_key(entries["aws_access_key_id"], problems)
    _check_key(entries["aws_secret_access_key"], problems)
    if problems:
        return None
    return IamUser(
        region=entries["region"].text,
        iam_user_arn=entries["iam_user_arn"].text,
        aws_access_key_id=entries["aws_access_key_id"].text,
        aws_secret_access_key=Secret(entries["aws_secret_access_key"].text),
    )


def _session(
    entries: dict[str, _Entry], problems: list[Problem], warnings: list[Problem]
) -> IamSession | None:
    _warn_of_unused(_USER_KEYS, entries, warnings)
    if not _require(_SESSION_KEYS, entries, problems):
        return None
    _check_form(entries["iam_session_arn"], _SESSION_ARN, problems)
    _check_form(entries["aws_credentials_file"], _ABSOLUTE_PATH, problems)
    if problems:
        return None
    return IamSession(
        region=entries["region"].text,
        iam_session_arn=entries["iam_session_arn"].text,
        aws_credentials_file=Path(entries["aws_credentials_file"].text),
    )


def _require(keys: tuple[str, ...], entries: dict[str, _Entry], problems: list[Problem]) -> bool:
    missing = [key for key in keys if key not in entries]
    problems.extend(Problem(message=f"{key} is missing.") for key in missing)
    return not missing


def _warn_of_unused(keys: tuple[str, ...], entries: dict[str, _Entry], warnings: list[Problem]) -> None:
    warnings.extend(
        Problem(message=f"{key} is not used beside {_OTHER_ARN[key]}; remove it.", line=entries[key].line)
        for key in keys
        if key in entries
    )


def _check_form(entry: _Entry, form: _Form, problems: list[Problem]) -> None:
    if not form.pattern.fullmatch(entry.text):
        problems.append(
            Problem(
                message=f'{entry.key} is "{entry.text}", but must be {form.description}.', line=entry.line
            )
        )


def _check_key(entry: _Entry, problems: list[Problem]) -> None:
    """Without showing the value: the two keys are easily swapped."""
    if not can_be_key(entry.text):
        problems.append(
            Problem(
                message=f"{entry.key} has characters in it that no key has; write it in one line, as AWS gave it.",
                line=entry.line,
            )
        )


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"

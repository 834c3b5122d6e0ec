"""What a session finds in /etc/environment and /etc/default/locale, for hosts without PAM."""

from __future__ import annotations

import os
import re
from pathlib import Path

FILES = (Path("/etc/environment"), Path("/etc/default/locale"))

_MAX_BYTES = 2**16
_NAME = re.compile("[A-Za-z0-9_]+")


def read_environment_files() -> dict[str, str]:
    """The variables of both; later ones win. A file that isn't there, or can't be read, has none."""
    variables: dict[str, str] = {}
    for path in FILES:
        try:
            with path.open("rb") as file:
                variables.update(parse_environment(file.read(_MAX_BYTES)))
        except OSError:
            continue
    return variables


def parse_environment(text: bytes) -> dict[str, str]:
    """NAME=VALUE on each line, as pam_env reads it: `export` may stand before it, quotes around the value.

    What follows a # is a comment. A line that says something else is left out.
    """
    variables = {}
    for line in text.splitlines():
        entry = os.fsdecode(line).partition("#")[0].strip().removeprefix("export ").lstrip()
        name, equals, value = entry.partition("=")
        if not equals or not _NAME.fullmatch(name):
            continue
        if value[:1] in ("'", '"'):
            value = value[1:].removesuffix(value[0])
        if value:
            variables[name] = value
    return variables

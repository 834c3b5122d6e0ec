"""The licences of all that the packages hold, in one file."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from packages.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packages.interpreter import Interpreter

_LICENCE_FILES = ("LICEN[CS]E*", "COPYING*", "NOTICE*", "AUTHORS*", "copyright")
_LINE = "=" * 100


def licences_of(project: Path, interpreter: Interpreter, site: Path, libraries: Mapping[str, Path]) -> str:
    """Each part with its licence: ours, Python's, those of the dependencies and of the shared libraries.

    Raises:
        BuildFailed: a part has none that can be found.
    """
    parts = {"codedeploy-agent": _texts([project / "LICENSE"])}
    parts[f"Python {interpreter.version}"] = _texts([_licence_of_python(interpreter)])
    for metadata in sorted(site.glob("*.dist-info")):
        name, version = metadata.name.removesuffix(".dist-info").split("-")
        parts[f"{name} {version}"] = _texts(_licence_files(metadata)) or _stated_licence(metadata)
    for name, origin in libraries.items():
        if not name.startswith("libpython"):
            parts[name] = _texts([_licence_of_library(origin)])
    missing = [name for name, text in parts.items() if not text]
    if missing:
        raise BuildFailed(f"No licence was found for {', '.join(missing)}.")
    overview = "".join(f"  {name}\n" for name in parts)
    chapters = "".join(f"\n{_LINE}\n{name}\n{_LINE}\n\n{text}\n" for name, text in parts.items())
    return f"This package holds the following, each with its licence below:\n\n{overview}{chapters}"


def _texts(files: Iterable[Path]) -> str:
    return "\n".join(file.read_text("utf-8", errors="replace").rstrip() for file in files)


def _licence_files(directory: Path) -> list[Path]:
    found = {file for pattern in _LICENCE_FILES for file in directory.rglob(pattern) if file.is_file()}
    return sorted(found)


def _stated_licence(metadata: Path) -> str:
    lines = (metadata / "METADATA").read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith(("License", "Author", "Classifier: License")))


def _licence_of_python(interpreter: Interpreter) -> Path:
    own = interpreter.stdlib / "LICENSE.txt"
    return own.resolve() if own.is_file() else _licence_of_library(interpreter.executable)


def _licence_of_library(origin: Path) -> Path:
    """Where the package manager that brought the file keeps it."""
    for package in (*_debian_packages(origin), *_rpm_packages(origin)):
        for directory in (Path("/usr/share/doc", package), Path("/usr/share/licenses", package)):
            files = _licence_files(directory)
            if files:
                return files[0].resolve()
    raise BuildFailed(
        f"No package of this machine owns {origin}, or its licence is not installed: a library whose licence is not"
        " known can't be shipped."
    )


def _debian_packages(origin: Path) -> list[str]:
    """Files are known by the name that their package gave them, which may be without /usr."""
    names = [str(origin), str(origin).removeprefix("/usr")]
    answers = _ask(["dpkg-query", "--search", *names])
    return [line.partition(":")[0] for line in answers]


def _rpm_packages(origin: Path) -> list[str]:
    return _ask(["rpm", "--query", "--queryformat", "%{NAME}\n", "--file", str(origin)])


def _ask(command: list[str]) -> list[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    except FileNotFoundError:
        return []

"""Shared libraries: what the tree's programs need beyond glibc is put into the tree, and found there only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from packages.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Every host has these, and they must be its own: they speak to its kernel and its name services.
_GLIBC = re.compile(r"(ld-linux.*|lib(c|m|pthread|dl|rt|util|resolv|anl|nsl))\.so\.\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Libraries:
    """What was found.

    Attributes:
        origins: name in the tree → the file that it was copied from.
        glibc: the oldest glibc that has everything, such as 2.34.
    """

    origins: dict[str, Path]
    glibc: str


def gather_libraries(tree: Path, copied: Mapping[Path, Path], tools: Path) -> Libraries:
    """All programs of the tree find their libraries in tree/lib, wherever the tree lies, and have no debug symbols.

    `copied` is each program in the tree → where it came from, and where it finds its libraries now.

    RPATH and not RUNPATH: an LD_LIBRARY_PATH of the host must not put another libssl under a root process.

    Raises:
        BuildFailed: a library is missing on this machine, or strip is.
    """
    directory = tree / "lib"
    origins: dict[str, Path] = {}
    waiting = {program: copied.get(program, program) for program in _programs(tree)}
    done: list[Path] = []
    while waiting:
        program, origin = waiting.popitem()
        done.append(program)
        for name, found in _needed(origin).items():
            if name not in origins:
                origins[name] = found
                shutil.copyfile(found, directory / name)
                waiting[directory / name] = found
    for program in sorted(done):
        _relocate(program, directory, tools)
    return Libraries(origins=dict(sorted(origins.items())), glibc=_oldest_glibc(done))


def _programs(tree: Path) -> Iterator[Path]:
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as stream:
                if stream.read(4) == b"\x7fELF":
                    yield path


def _needed(program: Path) -> dict[str, Path]:
    """Name → file, as the loader of this machine finds them; all levels, without glibc."""
    answer = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    needed = {}
    for line in answer.stdout.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if not arrow or _GLIBC.fullmatch(name):
            continue
        if rest.startswith("not found"):
            raise BuildFailed(f"{program} needs {name}, which this machine doesn't have.")
        found = rest.rpartition(" (")[0]
        needed[name] = Path(found).resolve()
    return needed


def _relocate(program: Path, directory: Path, tools: Path) -> None:
    program.chmod(0o755)
    if shutil.which("strip") is None:
        raise BuildFailed("strip is missing; on Debian: apt install binutils")
    subprocess.run(
        ["strip", "--strip-unneeded", str(program)], check=True
    )  # first: it breaks what patchelf makes
    if _needs_directory(program):
        path = os.path.relpath(directory, program.parent)
        rpath = "$ORIGIN" if path == "." else f"$ORIGIN/{path}"
        subprocess.run(
            [str(tools / "patchelf"), "--force-rpath", "--set-rpath", rpath, str(program)], check=True
        )
    else:
        subprocess.run([str(tools / "patchelf"), "--remove-rpath", str(program)], check=True)


def _needs_directory(program: Path) -> bool:
    with program.open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            if isinstance(section, DynamicSection):
                names = [tag.needed for tag in section.iter_tags("DT_NEEDED")]
                return any(not _GLIBC.fullmatch(name) for name in names)
    return False


def _oldest_glibc(programs: list[Path]) -> str:
    """The highest of all `GLIBC_x.y` that any program asks for."""
    versions: set[tuple[int, ...]] = {(2, 17)}
    for program in programs:
        try:
            with program.open("rb") as stream:
                versions.update(_glibc_versions(ELFFile(stream)))
        except ELFError as error:
            raise BuildFailed(f"{program} is no program that can be read: {error}") from error
    return ".".join(map(str, max(versions)))


def _glibc_versions(program: ELFFile) -> Iterator[tuple[int, ...]]:
    for section in program.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for _, wanted in section.iter_versions():
                for version in wanted:
                    if re.fullmatch(r"GLIBC_[\d.]+", version.name):
                        yield tuple(int(part) for part in version.name.removeprefix("GLIBC_").split("."))

"""`make packages`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from packages.application import (
    compile_everything,
    install_agent,
    install_dependencies,
    set_times,
    trust_the_host,
)
from packages.archives import ARCHITECTURES, Release, write_package, write_tarball
from packages.errors import BuildFailed
from packages.interpreter import Interpreter, copy_interpreter, find_interpreter
from packages.libraries import gather_libraries
from packages.licences import licences_of
from packages.proof import prove
from packages.system_files import SystemFile, system_files

_PACKAGING = Path(__file__).parents[1]
_PROJECT = _PACKAGING.parent


def main() -> None:
    """Build all three, and say what there is."""
    arguments = _arguments()
    os.umask(0o022)
    try:
        _build(arguments)
    except BuildFailed as error:
        sys.exit(f"make packages: {error}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="packages", description=__doc__)
    parser.add_argument("--python", default="python3", help="the interpreter to pack")
    parser.add_argument(
        "--version", default=_own_version(), help="instead of the agent's own, to try upgrades"
    )
    parser.add_argument("--output", type=Path, default=_PROJECT / "build/packages")
    parser.add_argument("--kinds", default="deb,rpm,tar.gz", help="which of them")
    return parser.parse_args()


def _build(arguments: argparse.Namespace) -> None:
    tools = Path(sys.executable).parent
    interpreter = find_interpreter(arguments.python)
    files = system_files(_PROJECT)
    output = arguments.output.resolve()
    work = output / "work"
    shutil.rmtree(work, ignore_errors=True)
    program = work / "program"
    program.mkdir(parents=True)
    release = _release(interpreter, arguments.version, program, files, tools)
    for kind in arguments.kinds.split(","):
        if kind == "tar.gz":
            target = write_tarball(release, work, _PACKAGING)
        else:
            target = write_package(release, kind, _PACKAGING, work, tools / "nfpm")
        _say(f"{target.stat().st_size / 1e6:6.1f} MB  {target}")
    _say(
        f"{_size_bytes(program) / 1e6:6.1f} MB  installed; Python {interpreter.version}, glibc {release.glibc} or newer"
    )
    shutil.rmtree(work)


def _release(
    interpreter: Interpreter, version: str, program: Path, files: list[SystemFile], tools: Path
) -> Release:
    if interpreter.machine not in ARCHITECTURES:
        raise BuildFailed(f"Packages for {interpreter.machine} are not known here.")
    site = program / interpreter.site
    copied = copy_interpreter(interpreter, program)
    install_dependencies(interpreter.executable, _PACKAGING / "requirements-agent.txt", site, tools / "pip")
    install_agent(_PROJECT / "agent", site, program, version)
    trust_the_host(site)
    libraries = gather_libraries(program, copied, tools)
    compile_everything(program)
    prove(program)
    time = _commit_time()
    set_times(program, time)
    copyright_file = program.parent / "copyright"
    text = licences_of(_PROJECT, interpreter, site, libraries.origins)
    copyright_file.write_text(text, "utf-8")
    return Release(
        version=version,
        architecture=ARCHITECTURES[interpreter.machine],
        time=time,
        glibc=libraries.glibc,
        program=program,
        system_files=files,
        copyright=copyright_file,
    )


def _own_version() -> str:
    text = (_PROJECT / "agent/__init__.py").read_text("utf-8")
    return text.partition('__version__ = "')[2].partition('"')[0]


def _commit_time() -> int:
    """Of the last commit, so that the same commit gives the same bytes; SOURCE_DATE_EPOCH comes first."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    command = ["git", "-C", str(_PROJECT), "log", "-1", "--format=%ct"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise BuildFailed(
            f"git does not know the time of the last commit; set SOURCE_DATE_EPOCH. {answer.stderr}"
        )
    return int(answer.stdout)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _size_bytes(tree: Path) -> int:
    return sum(path.lstat().st_size for path in tree.rglob("*") if not path.is_dir())


if __name__ == "__main__":
    main()

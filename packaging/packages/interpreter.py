"""The interpreter that goes into the packages: what it is, and a copy of it that runs from anywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from packages.errors import BuildFailed

# Asked of the interpreter itself, as it knows best. The site directory is the one inside the standard library's:
# Debian's interpreter has others, and calls it dist-packages.
_QUESTIONS = """
import json, platform, site, sys, sysconfig
stdlib = sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix})
print(json.dumps({
    "executable": getattr(sys, "_base_executable", sys.executable),
    "in_venv": sys.prefix != sys.base_prefix,
    "version": platform.python_version(),
    "machine": platform.machine(),
    "libc": platform.libc_ver()[0],
    "prefix": sys.base_prefix,
    "stdlib": stdlib,
    "modules": sysconfig.get_config_var("DESTSHARED") or stdlib + "/lib-dynload",
    "sites": site.getsitepackages(),
}))
"""

# Of the standard library, what no daemon needs. What is left is proved to be enough by importing every module of the
# agent, see proof.py; modules that are only small stay, in case a dependency wants them some day.
_LEFT_OUT = (
    "config-*",  # a static libpython and a Makefile, for embedding
    "dist-packages",
    "site-packages",
    "test",
    "unittest",
    "doctest.py",
    "idlelib",
    "tkinter",
    "turtle.py",
    "turtledemo",
    "curses",
    "dbm",
    "sqlite3",
    "distutils",
    "ensurepip",
    "venv",
    "lib2to3",
    "pydoc_data",
    "__phello__",
    "__pycache__",
    "*.pyc",
    "EXTERNALLY-MANAGED",
)
# The same among compiled modules: tests, or front ends of libraries that would have to come along.
_LEFT_OUT_MODULES = (
    "_crypt",
    "_ctypes_test",
    "_curses",
    "_curses_panel",
    "_dbm",
    "_gdbm",
    "_sqlite3",
    "_test*",
    "_tkinter",
    "_uuid",  # uuid works without
    "_xx*",
    "nis",
    "ossaudiodev",
    "readline",
    "xxlimited*",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A Python to copy.

    Attributes:
        executable: the program itself, no link and no virtual environment.
        version: such as 3.11.7.
        machine: as `uname -m` says it.
        prefix: what it is installed under.
        stdlib: directory of the standard library.
        modules: directory of its compiled modules; may be missing when all are built in.
        site: where it looks for installed packages, relative to prefix.
    """

    executable: Path
    version: str
    machine: str
    prefix: Path
    stdlib: Path
    modules: Path
    site: Path


def find_interpreter(name: str) -> Interpreter:
    """The interpreter of this name or path; of a virtual environment, the one below it.

    Raises:
        BuildFailed: there is none, or none that can be used.
    """
    facts = _ask(name)
    if facts["in_venv"]:
        facts = _ask(facts["executable"])
    if facts["libc"] != "glibc":
        raise BuildFailed(f"{name} is not linked with glibc; the packages are for distributions with glibc.")
    stdlib = Path(facts["stdlib"])
    sites = [Path(site) for site in facts["sites"] if Path(site).parent == stdlib]
    if not sites:
        raise BuildFailed(f"{name} has no directory for packages inside {stdlib}.")
    prefix = Path(facts["prefix"])
    return Interpreter(
        executable=Path(facts["executable"]).resolve(),
        version=facts["version"],
        machine=facts["machine"],
        prefix=prefix,
        stdlib=stdlib,
        modules=Path(facts["modules"]),
        site=sites[0].relative_to(prefix),
    )


def copy_interpreter(interpreter: Interpreter, tree: Path) -> dict[Path, Path]:
    """The interpreter is at tree/bin/python3, with what it needs of its standard library; not yet its libraries.

    It finds the library by its own place (a `lib/pythonX.Y/os.py` above it), so the tree may lie anywhere.

    Returns:
        Each program in the tree → where it was copied from, and finds its libraries.
    """
    stdlib = tree / interpreter.stdlib.relative_to(interpreter.prefix)
    shutil.copytree(interpreter.stdlib, stdlib, ignore=shutil.ignore_patterns(*_LEFT_OUT, "lib-dynload"))
    for tests in sorted(stdlib.rglob("test*")):
        if tests.is_dir() and tests.name in ("test", "tests"):
            shutil.rmtree(tests)
    modules = stdlib / "lib-dynload"
    if interpreter.modules.is_dir():
        left_out = [f"{name}.*" for name in _LEFT_OUT_MODULES]
        shutil.copytree(interpreter.modules, modules, ignore=shutil.ignore_patterns(*left_out, "__pycache__"))
    modules.mkdir(exist_ok=True)  # without it, Python complains that it can't find its installation
    (tree / "bin").mkdir()
    shutil.copy2(interpreter.executable, tree / "bin/python3")
    origins = {module: interpreter.modules / module.name for module in modules.iterdir()}
    return {tree / "bin/python3": interpreter.executable, **origins}


def _ask(name: str) -> dict[str, str]:
    try:
        answer = subprocess.run([name, "-I", "-c", _QUESTIONS], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildFailed(f"{name} can't be run as the Python to pack (PACKAGES_PYTHON): {error}") from error
    facts: dict[str, str] = json.loads(answer.stdout)
    return facts

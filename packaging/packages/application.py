"""What the interpreter runs: the agent, its locked dependencies, and a starter; all of it compiled."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from packages.errors import BuildFailed

if TYPE_CHECKING:
    from pathlib import Path

_STARTER = """\
#!/bin/sh
# Runs the agent with the Python that lies beside this file, and with nothing of the host's: -I ignores PYTHON*,
# the user's packages and the working directory. Links are followed to their end, so that a running agent stays
# with its own version when a link is switched to the next one.
self=$(readlink -f "$0") || exit 1
tree=${self%/bin/*}
exec "$tree/bin/python3" -I "$tree/lib/agentctl" "$@"
"""
_MAIN = """\
from agent.cli.main import main

main()
"""
# Only needed by what installs or inspects packages.
_NOT_OF_THE_METADATA = (
    "RECORD",
    "INSTALLER",
    "REQUESTED",
    "direct_url.json",
    "top_level.txt",
    "entry_points.txt",
)


def install_dependencies(python: Path, lock: Path, site: Path, pip: Path) -> None:
    """Exactly what the lock file names is in `site`, checked against its hashes; nothing is built from source.

    Raises:
        BuildFailed: a wheel is missing for this interpreter, or is not the one that was locked.
    """
    command = [str(pip), "--python", str(python), "--disable-pip-version-check", "install", "--quiet"]
    command += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--no-compile", "--no-user"]
    command += ["--root-user-action=ignore", "--target", str(site), "--requirement", str(lock)]
    if subprocess.run(command, check=False).returncode != 0:
        raise BuildFailed(f"The dependencies in {lock} can't be installed for {python}; pip says why, above.")
    shutil.rmtree(site / "bin", ignore_errors=True)
    for metadata in site.glob("*.dist-info"):
        for name in _NOT_OF_THE_METADATA:
            (metadata / name).unlink(missing_ok=True)
    for directory in [*site.glob("*/tests"), *site.rglob("__pycache__")]:
        shutil.rmtree(directory)
    for source in [*site.rglob("*.pyx"), *site.rglob("*.pyi"), *site.rglob("*.h"), *site.rglob("*.c")]:
        source.unlink()


def install_agent(source: Path, site: Path, tree: Path, version: str) -> None:
    """The agent's own code is in `site`, and says that it is of this version; tree/bin/agentctl starts it.

    Raises:
        BuildFailed: there is no C compiler.
    """
    shutil.copytree(source, site / "agent", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    _compile_library(site / "agent/install/posix")
    told = site / "agent/__init__.py"
    text, count = re.subn(r'__version__ = ".*"', f'__version__ = "{version}"', told.read_text("utf-8"))
    if count != 1:
        raise BuildFailed(f"{told} does not say a version.")
    told.write_text(text, "utf-8")
    (tree / "bin/agentctl").write_text(_STARTER, "utf-8")
    (tree / "bin/agentctl").chmod(0o755)
    (tree / "lib/agentctl").write_text(_MAIN, "utf-8")
    (tree / "version").write_text(f"{version}\n", "utf-8")


def _compile_library(directory: Path) -> None:
    """What Install does for a whole directory at once. The same source and compiler give the same bytes."""
    command = [
        "cc",
        "-O2",
        "-std=c11",
        "-shared",
        "-fPIC",
        "-s",
        "-Wl,--build-id=none",
        "-o",
        "_batched.so",
        "batched.c",
    ]
    try:
        done = subprocess.run(command, cwd=directory, check=False).returncode == 0
    except FileNotFoundError:
        done = False
    if not done:
        raise BuildFailed(
            "agent/install/posix/batched.c can't be compiled; a C compiler is needed (Debian: apt install gcc libc6-dev)."
        )
    (directory / "batched.c").unlink()


def trust_the_host(site: Path) -> None:
    """The CAs of the host count (agent/certificates.py), and not what came along when this was built."""
    (site / "certifi/cacert.pem").unlink()


def set_times(tree: Path, seconds: int) -> None:
    """Every file and directory is of this time: when it was copied here says nothing, and differs every time."""
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (seconds, seconds), follow_symlinks=False)


def compile_everything(tree: Path) -> None:
    """Every module has its byte code beside it, which is used without a look at the source.

    So nothing is ever written into the tree, and times of files don't matter. The same source gives the same bytes:
    one process, files in order, and no random order of sets.
    """
    program = (
        "import compileall, py_compile, sys\n"
        "mode = py_compile.PycInvalidationMode.UNCHECKED_HASH\n"
        "done = compileall.compile_dir(sys.argv[1], maxlevels=30, quiet=1, stripdir=sys.argv[1],"
        " prependdir='/usr/lib/codedeploy-agent/program', invalidation_mode=mode)\n"
        "sys.exit(not done)\n"
    )
    command = [str(tree / "bin/python3"), "-s", "-B", "-c", program, str(tree / "lib")]
    if subprocess.run(command, env={"PYTHONHASHSEED": "0"}, check=False).returncode != 0:
        raise BuildFailed(f"Not everything in {tree} can be compiled.")

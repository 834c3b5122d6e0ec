"""That the tree works by itself: nothing was left out that the agent, or what it stands on, may ever import."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from packages.errors import BuildFailed

if TYPE_CHECKING:
    from pathlib import Path

# Runs inside the tree. Imports that stand inside functions are looked up, as they would fail only in production.
_PROOF = """
import ast, importlib, importlib.util, pathlib, sys
prefix = pathlib.Path(sys.argv[1])
import agent
root = pathlib.Path(agent.__file__).parent
problems = []
for file in sorted(root.rglob("*.py")):
    name = ".".join(file.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
    if not name.endswith("__main__"):
        importlib.import_module(name)
    for node in ast.walk(ast.parse(file.read_text())):
        wanted = [item.name for item in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            wanted = [node.module]
        problems += [f"{name} imports {other}" for other in wanted
                 if other != "_typeshed" and importlib.util.find_spec(other) is None]  # that is type checkers' own
zstd = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
for other in (zstd, "_ssl", "_hashlib", "_lzma", "_bz2", "zlib", "_ctypes", "isal.igzip_lib", "psutil", "requests", "yaml"):
    importlib.import_module(other)
import yaml
if not yaml.__with_libyaml__:
    problems.append("yaml has no compiled parser")
from agent.specification.libcrypto import load_libcrypto
load_libcrypto()
for name, module in list(sys.modules.items()):
    place = getattr(module, "__file__", None)
    if place and not pathlib.Path(place).is_relative_to(prefix):
        problems.append(f"{name} comes from {place}")
for line in open("/proc/self/maps"):
    place = line.rstrip("\\n").partition("/")[2]
    if ".so" in place and not place.startswith(str(prefix)[1:]):
        library = place.rpartition("/")[2]
        if not library.startswith(("libc.", "libm.", "ld-", "libpthread.", "libdl.", "librt.", "libutil.", "libresolv.")):
            problems.append(f"/{place} was loaded")
if problems:
    sys.exit("\\n".join(sorted(set(problems))))
"""


def prove(tree: Path) -> None:
    """Every module can be imported, from the tree and nowhere else, and no library comes from this machine but glibc.

    Raises:
        BuildFailed: with what is missing.
    """
    python = str(tree / "bin/python3")
    answer = subprocess.run(
        [python, "-IB", "-c", _PROOF, str(tree)], capture_output=True, text=True, check=False, env={}
    )
    if answer.returncode != 0:
        raise BuildFailed(f"The program in {tree} is not complete:\n{answer.stderr}")
    answer = subprocess.run(
        [str(tree / "bin/agentctl"), "version"], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise BuildFailed(f"{tree}/bin/agentctl does not start:\n{answer.stderr}")

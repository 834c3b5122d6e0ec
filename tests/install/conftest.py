"""A host to install on: destinations, archives and the instructions directory below one temporary directory."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.appspec import parse_appspec
from agent.install import InstallOptions, InstallRequest, InstallSummary, install
from agent.protocol import FileExistsBehavior

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

GROUP = "11111111-2222-3333-4444-555555555555"


def _trees() -> ModuleType:
    """The module beside this one: tests are no package, so it has to be loaded by its path."""
    name = "install_test_trees"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("trees.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


class Host:
    """One group's deployments on one host."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.dest = base / "dest"
        self.instructions = base / "root" / "deployment-instructions"
        self.group_id = GROUP
        self.trees = _trees()
        self._number = 0

    def write(self, tree: dict[str, Any], root: Path | None = None) -> None:
        """Put these files at the destination."""
        self.trees.write_tree(root or self.dest, tree)

    def tree(self) -> dict[str, Any]:
        """What is at the destination."""
        found: dict[str, Any] = self.trees.read_tree(self.dest)
        return found

    def everything(self) -> dict[str, Any]:
        """The same with inodes, times, owners: all that an undo has to bring back."""
        found: dict[str, Any] = self.trees.everything_about(self.dest)
        return found

    def request(
        self,
        archive: dict[str, Any],
        appspec: str,
        *,
        behavior: FileExistsBehavior = FileExistsBehavior.DISALLOW,
        **options: bool,
    ) -> InstallRequest:
        """The request to install this archive. `@DEST@` and `@BASE@` in the AppSpec stand for our directories."""
        self._number += 1
        deployment_id = f"d-{self._number:09}"
        root = self.base / "root" / self.group_id / deployment_id / "deployment-archive"
        self.write(archive, root)
        text = appspec.replace("@DEST@", str(self.dest)).replace("@BASE@", str(self.base))
        if "version:" not in text:
            text = "version: 0.0\nos: linux\n" + text
        return InstallRequest(
            appspec=parse_appspec(text.encode(), path="appspec.yml"),
            archive=root,
            instructions_directory=self.instructions,
            group_id=self.group_id,
            deployment_id=deployment_id,
            file_exists_behavior=behavior,
            options=InstallOptions(**options),
        )

    def install(
        self,
        archive: dict[str, Any],
        appspec: str = "files: [{source: app, destination: '@DEST@/app'}]",
        *,
        observer: Callable[[str, bytes], None] | None = None,
        **rest: Any,
    ) -> InstallSummary:
        """Install it."""
        request = self.request(archive, appspec, **rest)
        return install(request) if observer is None else install(request, observer=observer)

    def leftovers(self) -> list[str]:
        """Hidden names and journals that no Install may leave behind."""
        hidden = list(self.base.rglob(".install-*"))
        journals = [
            path
            for path in self.instructions.glob("*")
            if "journal" in path.name or path.name.startswith(".")
        ]
        return sorted(str(path) for path in hidden + journals)

    def cleanup(self) -> list[str]:
        """Lines of the cleanup file, with `@DEST@` for the destination."""
        text = (
            (self.instructions / f"{self.group_id}-cleanup").read_bytes().decode("utf-8", "surrogateescape")
        )
        return text.replace(str(self.dest), "@DEST@").splitlines()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host on which nothing was ever deployed."""
    return Host(tmp_path)

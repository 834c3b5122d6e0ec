"""One group's deployments on one host."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from agent.appspec import parse_appspec
from agent.archive_index import DIRECTORY, LINK, UNKNOWN, IndexWriter, index_of
from agent.errors import CommandFailure
from agent.install import InstallOptions, InstallRequest, install, recover_install
from agent.listings import content_digest
from agent.logs import LogSink, command_log
from agent.protocol import FileExistsBehavior
from tests.install.children import in_child
from tests.install.trees import everything_about, read_tree, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.install import InstallSummary
    from agent.install.model.moments import Observer
    from tests.install.trees import Found

GROUP = "11111111-2222-3333-4444-555555555555"
FILES = "files: [{source: app, destination: '@DEST@/app'}]"


def failure_of(act: Callable[[], object]) -> CommandFailure | None:
    """How this failed; None when it did not."""
    try:
        act()
    except CommandFailure as failure:
        return failure
    return None


class Host:
    """One group's deployments on one host, all of it below `base`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.dest = base / "dest"
        self.instructions = base / "root" / "deployment-instructions"
        self.group_id = GROUP
        self._number = 0

    def write(self, tree: dict[str, Any], root: Path | None = None) -> None:
        """Put these files at the destination."""
        write_tree(root or self.dest, tree)

    def tree(self) -> dict[str, Any]:
        """What is at the destination."""
        return read_tree(self.dest)

    def everything(self) -> dict[str, Found]:
        """The same with inodes, times, owners: all that an undo has to bring back."""
        return everything_about(self.dest)

    def records(self) -> dict[str, bytes]:
        """Name → content of what lies in the instructions directory."""
        if not self.instructions.exists():
            return {}
        return {path.name: path.read_bytes() for path in sorted(self.instructions.iterdir())}

    def request(
        self,
        archive: dict[str, Any],
        appspec: str = FILES,
        *,
        behavior: FileExistsBehavior = FileExistsBehavior.DISALLOW,
        is_indexed: bool = True,
        **options: Any,
    ) -> InstallRequest:
        """The request to install this archive. `@DEST@` and `@BASE@` in the AppSpec stand for our directories.

        The archive has an index, as if it had been unpacked from a bundle, unless `is_indexed` says otherwise.
        """
        self._number += 1
        deployment_id = f"d-{self._number:09}"
        root = self.base / "root" / self.group_id / deployment_id / "deployment-archive"
        self.write(archive, root)
        if is_indexed:
            write_index(root)
        text = appspec.replace("@DEST@", str(self.dest)).replace("@BASE@", str(self.base))
        if "version:" not in text:
            text = "version: 0.0\nos: linux\n" + text
        return InstallRequest(
            appspec=parse_appspec(text.encode("utf-8", "surrogateescape"), path="appspec.yml"),
            archive=root,
            instructions_directory=self.instructions,
            group_id=self.group_id,
            deployment_id=deployment_id,
            file_exists_behavior=behavior,
            agent_directories=(self.base / "root",),
            options=InstallOptions(**options),
        )

    def install(
        self,
        archive: dict[str, Any],
        appspec: str = FILES,
        *,
        observer: Observer | None = None,
        **rest: Any,
    ) -> InstallSummary:
        """Install it."""
        request = self.request(archive, appspec, **rest)
        return install(request) if observer is None else install(request, observer=observer)

    def recover(self) -> bool:
        """What the next start of the agent does."""
        return recover_install(self.instructions, self.group_id)

    def leftovers(self) -> list[str]:
        """Hidden names at the destination, and what is in the instructions directory beside the three records."""
        hidden = [str(path) for path in self.dest.rglob(".*install*")]
        known = {f"{self.group_id}-{what}" for what in ("install.json", "cleanup", "manifest")}
        return sorted(hidden + [name for name in self.records() if name not in known])

    def cleanup(self) -> list[str]:
        """Lines of the cleanup file, with `@DEST@` for the destination."""
        text = (
            (self.instructions / f"{self.group_id}-cleanup").read_bytes().decode("utf-8", "surrogateescape")
        )
        return text.replace(str(self.dest), "@DEST@").splitlines()


def write_index(archive: Path) -> None:
    """The index that unpacking a bundle leaves beside its archive."""
    writer, top = IndexWriter(), os.fsencode(archive)
    for directory, directories, names in os.walk(top):
        for path in (os.path.join(directory, name) for name in directories + names):
            status, below = os.lstat(path), path[len(top) + 1 :]
            if stat.S_ISLNK(status.st_mode):
                writer.note(below, LINK)
            elif stat.S_ISDIR(status.st_mode):
                writer.note(below, DIRECTORY)
            elif not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                writer.note(below, UNKNOWN)
            else:
                with open(path, "rb") as stream:
                    digest = content_digest(stream.read())
                writer.add(below, status, digest)
        writer.identify(directory[len(top) + 1 :], os.lstat(directory))
    writer.write(index_of(archive))


def logged_by(act: Callable[[], object], place: Path) -> str:
    """What this writes to the log, which lies in `place` meanwhile. It runs in a process of its own."""
    path = place / "log"

    def body() -> None:
        command_log.configure(LogSink(path, to_stderr=False))
        act()

    in_child(body)
    return path.read_text() if path.exists() else ""

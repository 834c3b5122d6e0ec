"""What Install leaves about a deployment group: names only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.files import is_there

if TYPE_CHECKING:
    from pathlib import Path

_JOURNALS = ("-journal", "-journal-committed")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFiles:
    """Paths of the files about one deployment group. Arithmetic only."""

    directory: Path
    group_id: str

    @property
    def instructions(self) -> Path:
        """What the last Install did, in the existing agents' format."""
        return self.directory / f"{self.group_id}-install.json"

    @property
    def cleanup(self) -> Path:
        """What the last Install created, in the existing agents' format."""
        return self.directory / f"{self.group_id}-cleanup"

    @property
    def manifest(self) -> Path:
        """What the last Install created, in ours."""
        return self.directory / f"{self.group_id}-manifest"

    @property
    def journal(self) -> Path:
        """Exists while an Install can still be undone."""
        return self.directory / f"{self.group_id}{_JOURNALS[0]}"

    @property
    def committed_journal(self) -> Path:
        """Exists when an Install has succeeded, but the old files are not all gone yet."""
        return self.directory / f"{self.group_id}{_JOURNALS[1]}"

    def staged(self, path: Path, token: str) -> Path:
        """Where the next content of one of these files waits until the Install has succeeded."""
        return path.with_name(f".{path.name}.{token}")

    @property
    def is_interrupted(self) -> bool:
        """Whether an Install has begun that is neither completed nor undone.

        Raises:
            CommandFailure: `install-journal-unreadable`; that can't be told.
        """
        return self.has_journal or self.has_committed_journal

    @property
    def has_journal(self) -> bool:
        """Whether there is an Install that can still be undone.

        Raises:
            CommandFailure: `install-journal-unreadable`; that can't be told.
        """
        return self._has(self.journal)

    @property
    def has_committed_journal(self) -> bool:
        """Whether there is an Install that has succeeded, but of which old files are left.

        Raises:
            CommandFailure: `install-journal-unreadable`; that can't be told.
        """
        return self._has(self.committed_journal)

    def _has(self, journal: Path) -> bool:
        try:
            return is_there(journal)
        except OSError as error:
            raise CommandFailure(
                "install-journal-unreadable",
                f"Nobody knows whether an Install of deployment group {self.group_id} was interrupted, because "
                f"{os.fsdecode(error.filename or self.directory)} can't be looked at: {error.strerror or error}. Nothing "
                "was changed. Make it readable, and deploy again.",
            ) from error


def interrupted_groups(directory: Path) -> list[str]:
    """Ids of the groups with an Install that is neither completed nor undone, or that is at work.

    Raises:
        OSError: the directory can't be read; that it is not there is no error.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    found = {name.removesuffix(suffix) for name in names for suffix in _JOURNALS if name.endswith(suffix)}
    return sorted(found)

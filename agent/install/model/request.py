"""What Install is asked to do, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.protocol import FileExistsBehavior

if TYPE_CHECKING:
    from pathlib import Path

    from agent.appspec import AppSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallOptions:
    """What the administrator of the host decides.

    Attributes:
        follow_directory_symlinks: copy what a link to a directory leads to, not the link.
        reject_symlink_permission_targets: fail when `permissions` meets a link; otherwise only
            owner and group of the link itself are set, and never anything behind it.
        durable: wait until everything is on the disk before the old files go.
        processes: how many may copy files at the same time, where there are many and the host has the processors.
        overlap_patience_s: how long to wait for another group's Install that makes something at the same places.
        undo_patience_s: how long putting everything back is tried again when the system refuses it.
        follow_links_of_others: patterns (as of `fnmatch`) of paths of links that are followed whoever has made them, where
            otherwise only those are that lead nowhere where their makers could not write themselves.
    """

    follow_directory_symlinks: bool = False
    reject_symlink_permission_targets: bool = False
    durable: bool = True
    processes: int = 1
    overlap_patience_s: float = 0.0
    undo_patience_s: float = 0.0
    follow_links_of_others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallRequest:
    """One Install command.

    Attributes:
        archive: the unpacked revision.
        instructions_directory: where the group's install.json, cleanup file and manifest lie.
        file_exists_behavior: the deployment's; the AppSpec's own wins over it.
        agent_directories: what the agent keeps there is its own, so that nothing is ever installed there.
    """

    appspec: AppSpec
    archive: Path
    instructions_directory: Path
    group_id: str
    deployment_id: str
    file_exists_behavior: FileExistsBehavior = FileExistsBehavior.DISALLOW
    agent_directories: tuple[Path, ...] = ()
    options: InstallOptions = field(default_factory=InstallOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallSummary:
    """What an Install did; all numbers are of files and links unless they say otherwise.

    Attributes:
        unchanged: was there already, with the same content and attributes.
        retained: others' files at destinations of the revision, which the rule RETAIN leaves in their places.
        removed: only the previous revision had it.
        left_behind: paths that only the previous revision had, and that are still there, since somebody has changed them
            or they can't be removed.
    """

    created: int
    replaced: int
    unchanged: int
    retained: int
    removed: int
    left_behind: tuple[str, ...]
    directories_created: int
    copied_bytes: int

"""The deployment archive of an earlier deployment, used again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.bundle.replacement import holds_appspec, replaced_directory
from agent.bundle.tree_copy import copy_tree
from agent.errors import CommandFailure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def reuse_archive(earlier: Path, archive: Path, appspec_names: Sequence[str]) -> int:
    """Afterwards `archive` is a copy of `earlier`, owners included; its size in bytes is returned.

    That `earlier` is an archive of the same deployment group is the caller's to know.

    Args:
        earlier: the deployment archive to copy.
        archive: what to make; its parent must exist. If anything fails, nothing of the copy is left.
        appspec_names: paths that an AppSpec may have, relative to the archive.

    Raises:
        CommandFailure: `archive-reuse-incomplete`, `earlier` isn't there or has no AppSpec; or it can't be
            copied. The caller then downloads the bundle.
    """
    if earlier.is_symlink() or not holds_appspec(earlier, appspec_names):
        raise CommandFailure(
            "archive-reuse-incomplete",
            f"The earlier deployment archive {earlier} can't be used again: it isn't there any more, or has no"
            f" AppSpec ({', '.join(appspec_names)}).",
        )
    with replaced_directory(archive) as fresh:
        return copy_tree(earlier, fresh.path, keeps_owners=True)

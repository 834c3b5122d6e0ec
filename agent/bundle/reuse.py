"""The deployment archive of an earlier deployment, used again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.archive_index import ArchiveIndex, index_of
from agent.bundle.failures import printable
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
        CommandFailure: `archive-reuse-incomplete`, `earlier` isn't there, has no AppSpec, or lacks what was in
            it when it was made; or it can't be copied. The caller then downloads the bundle.
    """
    if earlier.is_symlink() or not holds_appspec(earlier, appspec_names):
        raise CommandFailure(
            "archive-reuse-incomplete",
            f"The earlier deployment archive {earlier} can't be used again: it isn't there any more, or has no"
            f" AppSpec ({', '.join(appspec_names)}).",
        )
    with replaced_directory(archive) as fresh:
        copied = copy_tree(earlier, fresh.path, keeps_owners=True)
        # Its scripts, or a program that tidies up, may have removed some of it since.
        gone = [path for path in ArchiveIndex(earlier).paths() if not copied.index.holds(path)]
        if gone:
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            raise CommandFailure(
                "archive-reuse-incomplete",
                f"The earlier deployment archive {earlier} can't be used again: {printable(min(gone))}{more} of what was"
                " in it has been removed since.",
            )
        copied.index.write(index_of(archive))
        return copied.size_bytes

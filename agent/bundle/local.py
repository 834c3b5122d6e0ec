"""A bundle, or a directory, that is on this host already."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from agent.archive_index import index_of
from agent.bundle.failures import not_written
from agent.bundle.replacement import replaced_directory
from agent.bundle.tree_copy import copy_tree
from agent.errors import CommandFailure
from agent.protocol import BundleType

if TYPE_CHECKING:
    from pathlib import Path

    from agent.specification import LocalRevision


def link_local_bundle(revision: LocalRevision, bundle: Path) -> int:
    """Afterwards `bundle` is a symbolic link to the revision's file, whose size in bytes is returned.

    A link as it has always been: nothing is kept of a local deployment that the user hasn't got.

    Raises:
        CommandFailure: `bundle-local-missing`, `bundle-local-wrong-kind`.
    """
    found = _checked(revision)
    beside = bundle.with_name(f".{bundle.name}.part")
    try:
        beside.unlink(missing_ok=True)
        beside.symlink_to(os.path.abspath(revision.location))
        os.rename(beside, bundle)
    except OSError as error:
        raise not_written(bundle, error) from error
    return found.st_size


def copy_local_directory(revision: LocalRevision, archive: Path) -> int:
    """Afterwards `archive` has everything of the revision's directory; its size in bytes is returned.

    Modes, times and links are kept. Owners are not: the files become the agent's.

    Raises:
        CommandFailure: `bundle-local-missing`, `bundle-local-wrong-kind`, `bundle-local-overlap`, or it can't
            be copied.
    """
    _checked(revision)
    source = os.path.realpath(revision.location)
    target = os.path.realpath(archive)
    if os.path.commonpath([source, target]) == source:
        raise CommandFailure(
            "bundle-local-overlap",
            f"The directory {revision.location} can't be deployed: the deployment archive {archive} lies in it."
            " Deploy a directory outside of the agent's root_dir, or set another root_dir.",
        )
    with replaced_directory(archive) as fresh:
        copied = copy_tree(revision.location, fresh.path, keeps_owners=False)
        copied.index.write(index_of(archive))
        return copied.size_bytes


def _checked(revision: LocalRevision) -> os.stat_result:
    """Of the file or directory, whichever the bundle type asks for."""
    try:
        found = os.stat(revision.location)
    except OSError as error:
        raise CommandFailure(
            "bundle-local-missing",
            f"The revision {revision.location} can't be deployed: {error.strerror}. Check the path.",
        ) from error
    wants_directory = revision.bundle_type is BundleType.DIRECTORY
    if (
        wants_directory
        if stat.S_ISDIR(found.st_mode)
        else stat.S_ISREG(found.st_mode) and not wants_directory
    ):
        return found
    kind = "a directory" if stat.S_ISDIR(found.st_mode) else "not a directory"
    raise CommandFailure(
        "bundle-local-wrong-kind",
        f"The revision {revision.location} can't be deployed: its type is given as"
        f" {revision.bundle_type.value}, and it is {kind}. Give the right type.",
    )

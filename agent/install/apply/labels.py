"""SELinux labels of what an Install has put in its place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure
from agent.files import is_there
from agent.install.attributes.selinux import add_rule, drop_rule, label_descriptor
from agent.install.journal.entries import Label
from agent.install.journal.journal import Journal
from agent.install.posix.copying import ITSELF
from agent.install.records.manifest import LABEL_PREFIX, take_labels
from agent.install.records.previous import fitting_records
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.appspec import SelinuxContext
    from agent.install.posix.places import Places

log = get_logger()

_ENDS = ("-cleanup", "-journal", "-journal-committed")


def give_label(path: bytes, context: SelinuxContext, places: Places, *, is_known: bool) -> None:
    """Have the host's policy give this path the label, and give it to what this Install has put there.

    That is opened in the directory that was found, and not looked for by its path: links on the way may lead elsewhere
    by now, and be another user's.

    Args:
        path: of a file or directory, as the AppSpec spells it.
        context: the label.
        places: of this Install.
        is_known: an earlier Install has added a rule for this very path.

    Raises:
        OSError: it can't be given.
    """
    add_rule(path, context, is_known=is_known)
    above, _slash, name = path.rpartition(b"/")
    descriptor = os.open(name, ITSELF, dir_fd=places.of(places.resolve(above).real))
    try:
        label_descriptor(descriptor, context)
    finally:
        os.close(descriptor)


def restore_label(entry: Label, places: Places, journal: Path) -> None:
    """Put the rule of an earlier Install back, or drop ours where there was none; a failure is only logged.

    Args:
        entry: about the rule.
        places: of the journal.
        journal: which one that is.
    """
    if entry.had_rule:
        rule: SelinuxContext | None = entry.was
    else:
        other = _rule_of_others(entry.path, journal)
        if other is None:
            drop_rule(entry.path)
            return
        rule = other.context
    if rule is None:
        return
    try:
        give_label(entry.path, rule, places, is_known=True)
    except OSError as error:
        log.warning("selinux_rule_not_restored", path=repr(entry.path), error=str(error))


def drop_label(path: bytes, journal: Path) -> None:
    """Drop the rule for this path that the Install before has added, unless another group wants one there.

    Args:
        path: as the AppSpec has spelled it.
        journal: of this Install.
    """
    if _rule_of_others(path, journal) is None:
        drop_rule(path)


class _OtherRule(NamedTuple):
    """Another group wants a rule for a path; the context is None when it is not known."""

    context: SelinuxContext | None


def _rule_of_others(path: bytes, journal: Path) -> _OtherRule | None:
    """The rule for this path that a group wants whose journal is another one: it is installed, or just being so."""
    for files in _groups(journal.parent):
        if journal in {files.journal, files.committed_journal}:
            continue
        try:
            records = fitting_records(files)
            listed = take_labels(records.listed)[0]
            wanted = [entry for name in (files.journal, files.committed_journal) for entry in _labels(name)]
        except (OSError, CommandFailure) as error:
            log.warning("selinux_rule_kept", path=repr(path), group_id=files.group_id, error=str(error))
            return _OtherRule(None)
        if path in listed or LABEL_PREFIX + path in (records.cleanup or b"").split(b"\n"):
            return _OtherRule(listed.get(path))
        if any(entry.path == path for entry in wanted):
            return _OtherRule(None)
    return None


def _groups(directory: Path) -> Iterator[GroupFiles]:
    """The files of each group that has a list of what it has installed, or a journal."""
    names = [path.name for path in directory.iterdir() if not path.name.startswith(".")]
    found = {name.removesuffix(end) for name in names for end in _ENDS if name.endswith(end)}
    for group_id in sorted(found):
        yield GroupFiles(directory=directory, group_id=group_id)


def _labels(journal: Path) -> list[Label]:
    """Those that an Install gives that is neither complete nor undone."""
    return list(Journal(journal).entries(Label)) if is_there(journal) else []

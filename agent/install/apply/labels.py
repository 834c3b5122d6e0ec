"""SELinux labels of what an Install has put in its place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.install.attributes.selinux import add_rule, drop_rule, label_descriptor, label_path
from agent.logs import get_logger

if TYPE_CHECKING:
    from agent.appspec import SelinuxContext
    from agent.install.journal.entries import Label
    from agent.install.posix.places import Places

log = get_logger()

_ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def give_label(path: bytes, context: SelinuxContext, places: Places, *, is_known: bool) -> None:
    """Have the host's policy give this path the label, and give it to what this Install has put there.

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
    directory = places.resolve(above).real
    descriptor = os.open(name, _ITSELF, dir_fd=places.of(directory))
    try:
        if any(places.changers(directory, os.fstat(descriptor))):
            label_descriptor(descriptor, context)
            return
    finally:
        os.close(descriptor)
    label_path(path)


def restore_label(entry: Label, places: Places) -> None:
    """Put the rule of an earlier Install back, or drop ours where there was none; a failure is only logged."""
    if not entry.had_rule:
        drop_rule(entry.path)
    elif entry.was is not None:
        try:
            give_label(entry.path, entry.was, places, is_known=True)
        except OSError as error:
            log.warning("selinux_rule_not_restored", path=repr(entry.path), error=str(error))

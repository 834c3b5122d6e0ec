"""The directories that a journal names, as places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.install.journal.entries import Losing, Touched
from agent.install.posix.link_rule import link_rule
from agent.install.posix.places import Places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.install.journal.journal import Journal


def places_of_journal(journal: Journal) -> Places:
    """None of them is taken for another directory that somebody has put in its place since. To be closed in the end."""
    places = Places(link_rule(journal.path.parent))
    entries: Iterator[Touched | Losing] = journal.entries(Touched, Losing)
    for entry in entries:
        places.expect(entry.path, entry.inode, entry.born_ns)
    return places

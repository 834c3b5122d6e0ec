"""The plan of an Install that leaves all but a few files as they are.

Only these are planned, by the rules for all files. What it skips rests on what `compare/repetition.py` says: all directories
are there, and hold the names that they are to hold, of which none comes or goes. So whatever goes beyond replacing files of
ours, which is a conflict or a name that was lost, is left to a plan of everything, which is then the one to say it (I10).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.install.plan.files_section import plan_section
from agent.install.plan.plan import InstallPlan
from agent.install.posix.mounts import is_mounted
from agent.install.posix.places import Kind, Resolved
from agent.install.records.brought import BroughtDirectories
from agent.install.records.installed import Previous, PreviousFiles
from agent.install.records.manifest import is_in_state
from agent.install.revision.sources import SourceFiles, placement_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.appspec import FileMapping
    from agent.archive_index import ArchiveIndex
    from agent.install.compare.other_groups import OtherGroups
    from agent.install.compare.recorded_directories import RecordedDirectories
    from agent.install.compare.repetition import Repetition
    from agent.install.model.request import InstallRequest
    from agent.install.model.steps import Step
    from agent.install.posix.places import Places


def plan_changes(
    request: InstallRequest,
    repetition: Repetition,
    asked: bytes,
    *,
    index: ArchiveIndex,
    others: OtherGroups,
    places: Places,
) -> InstallPlan | None:
    """The plan, with what is known of this Install; None when all of it has to be planned.

    Raises:
        OSError: something can't be looked at.
    """
    known = _previous_of(repetition, places)
    if known is None or not all(map(is_mounted, repetition.mount_points)):
        return None
    previous, states = known
    steps: list[Step] = []
    if repetition.changed:
        section = plan_section(
            request,
            previous,
            index,
            others,
            places,
            entries_of=lambda mapping: _entries(repetition, mapping, os.fsencode(request.archive)),
        )
        if section.problems or section.obstacles or section.clearance.foreign or others.are_installing():
            return None
        steps = section.steps
    return InstallPlan(
        steps=steps,
        foreign=[],
        removals=[],
        edited=[],
        shared={},
        outdated_directories=[],
        has_attributes=False,
        previous=previous,
        index=index,
        asked=asked,
        states=states,
        repetition=repetition,
        file_count=repetition.file_count + sum(len(changed.names) for changed in repetition.changed),
        mount_points=repetition.mount_points,
    )


def _previous_of(repetition: Repetition, places: Places) -> tuple[Previous, dict[bytes, bytes]] | None:
    """What is ours of the directories with changed files, and above them; and the states that a manifest may tell of these.

    None when one is not in the state any more that it was in just now, or is another one that somebody may have moved there.

    Raises:
        OSError: one is gone.
    """
    recorded, files = repetition.recorded, PreviousFiles(repetition.listed)
    brought = BroughtDirectories(recorded.told, repetition.written_ns, places)
    asked: set[bytes] = set()
    previous = Previous(files=files, deployment_id=os.fsdecode(repetition.header.deployment_id))
    states: dict[bytes, bytes] = {}
    for changed in repetition.changed:
        path = changed.path
        for above in _not_asked(path, recorded, asked):
            if brought.has(above, Resolved(recorded.reals[above], Kind.DIRECTORY), None):
                return None
        if changed.known is None:
            files.add_section(recorded.reals[path], path)
        else:
            for name, fields in changed.known.items():
                files.add_name(recorded.reals[path], name, fields)
        while recorded.states.get(path) is not None and recorded.reals[path] not in states:
            real, now = recorded.reals[path], repetition.states.get(path)
            state = recorded.states[path] if now is None else now.state
            if not state or not is_in_state(places.status(real), state):
                return None
            previous.directories[real] = path
            previous.untouched[real] = state
            states[real] = state if now is None or now.is_lasting else b""
            path = path.rpartition(b"/")[0]
    return previous, states


def _not_asked(path: bytes, recorded: RecordedDirectories, asked: set[bytes]) -> list[bytes]:
    """This directory and those above it that are recorded and not among the others, the outermost first; then they are."""
    found = []
    while path and path not in asked:
        if path in recorded.reals:
            found.append(path)
        asked.add(path)
        path = path.rpartition(b"/")[0]
    return found[::-1]


def _entries(repetition: Repetition, mapping: FileMapping, archive: bytes) -> Iterator[SourceFiles]:
    """What this entry of `files` copies of what has changed."""
    placement = placement_of(archive, mapping)
    sources = placement.sources_of([changed.path for changed in repetition.changed])
    for changed in repetition.changed:
        if sources.get(changed.path) == changed.source:
            below = changed.source[len(placement.source) + 1 :]
            yield SourceFiles(below, changed.source, changed.names, changed.links)

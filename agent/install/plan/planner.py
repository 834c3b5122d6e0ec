"""What an Install will do, found out before anything changes."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.archive_index import ArchiveIndex
from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure
from agent.install.compare.other_groups import OtherGroups
from agent.install.compare.repetition import asked_by, find_repetition
from agent.install.model.steps import PlannedFiles
from agent.install.plan.changes import plan_changes
from agent.install.plan.conflicts import conflicts_of
from agent.install.plan.files_section import plan_section
from agent.install.plan.mounted import check_mounted, mount_points_of
from agent.install.plan.permissions_section import assign_attributes
from agent.install.plan.plan import InstallPlan
from agent.install.plan.reasons import listed
from agent.install.plan.removals import planned_removals
from agent.install.posix.link_rule import link_rule
from agent.install.posix.open_directories import FEW_OPEN, PlaceChanged
from agent.install.posix.places import Places
from agent.install.posix.protection import remedy_for
from agent.install.records.previous import previous_of, read_records
from agent.logs import get_logger

if TYPE_CHECKING:
    from agent.install.compare.survey import Survey
    from agent.install.model.request import InstallRequest
    from agent.install.plan.files_section import PlannedSection
    from agent.install.records.installed import Previous

log = get_logger()


class ChangedWhilePlanned(CommandFailure):
    """Somebody has replaced or removed a directory while the Install was planned: it may work when it is planned again."""


def places_of(request: InstallRequest, most_open: int = FEW_OPEN) -> Places:
    """No place is resolved yet. To be closed in the end.

    Args:
        request: what is to be installed.
        most_open: how many directories are kept open.
    """
    rule = link_rule(request.instructions_directory, request.options.follow_links_of_others)
    return Places(rule, most_open)


def plan_install(
    request: InstallRequest,
    places: Places | None = None,
    *,
    survey: Survey | None = None,
    trusts_states: bool = True,
    for_other_user: bool = False,
) -> InstallPlan:
    """The plan; nothing is changed (I11).

    Args:
        request: what to install.
        places: from `places_of`, for whoever goes on with the plan; everything is resolved once, and now.
        survey: begun as early as possible.
        trusts_states: whether directories of ours are not listed that are in the state that they were left in.
        for_other_user: somebody else will install, who may give files to others than we; the plan gives no owners and
            groups, but names them.

    Raises:
        InstallConflicts: something is in the way.
        ChangedWhilePlanned: somebody changes directories meanwhile.
        InstallOverlap: another group is currently installing something where this one is to be, such as the directory
            above both.
        CommandFailure: `install-source-invalid`, `permissions-invalid`, `install-records-unreadable`,
            `install-journal-unreadable`, or `install-failed` when something can't be looked at.
    """
    if places is None:
        with closing(places_of(request)) as own:
            return plan_install(
                request, own, survey=survey, trusts_states=trusts_states, for_other_user=for_other_user
            )
    plan = _plan(request, places, survey, trusts_states=trusts_states, for_other_user=for_other_user)
    for path, group_id in plan.shared.items():
        log.warning("file_of_other_group_kept", path=os.fsdecode(path), group_id=group_id)
    return plan


def _plan(
    request: InstallRequest,
    places: Places,
    survey: Survey | None,
    *,
    trusts_states: bool,
    for_other_user: bool,
) -> InstallPlan:
    files = GroupFiles(directory=request.instructions_directory, group_id=request.group_id)
    others = OtherGroups(files.directory, files.group_id, places)
    records, index = read_records(files), ArchiveIndex(request.archive)
    asked = asked_by(request, index)
    try:
        if survey is not None and trusts_states:
            repetition = find_repetition(
                request, asked, records, index, others=others, places=places, survey=survey
            )
            if repetition is not None:
                plan = plan_changes(request, repetition, asked, index=index, others=others, places=places)
                if plan is not None:
                    survey.take(repetition.found())
                    return plan
        previous = previous_of(records, places)
        check_mounted(files, records, previous, places)
        if not trusts_states:
            previous = replace(previous, untouched={})
        if survey is not None:
            survey.begin(request, index, previous.files)
        section = plan_section(request, previous, index, others, places)
        others.check_overlap(lambda parent, name: section.needs(parent, name) or previous.owns(parent, name))
        _raise_problems(request, section, previous, others)
        has_attributes = assign_attributes(request, section, places, for_other_user=for_other_user)
        removals, edited, shared = planned_removals(
            previous, section.names, section.destinations, others, places
        )
    except OSError as error:
        path = os.fsdecode(error.filename or b"")
        message = (
            f"Install can't be planned, because {path} can't be looked at: {error.strerror}. Nothing was changed."
            f" {remedy_for(path, error)}, and deploy again."
        )
        failure = ChangedWhilePlanned if isinstance(error, PlaceChanged) else CommandFailure
        raise failure("install-failed", message) from error
    outdated = [real for real in previous.directories if real not in section.destinations.by_real]
    return InstallPlan(
        steps=section.steps,
        foreign=section.clearance.foreign,
        removals=removals,
        edited=edited,
        shared=shared,
        outdated_directories=sorted(outdated, key=len, reverse=True),
        has_attributes=has_attributes,
        previous=previous,
        index=index,
        asked=asked,
        states=section.destinations.states,
        file_count=sum(len(step.names) for step in section.steps if isinstance(step, PlannedFiles)),
        mount_points=mount_points_of(section.steps),
    )


def _raise_problems(
    request: InstallRequest, section: PlannedSection, previous: Previous, others: OtherGroups
) -> None:
    """Check that all that the section wants is possible."""
    if section.problems:
        message = (
            f"The files section can't be installed, and nothing was changed: {listed(section.problems)}."
        )
        raise CommandFailure("install-source-invalid", message)
    if section.obstacles:
        raise conflicts_of(request, section.obstacles, others, previous.doubts)

"""Planning the `permissions` section: which of its entries goes for which planned file and directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.errors import HostNotReady
from agent.install.attributes.permissions import (
    Assignment,
    PermissionProblems,
    log_unused,
    resolve_attributes,
)
from agent.install.attributes.selinux import labels_to_set
from agent.install.model.steps import PlannedDirectory
from agent.install.plan.reasons import listed

if TYPE_CHECKING:
    from agent.install.model.attributes import Attributes
    from agent.install.model.request import InstallRequest
    from agent.install.plan.files_section import PlannedSection
    from agent.install.posix.places import Places


def assign_attributes(
    request: InstallRequest, section: PlannedSection, places: Places, *, for_other_user: bool = False
) -> bool:
    """Give each step of the section what `permissions` has for it; whether that is anything.

    Args:
        request: has the section.
        section: as planned.
        places: of this Install.
        for_other_user: as for `plan_install`.

    Raises:
        HostNotReady: `permissions-invalid`.
        OSError: something can't be looked at.
    """
    problems: list[str] = []
    resolved = []
    for number, permission in enumerate(request.appspec.permissions):
        try:
            resolved.append(resolve_attributes(permission, number, for_other_user=for_other_user))
        except PermissionProblems as found:
            problems += found.problems
    assignment = Assignment(resolved, section.names, places)
    refuses_links = request.options.reject_symlink_permission_targets
    used = _assign(section, assignment, problems, refuses_links=refuses_links)
    problems += assignment.problems
    problems += labels_to_set(used.values())
    if problems:
        message = f"The permissions section can't be applied, and nothing was changed: {listed(problems)}."
        raise HostNotReady("permissions-invalid", message)
    log_unused(found for found in resolved if found.number not in used)
    return bool(used)


def _assign(
    section: PlannedSection, assignment: Assignment, problems: list[str], *, refuses_links: bool
) -> dict[int, Attributes]:
    """Those that are given to anything, by number, in the order in which they are."""
    used: dict[int, Attributes] = {}
    if assignment.is_empty:
        return used
    for step in section.steps:
        if isinstance(step, PlannedDirectory):
            attributes = assignment.of_directory(step.directory)
            if attributes is not None:
                step.attributes = used[attributes.number] = attributes
            continue
        for name in step.names:
            attributes = assignment.of_file(step.directory, name)
            if attributes is None:
                continue
            step.attributes[name] = used[attributes.number] = attributes
            if refuses_links and name in step.links:
                problems.append(
                    f"{os.fsdecode(step.prefix + name)} is a link, which the entry in AppSpec line"
                    f" {attributes.permission.line} matches, and reject_symlink_permission_targets is set on this host;"
                    " leave the link out of the entry with pattern or except"
                )
    return used

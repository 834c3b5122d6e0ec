"""What one attempt at an Install works with, from its plan to its end."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from agent.install.attributes.of_new_directories import FreshDirectories
from agent.install.model.directory import Standing
from agent.install.model.steps import PlannedDirectory, PlannedFiles
from agent.install.posix.disks import Disks

if TYPE_CHECKING:
    from agent.deployments.group_files import GroupFiles
    from agent.install.compare.findings import Findings
    from agent.install.model.moments import Observer
    from agent.install.model.request import InstallRequest
    from agent.install.plan.plan import InstallPlan
    from agent.install.posix.places import Places


@dataclass(kw_only=True)
class Attempt:
    """What all phases of one attempt have in common. Close it in the end.

    Attributes:
        group: where the group's records and journals lie.
        request: what is asked for.
        plan: what to do.
        token: what the hidden names have in common.
        places: the directories of the host, as the plan has resolved them.
        observe: told before each change.
        findings: what has become of each of the planned files, in the order of the plan, as far as this process
            knows; empty until they are compared.
        disks: the file systems that are known to change.
        resources: what is closed with it, before the disks.
    """

    group: GroupFiles
    request: InstallRequest
    plan: InstallPlan
    token: str
    places: Places
    observe: Observer
    findings: list[Findings] = field(default_factory=list)
    disks: Disks = field(default_factory=Disks)
    resources: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Nothing is done any more, in any process."""
        self.resources.close()
        self.disks.close()

    @cached_property
    def fresh(self) -> FreshDirectories:
        """What new directories get, and hand down."""
        return FreshDirectories(self.places)

    @cached_property
    def files(self) -> list[PlannedFiles]:
        """The planned files, in the order of the plan."""
        return [step for step in self.plan.steps if isinstance(step, PlannedFiles)]

    @cached_property
    def new_directories(self) -> list[PlannedDirectory]:
        """The directories that are to be made, in the order of the plan."""
        directories = (step for step in self.plan.steps if isinstance(step, PlannedDirectory))
        return [step for step in directories if step.directory.standing is Standing.NEW]

    def syncs_records(self) -> bool:
        """Whether the group's records have to be synced when they are written.

        They need not be where their whole file system is synced before the commit, which is what makes them count.
        """
        if not self.request.options.durable:
            return True
        return os.stat(self.group.directory).st_dev not in self.disks

"""Install: plan, apply, undo, clean up."""

from __future__ import annotations

from agent.install.apply.install import install
from agent.install.apply.recovery import recover_install
from agent.install.model.request import InstallOptions, InstallRequest, InstallSummary
from agent.install.model.steps import PlannedDirectory, PlannedFiles
from agent.install.plan.conflicts import Conflict, InstallConflicts
from agent.install.plan.plan import InstallPlan
from agent.install.plan.planner import plan_install
from agent.install.records.previous import installed_deployment

__all__ = [
    "Conflict",
    "InstallConflicts",
    "InstallOptions",
    "InstallPlan",
    "InstallRequest",
    "InstallSummary",
    "PlannedDirectory",
    "PlannedFiles",
    "install",
    "installed_deployment",
    "plan_install",
    "recover_install",
]

"""Install: plan, apply, undo, clean up."""

from __future__ import annotations

from agent.install.conflicts import Conflict, InstallConflicts
from agent.install.install import install, recover_install
from agent.install.plan import plan_install
from agent.install.planned import InstallPlan, PlannedDirectory, PlannedFiles
from agent.install.previous import installed_deployment
from agent.install.request import InstallOptions, InstallRequest, InstallSummary

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

"""Install: plan, apply, undo, clean up."""

from __future__ import annotations

from agent.install.install import install, recover_install
from agent.install.plan import InstallPlan, PlannedDirectory, PlannedFiles, plan_install
from agent.install.request import InstallOptions, InstallRequest, InstallSummary

__all__ = [
    "InstallOptions",
    "InstallPlan",
    "InstallRequest",
    "InstallSummary",
    "PlannedDirectory",
    "PlannedFiles",
    "install",
    "plan_install",
    "recover_install",
]

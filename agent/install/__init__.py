"""Install: plan, apply, undo, clean up."""

from __future__ import annotations

from agent.install.install import install, recover_install
from agent.install.plan import Action, InstallPlan, plan_install
from agent.install.request import InstallOptions, InstallRequest, InstallSummary

__all__ = [
    "Action",
    "InstallOptions",
    "InstallPlan",
    "InstallRequest",
    "InstallSummary",
    "install",
    "plan_install",
    "recover_install",
]

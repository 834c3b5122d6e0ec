"""Install: plan, apply, undo, clean up.

Everything that other rooms may use is here, and loaded when it is first asked for: a worker that installs has no use for
previews, nor a command that only looks for what changes anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.exports import exporting

if TYPE_CHECKING:
    from agent.install.apply.install import install
    from agent.install.apply.recovery import recover_install
    from agent.install.model.moments import Moment
    from agent.install.model.request import InstallOptions, InstallRequest, InstallSummary
    from agent.install.plan.conflicts import Conflict, InstallConflicts, advice_on, summary_of
    from agent.install.plan.plan import InstallPlan
    from agent.install.plan.planner import plan_install
    from agent.install.plan.rule import Rule
    from agent.install.preview.changes import (
        BlockedInstall,
        Change,
        ChangeKind,
        FileSystem,
        ObjectKind,
        Preview,
    )
    from agent.install.preview.preview import (
        blocked_install,
        check_install,
        plans_for_other_user,
        preview_install,
    )
    from agent.install.records.previous import installed_deployment

__all__ = [
    "BlockedInstall",
    "Change",
    "ChangeKind",
    "Conflict",
    "FileSystem",
    "InstallConflicts",
    "InstallOptions",
    "InstallPlan",
    "InstallRequest",
    "InstallSummary",
    "Moment",
    "ObjectKind",
    "Preview",
    "Rule",
    "advice_on",
    "blocked_install",
    "check_install",
    "install",
    "installed_deployment",
    "plan_install",
    "plans_for_other_user",
    "preview_install",
    "recover_install",
    "summary_of",
]

_MODULES = {
    "BlockedInstall": "preview.changes",
    "Change": "preview.changes",
    "ChangeKind": "preview.changes",
    "Conflict": "plan.conflicts",
    "FileSystem": "preview.changes",
    "InstallConflicts": "plan.conflicts",
    "InstallOptions": "model.request",
    "InstallPlan": "plan.plan",
    "InstallRequest": "model.request",
    "InstallSummary": "model.request",
    "Moment": "model.moments",
    "ObjectKind": "preview.changes",
    "Preview": "preview.changes",
    "Rule": "plan.rule",
    "advice_on": "plan.conflicts",
    "blocked_install": "preview.preview",
    "check_install": "preview.preview",
    "install": "apply.install",
    "installed_deployment": "records.previous",
    "plan_install": "plan.planner",
    "plans_for_other_user": "preview.preview",
    "preview_install": "preview.preview",
    "recover_install": "apply.recovery",
    "summary_of": "plan.conflicts",
}

if not TYPE_CHECKING:  # else any name would be taken for one that is exported
    __getattr__ = exporting(__name__, _MODULES)

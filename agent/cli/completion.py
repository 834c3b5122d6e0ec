"""What TAB offers where the values are this host's own.

Whoever presses TAB is in the middle of a line: nothing here fails or says anything. What can't be
found out is not offered.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from agent.cli.configured_host import settings_of
from agent.deployments import DeploymentRoot, History
from agent.deployments.group_files import interrupted_groups
from agent.errors import ConfigurationError
from agent.protocol import IN_PLACE_ORDER
from agent.settings import DEFAULT_CONFIGURATION

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

    from agent.settings import Settings


def offer_groups(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Deployment groups that have installed something on this host."""
    try:
        settings = _settings_meant(ctx)
        return _described(_known_groups(DeploymentRoot(path=settings.root_dir)), incomplete, settings)
    except (ConfigurationError, OSError):
        return []


def offer_interrupted_groups(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Deployment groups of which an Install was cut off, or is at work."""
    try:
        settings = _settings_meant(ctx)
        root = DeploymentRoot(path=settings.root_dir)
        return _described(interrupted_groups(root.instructions), incomplete, settings)
    except (ConfigurationError, OSError):
        return []


def offer_events(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """One more event, after those that stand before the last comma."""
    before, comma, begun = incomplete.rpartition(",")
    chosen = before.split(",")
    return [
        CompletionItem(f"{before}{comma}{event}")
        for event in IN_PLACE_ORDER
        if event.startswith(begun) and event not in chosen
    ]


def offer_files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Whatever the shell finds: an argument that may be a path, and something else as well."""
    return [CompletionItem(incomplete, type="file")]


def _settings_meant(ctx: click.Context) -> Settings:
    """Those of the configuration file that the line names before the cursor, or of the usual one."""
    named = ctx.params.get("config_file") or ctx.params.get("agent_configuration_file")
    return settings_of(named or DEFAULT_CONFIGURATION)


def _known_groups(root: DeploymentRoot) -> list[str]:
    ending = root.last_successful("").name
    names = os.listdir(root.instructions)
    return sorted(name.removesuffix(ending) for name in names if name.endswith(ending))


def _described(group_ids: Iterable[str], incomplete: str, settings: Settings) -> list[CompletionItem[str]]:
    """The service's ids say nothing to people, so their names stand beside them, where the history has them."""
    wanted = [group_id for group_id in group_ids if group_id.startswith(incomplete)]
    names = _names(settings) if wanted else {}
    return [CompletionItem(group_id, help=names.get(group_id)) for group_id in wanted]


def _names(settings: Settings) -> dict[str, str]:
    names: dict[str, str] = {}
    try:
        for entry in History(settings.state_directory).newest_first():
            if (deployment := entry.deployment) is not None:
                name = f"{deployment.application_name}/{deployment.deployment_group_name}"
                names.setdefault(deployment.deployment_group_id, name)
    except OSError:
        # Not this user's to read. The ids alone will do.
        return names
    return names

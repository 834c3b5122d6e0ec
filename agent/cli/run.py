"""`agentctl run`: check everything that can be checked, then become the daemon."""

from __future__ import annotations

import os
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.daemon.launch import Launch, exec_daemon
from agent.errors import ConfigurationError, Problem
from agent.identity.on_premises import to_json
from agent.identity.on_premises_file import read_on_premises
from agent.logs import Log, stderr_log
from agent.settings import DEFAULT_CONFIGURATION
from agent.settings_file import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.settings import Settings

_BAD_CONFIGURATION = 2


@click.command("run")
@click.option(
    "--config-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_CONFIGURATION,
    show_default=True,
    help="Settings of the agent.",
)
def command(config_file: Path) -> None:
    """Run the agent in the foreground.

    Logs to standard error and to log_dir. It starts only when its configuration is right, and says everything
    that is wrong with it at once. SIGTERM stops polling at once and waits for running commands; they are
    carried to their end even if the agent does not wait.

    Exit codes: 0 it was told to stop, 1 it failed, 2 its configuration is wrong.

    \b
    Examples:
      agentctl run
      agentctl run --config-file ./agent.yml
    """  # noqa: D301 - click takes \b for: keep these lines
    try:
        launch = _prepare(config_file)
    except ConfigurationError as error:
        click.echo(f"agentctl: {error.message}", err=True)
        sys.exit(_BAD_CONFIGURATION)
    exec_daemon(launch)


def _prepare(config_file: Path) -> Launch:
    """All that the daemon needs, checked; directories are made.

    Raises:
        ConfigurationError: with all problems of all files.
    """
    loaded = load_settings(config_file)
    settings = loaded.settings
    on_premises = None
    problems: list[str] = []
    warnings = {str(config_file): loaded.warnings}
    try:
        on_premises = read_on_premises(settings.on_premises_config_file)
        if on_premises is not None:
            warnings[str(settings.on_premises_config_file)] = on_premises.warnings
    except ConfigurationError as error:
        problems.append(error.message)
    try:
        _prepare_places(config_file, settings)
    except ConfigurationError as error:
        problems.append(error.message)
    if problems:
        raise ConfigurationError("The agent's configuration", [Problem(message=text) for text in problems])
    _log_warnings(warnings)
    return Launch(
        settings=settings,
        on_premises=to_json(on_premises.identity) if on_premises else None,
        proxies=_proxies(settings),
    )


def _prepare_places(config_file: Path, settings: Settings) -> None:
    """Make the agent's directories, and see whether they and other named files can be used."""
    problems = []
    restricted = {
        settings.root_dir: settings.restrict_agent_dir_permissions,
        settings.pid_dir: settings.restrict_agent_dir_permissions,
        settings.log_dir: settings.restrict_log_dir_permissions,
    }
    for directory, is_restricted in restricted.items():
        problem = _prepare_directory(directory, 0o700 if is_restricted else 0o755)
        if problem:
            problems.append(problem)
    ca_file = settings.deployment_signer_ca_file
    if ca_file and not os.access(ca_file, os.R_OK):
        problems.append(Problem(message=f"`deployment_signer_ca_file` {ca_file} can't be read by this user"))
    if problems:
        raise ConfigurationError(str(config_file), problems)


def _prepare_directory(directory: Path, mode: int) -> Problem | None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if mode == 0o700:
            directory.chmod(mode)
    except OSError as error:
        return Problem(message=f"the directory {directory} can't be made: {error.strerror or error}")
    if not os.access(directory, os.W_OK | os.X_OK):
        return Problem(
            message=f"the directory {directory} can't be written to by this user (uid {os.geteuid()})"
        )
    return None


def _proxies(settings: Settings) -> dict[str, str]:
    """Proxies of the environment; `proxy_uri` wins over them. `no_proxy` counts in any case."""
    found = urllib.request.getproxies_environment()
    if settings.proxy_uri:
        found |= {"http": settings.proxy_uri, "https": settings.proxy_uri}
    return {scheme: found[scheme] for scheme in ("http", "https", "no") if found.get(scheme)}


def _log_warnings(warnings: Mapping[str, Sequence[Problem]]) -> None:
    log = Log(stderr_log())
    for source, problems in warnings.items():
        for problem in problems:
            log.warning("configuration_warning", file=source, problem=str(problem))

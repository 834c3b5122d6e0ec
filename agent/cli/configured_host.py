"""This host, for subcommands that work without the daemon: settings, identity, endpoints."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import click

from agent.daemon.daemon_launch import Launch
from agent.daemon.host_finder import HostFinder, s3_url
from agent.errors import ConfigurationError, Problem
from agent.identity.on_premises import to_json
from agent.identity.on_premises_file import read_on_premises
from agent.logs import Log, LogSink
from agent.processes import initial_environment
from agent.settings import DEFAULT_CONFIGURATION, Settings
from agent.settings_file import load_settings
from agent.user_names import known_user_name, user_name
from agent.worker.context import HostContext

if TYPE_CHECKING:
    from pathlib import Path

    from agent.identity.host_identity import HostIdentity


def settings_of(config_file: Path) -> Settings:
    """The settings of that file; the defaults when the usual file is not there.

    Raises:
        ConfigurationError: the file has problems.
    """
    if config_file == DEFAULT_CONFIGURATION and not _may_be_there(config_file):
        return Settings()
    return load_settings(config_file).settings


def _may_be_there(path: Path) -> bool:
    """Whether anything has this name, if only a link that leads nowhere; also where nobody can tell."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def check_owner(settings: Settings, config_file: Path) -> None:
    """Root does not work in directories of somebody else, who could decide by what lies there what root does.

    Raises:
        ConfigurationError: it would have to.
    """
    if os.geteuid() != 0:
        return
    for key, directory in (("root_dir", settings.root_dir), ("pid_dir", settings.state_directory)):
        with contextlib.suppress(FileNotFoundError):
            owner = os.stat(directory).st_uid
            if owner:
                name = user_name(owner)
                message = (
                    f"`{key}` {directory} belongs to {name}, who would decide by what lies there what root does."
                    f" Run this as that user: runuser -u {known_user_name(owner) or owner} -- agentctl …"
                )
                raise ConfigurationError(str(config_file), [Problem(message=message)])


def identity_of(settings: Settings) -> HostIdentity | None:
    """Who this host is; None when it is not to be found out, which has been said on standard error.

    Raises:
        ConfigurationError: the on-premises file has problems.
    """
    on_premises = read_on_premises(settings.on_premises_config_file)
    members = to_json(on_premises.identity) if on_premises else None
    launch = Launch(settings=settings, on_premises=members, proxies={})
    finder = HostFinder(launch, os.environ, Log(LogSink(None, to_stderr=False)))
    identity, _ = finder.try_once()
    if identity is None:
        click.echo(f"agentctl: {finder.trouble} [{finder.error_id}]", err=True)
    return identity


def context_of(settings: Settings, identity: HostIdentity | None) -> HostContext:
    """What work on this host needs."""
    return HostContext(
        settings=settings,
        identity=identity,
        s3_url=s3_url(settings, identity) if identity else settings.s3_endpoint_override or "",
        environment=initial_environment(),
    )

"""`agentctl run`: check everything that can be checked, then become the daemon."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import click

from agent.cli.boot_condition import wait_for_boot
from agent.cli.options import config_option
from agent.daemon.daemon_launch import Launch, exec_daemon
from agent.daemon.host_finder import check_endpoints, check_environment
from agent.deployments.refused_start import RefusedStartFile
from agent.endpoint import tls_context
from agent.errors import AgentError, ConfigurationError, Problem
from agent.identity.on_premises import to_json
from agent.identity.on_premises_file import read_on_premises
from agent.logs import Log, stderr_log
from agent.proxies import proxies_of
from agent.settings_file import SettingsInvalid, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from agent.settings import Settings

    T = TypeVar("T")


@click.command("run")
@config_option
def command(config_file: Path) -> None:
    """Run the agent in the foreground.

    Logs to standard error and to log_dir. It starts only when its configuration is right, and says everything
    that is wrong with it at once. SIGTERM stops polling at once and waits for running commands; they are
    carried to their end even if the agent does not wait.

    With start_when_file or start_when_command in its settings, it waits for those before anything else.

    Exit codes: 0 it was told to stop, 1 it failed, 2 its configuration is wrong.

    \b
    Examples:
      agentctl run
      agentctl run --config-file ./agent.yml
    """  # noqa: D301 - click takes \b for: keep these lines
    preparation = _Preparation(config_file)
    try:
        launch = preparation.launch()
        goes_on = wait_for_boot(launch.settings, os.environ)
    except AgentError as error:
        preparation.note_refusal(error)
        raise
    if goes_on:
        exec_daemon(launch)


class _Preparation:
    """Looks at everything that can be wrong before the daemon starts, and keeps all that is."""

    def __init__(self, config_file: Path) -> None:
        self._config_file = config_file
        self._problems: list[Problem] = []
        self._warnings: dict[str, Sequence[Problem]] = {}
        self._state_directory: Path | None = None

    def launch(self) -> Launch:
        """All that the daemon needs, checked; directories are made.

        Raises:
            ConfigurationError: with all problems of all files and of the environment.
        """
        settings = self._settings()
        self._state_directory = settings.state_directory
        on_premises = self._look(lambda: read_on_premises(settings.on_premises_config_file))
        if on_premises is not None:
            self._warnings[str(settings.on_premises_config_file)] = on_premises.warnings
        identity = on_premises.identity if on_premises else None
        self._look(lambda: _check_places(self._config_file, settings))
        self._look(lambda: check_environment(os.environ))
        if identity is not None:
            self._look(lambda: check_endpoints(settings, identity))
        if self._problems:
            raise ConfigurationError("The agent's configuration", self._problems)
        _log_warnings(self._warnings)
        members = to_json(identity) if identity else None
        return Launch(
            settings=settings, on_premises=members, proxies=proxies_of(settings.proxy_uri, os.environ)
        )

    def note_refusal(self, error: AgentError) -> None:
        """Keep why the agent does not start, where `agentctl status` looks; without settings there is no such place."""
        if self._state_directory is not None:
            RefusedStartFile(self._state_directory).note(error)

    def _settings(self) -> Settings:
        """The settings; where they have problems, those that can be used, to find out what else is wrong."""
        try:
            loaded = load_settings(self._config_file)
        except SettingsInvalid as error:
            self._note(error)
            return error.usable
        self._warnings[str(self._config_file)] = loaded.warnings
        return loaded.settings

    def _look(self, check: Callable[[], T]) -> T | None:
        try:
            return check()
        except ConfigurationError as error:
            self._note(error)
            return None

    def _note(self, error: ConfigurationError) -> None:
        self._problems.append(Problem(message=error.message.replace("\n", "\n  ")))


def _check_places(config_file: Path, settings: Settings) -> None:
    """Make the agent's directories, and see whether they and other named files can be used."""
    problems = []
    restricted = (
        ("root_dir", settings.root_dir, settings.restrict_agent_dir_permissions),
        ("pid_dir", settings.pid_dir, settings.restrict_agent_dir_permissions),
        ("log_dir", settings.log_dir, settings.restrict_log_dir_permissions),
    )
    for key, directory, is_restricted in restricted:
        why = _prepare_directory(directory, 0o700 if is_restricted else 0o755)
        if why:
            problems.append(Problem(message=f"`{key}` {directory} {why}"))
    ca_file = settings.deployment_signer_ca_file
    if ca_file and ca_file.is_dir():
        problems.append(Problem(message=f"`deployment_signer_ca_file` {ca_file} is a directory"))
    elif ca_file:
        try:
            tls_context({"AWS_CA_BUNDLE": str(ca_file)})
        except ConfigurationError as error:
            why = error.problems[0].message.partition(" ")[2]
            problems.append(Problem(message=f"`deployment_signer_ca_file` {why}"))
    if problems:
        raise ConfigurationError(str(config_file), problems)


def _prepare_directory(directory: Path, mode: int) -> str:
    """Make it, if it is not there; why it can't be used, as the rest of a sentence, empty when it can."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if mode == 0o700:
            directory.chmod(mode)
    except OSError as error:
        return f"can't be made: {error.strerror or error}; make it, or name another directory"
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        return (
            "is on a file system that is mounted read-only, for root as well; mount it writable, or name "
            "another directory"
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"can't be written to by this user (uid {os.geteuid()}); change its owner, or name another directory"
    return ""


def _log_warnings(warnings: Mapping[str, Sequence[Problem]]) -> None:
    log = Log(stderr_log())
    for source, problems in warnings.items():
        for problem in problems:
            log.warning("configuration_warning", file=source, problem=str(problem))

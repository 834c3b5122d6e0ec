"""What a hook script finds in its environment. Pure.

Layers, later ones win: the agent's own environment without what is not meant for scripts, with
`runas` what the user's session brings along, the deployment's variables, with `runas` what belongs
to that user, the host's `environment:` setting, that of the AppSpec file, that of the script.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.specification import GitHubRevision, LocalRevision, S3Revision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.specification import DeploymentSpecification, Revision

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Keys, and texts that are as good as keys. Names of files or profiles are no secrets and stay.
_CREDENTIALS = (
    "AWS_ACCESS_KEY",
    "AWS_SECRET",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
)
# Between systemd and the agent: a script that spoke up there would speak in the agent's name.
_SERVICE = (
    "NOTIFY_SOCKET",
    "WATCHDOG_",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
)
# Of the launcher of a self-contained interpreter, which points the loader to its own libraries.
_LAUNCHER = ("_PYI_", "_MEIPASS2")
_LAUNCHER_SAVED = "_ORIG"

_LOADER = "LD_"
_STRIPPED_LOADER = frozenset(("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"))
_BASIC_NAMES = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TERM", "TZ", "TMPDIR", "PWD")
)
_BASIC_PREFIX = "LC_"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentPolicy:
    """What of the agent's environment is kept from scripts beyond what always is.

    Attributes:
        strips_loader: LD_PRELOAD, LD_LIBRARY_PATH and LD_AUDIT don't pass (`strip_loader_env_in_hooks`).
        only_basics: nothing passes but what a shell needs, such as PATH, HOME and the locale
            (`restrict_hook_env_to_allowlist`).
    """

    strips_loader: bool = False
    only_basics: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HookEnvironment:
    """The layers that all scripts of an event share.

    Attributes:
        inherited: what passes of the agent's own environment.
        deployment: the deployment's variables, and the host's identity.
        additions: host settings' `environment:`, with that of the AppSpec file over it.
        policy: the host's hardening settings, which count for what a session brings along, too.
    """

    inherited: Mapping[str, str]
    deployment: Mapping[str, str]
    additions: Mapping[str, str]
    policy: EnvironmentPolicy = EnvironmentPolicy()

    def for_script(
        self,
        additions: Mapping[str, str],
        *,
        user: Mapping[str, str],
        session: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, str]:
        """All that one script gets.

        Args:
            additions: the script's own `environment:`.
            user: what belongs to the user that it runs as; empty = as the agent.
            session: what the session of that user brings along.
        """
        added = _accepted({**self.additions, **additions})
        passing = {name: value for name, value in session.items() if _passes(name, self.policy)}
        return {**self.inherited, **passing, **self.deployment, **user, **added}

    def particular_names(self, additions: Mapping[str, str]) -> list[str]:
        """Names of the variables that are for the script in particular: no sudo or profile may change them."""
        return sorted({*self.deployment, *_accepted({**self.additions, **additions})})


def hook_environment(
    agent_environment: Mapping[str, str],
    specification: DeploymentSpecification,
    event: str,
    *,
    policy: EnvironmentPolicy,
    identity: Mapping[str, str],
    additions: Mapping[str, str],
) -> HookEnvironment:
    """The environment of the scripts of this event.

    Args:
        agent_environment: what this process was started with.
        specification: the deployment that the event belongs to.
        event: name of the lifecycle event.
        policy: the host's hardening settings.
        identity: AWS_REGION and AWS_HOST_IDENTIFIER, where the agent has them of its own
            configuration; the existing agents hand them on, too.
        additions: host settings' `environment:`, with that of the AppSpec file over it.
    """
    return HookEnvironment(
        inherited=inherited_environment(agent_environment, policy),
        deployment={**identity, **deployment_variables(specification, event)},
        additions=additions,
        policy=policy,
    )


def inherited_environment(agent_environment: Mapping[str, str], policy: EnvironmentPolicy) -> dict[str, str]:
    """What passes of the agent's own environment; always with a PATH."""
    passing = {name: value for name, value in _without_launcher(agent_environment) if _passes(name, policy)}
    passing.setdefault("PATH", DEFAULT_PATH)
    return passing


def deployment_variables(specification: DeploymentSpecification, event: str) -> dict[str, str]:
    """What scripts are told about their deployment; what the specification leaves out is not set."""
    return {
        "LIFECYCLE_EVENT": event,
        "DEPLOYMENT_ID": specification.deployment_id,
        "APPLICATION_NAME": specification.application_name,
        "DEPLOYMENT_GROUP_NAME": specification.deployment_group_name,
        "DEPLOYMENT_GROUP_ID": specification.deployment_group_id,
        **_revision_variables(specification.revision),
    }


def is_refused(name: str) -> bool:
    """Whether no `environment:` key may set this variable."""
    return name.startswith((*_CREDENTIALS, _LOADER))


def _accepted(additions: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in additions.items() if not is_refused(name)}


def _passes(name: str, policy: EnvironmentPolicy) -> bool:
    if name.startswith((*_CREDENTIALS, *_SERVICE, *_LAUNCHER)):
        return False
    if policy.only_basics:
        return name in _BASIC_NAMES or name.startswith(_BASIC_PREFIX)
    return not (policy.strips_loader and name in _STRIPPED_LOADER)


def _without_launcher(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The variables as they were before a self-contained interpreter changed those of the loader for itself."""
    is_launched = any(name.startswith(_LAUNCHER) for name in environment)
    saved = {name: name + _LAUNCHER_SAVED for name in sorted(_STRIPPED_LOADER)}
    for name, value in environment.items():
        is_changed = name in saved and (is_launched or saved[name] in environment)
        if not is_changed and name not in saved.values():
            yield name, value
    for name, saved_name in saved.items():
        if saved_name in environment:
            yield name, environment[saved_name]


def _revision_variables(revision: Revision) -> dict[str, str]:
    match revision:
        case S3Revision():
            variables = {
                "BUNDLE_BUCKET": revision.bucket,
                "BUNDLE_KEY": revision.key,
                "BUNDLE_VERSION": revision.version,
                "BUNDLE_ETAG": revision.etag,
            }
            return {name: value for name, value in variables.items() if value is not None}
        case GitHubRevision():
            return {"BUNDLE_COMMIT": revision.commit_id}
        case LocalRevision():
            return {}

"""What hook scripts find in their environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.lifecycle.environment import DEFAULT_PATH, EnvironmentPolicy, HookEnvironment, hook_environment
from agent.protocol import BundleType
from agent.specification import DeploymentSpecification, GitHubRevision, LocalRevision, Revision, S3Revision

S3 = S3Revision(bucket="b", key="releases/v1.tar", bundle_type=BundleType.TAR, version="v1", etag="e1")
AGENT = {"PATH": "/bin", "LANG": "C.UTF-8", "http_proxy": "http://proxy:3128"}


def environment(
    agent: dict[str, str] | None = None,
    *,
    revision: Revision = S3,
    policy: EnvironmentPolicy | None = None,
    additions: dict[str, str] | None = None,
    identity: dict[str, str] | None = None,
) -> HookEnvironment:
    specification = DeploymentSpecification(
        deployment_id="d-1",
        deployment_group_id="g-1",
        deployment_group_name="group",
        application_name="app",
        revision=revision,
    )
    return hook_environment(
        AGENT if agent is None else agent,
        specification,
        "BeforeInstall",
        policy=policy or EnvironmentPolicy(),
        identity=identity or {},
        additions=additions or {},
    )


def script_environment(*args: Any, **named: Any) -> dict[str, str]:
    return environment(*args, **named).for_script({}, user={})


def test_scripts_are_told_about_their_deployment_and_its_s3_bundle() -> None:
    """Scripts written for the existing agents read these."""
    expected = {
        **AGENT,
        "LIFECYCLE_EVENT": "BeforeInstall",
        "DEPLOYMENT_ID": "d-1",
        "APPLICATION_NAME": "app",
        "DEPLOYMENT_GROUP_NAME": "group",
        "DEPLOYMENT_GROUP_ID": "g-1",
        "BUNDLE_BUCKET": "b",
        "BUNDLE_KEY": "releases/v1.tar",
        "BUNDLE_VERSION": "v1",
        "BUNDLE_ETAG": "e1",
    }
    assert expected == script_environment()


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        (
            S3Revision(bucket="b", key="k", bundle_type=BundleType.ZIP),
            {"BUNDLE_BUCKET": "b", "BUNDLE_KEY": "k"},
        ),
        (GitHubRevision(account="a", repository="r", commit_id="c0ffee"), {"BUNDLE_COMMIT": "c0ffee"}),
        (LocalRevision(location=Path("/x"), bundle_type=BundleType.DIRECTORY), {}),
    ],
)
def test_what_the_revision_does_not_have_is_not_set(revision: Revision, expected: dict[str, str]) -> None:
    """A script asks `[ -n "$BUNDLE_VERSION" ]`; an empty or literal None would mislead it."""
    variables = script_environment(revision=revision)
    assert expected == {name: value for name, value in variables.items() if name.startswith("BUNDLE_")}


@pytest.mark.parametrize(
    "name",
    [
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "LISTEN_FDS",
        "CREDENTIALS_DIRECTORY",
        "_PYI_ARCHIVE_FILE",
    ],
)
def test_credentials_and_the_services_own_variables_never_reach_a_script(name: str) -> None:
    """A script of an application must not act with the agent's rights, nor speak for it to systemd."""
    assert name not in script_environment({**AGENT, name: "secret"})


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_PROFILE", "LD_LIBRARY_PATH", "JAVA_HOME"])
def test_everything_else_of_the_agents_environment_passes(name: str) -> None:
    """Administrators set variables for their scripts in the agent's unit file."""
    assert script_environment({**AGENT, name: "value"})[name] == "value"


def test_the_hosts_identity_is_handed_on() -> None:
    """Scripts call the AWS command line, which needs the region on on-premises hosts."""
    assert script_environment(identity={"AWS_REGION": "eu-west-1"})["AWS_REGION"] == "eu-west-1"


def test_a_path_is_always_there() -> None:
    """Without PATH nearly every script fails with exit code 127."""
    assert script_environment({})["PATH"] == DEFAULT_PATH


def test_additions_win_by_how_near_they_are_to_the_script() -> None:
    """The script's own entry is the most specific one."""
    layered = environment(additions={"A": "appspec", "B": "appspec", "DEPLOYMENT_ID": "mine"})
    variables = layered.for_script(
        {"B": "script", "HOME": "/script"}, user={"HOME": "/home/app", "USER": "app"}
    )
    expected = {"A": "appspec", "B": "script", "HOME": "/script", "USER": "app", "DEPLOYMENT_ID": "mine"}
    assert expected == {name: variables[name] for name in expected}


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "LD_PRELOAD", "LD_LIBRARY_PATH"]
)
def test_additions_set_neither_credentials_nor_loader_variables(name: str) -> None:
    """Whoever can write an AppSpec must not be able to load code into programs run as other users."""
    layered = environment(additions={name: "appspec"})
    assert name not in layered.for_script({name: "script"}, user={})


def test_loader_variables_are_stripped_where_the_host_wants_it() -> None:
    """Hardening: `strip_loader_env_in_hooks`."""
    agent = {**AGENT, "LD_PRELOAD": "a", "LD_LIBRARY_PATH": "b", "LD_AUDIT": "c", "LD_BIND_NOW": "1"}
    names = set(script_environment(agent, policy=EnvironmentPolicy(strips_loader=True)))
    assert {"LD_BIND_NOW"} == {name for name in names if name.startswith("LD_")}


def test_only_basics_and_the_deployment_pass_where_the_host_wants_it() -> None:
    """Hardening: `restrict_hook_env_to_allowlist`."""
    agent = {**AGENT, "HOME": "/root", "LC_ALL": "C", "DATABASE_PASSWORD": "x", "LD_PRELOAD": "a"}
    variables = script_environment(agent, policy=EnvironmentPolicy(only_basics=True))
    deployment = script_environment({}).keys()
    assert {"PATH", "LANG", "HOME", "LC_ALL"} | deployment == set(variables)


def test_the_library_path_of_a_self_contained_agent_is_not_that_of_the_scripts() -> None:
    """Programs of the host crash with the libraries that the agent brings along."""
    agent = {**AGENT, "LD_LIBRARY_PATH": "/opt/agent/lib", "LD_LIBRARY_PATH_ORIG": "/usr/local/lib"}
    variables = script_environment(agent)
    assert variables["LD_LIBRARY_PATH"] == "/usr/local/lib"
    assert "LD_LIBRARY_PATH_ORIG" not in variables


def test_a_library_path_that_only_the_agent_has_is_dropped() -> None:
    """Its launcher saves nothing where there was nothing before."""
    agent = {**AGENT, "LD_LIBRARY_PATH": "/opt/agent/lib", "_PYI_APPLICATION_HOME_DIR": "/opt/agent"}
    assert "LD_LIBRARY_PATH" not in script_environment(agent)


def test_sudo_is_told_to_keep_what_is_for_the_script_in_particular() -> None:
    """Without being told, sudo drops everything else, as its administrators expect."""
    names = environment(additions={"MODE": "x", "LD_PRELOAD": "x"}).particular_names({"LEVEL": "y"})
    assert {"MODE", "LEVEL", "DEPLOYMENT_ID"} <= set(names)
    assert not {"PATH", "LANG", "LD_PRELOAD"} & set(names)

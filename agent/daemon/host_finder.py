"""Finding out who this host is, and with that where it polls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.certificates import CA_VARIABLES
from agent.endpoint import tls_context, wait_after_failures
from agent.errors import ConfigurationError, IdentityError, Problem
from agent.identity.endpoints import EndpointChoice, control_endpoint, s3_endpoint
from agent.identity.host_identity import identify_host, region_of
from agent.identity.metadata import InstanceMetadata, metadata_endpoint
from agent.identity.on_premises import from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.daemon.daemon_launch import Launch
    from agent.identity.endpoints import ControlEndpoint
    from agent.identity.host_identity import HostIdentity
    from agent.identity.on_premises import OnPremisesIdentity
    from agent.logs import Log
    from agent.settings import Settings


class HostFinder:
    """Asks the on-premises file or the instance metadata, which may not be there yet during boot."""

    def __init__(self, launch: Launch, environ: Mapping[str, str], log: Log) -> None:
        self._launch = launch
        self._environ = environ
        self._log = log
        self._failures = 0
        self.trouble = ""
        """Why the last try came to nothing; empty before the first."""
        self.error_id = ""

    def try_once(self) -> tuple[HostIdentity | None, float]:
        """The identity, or how many seconds to wait before the next try.

        Raises:
            ConfigurationError: it will never work like this.
        """
        settings = self._launch.settings
        on_premises = from_json(self._launch.on_premises) if self._launch.on_premises else None
        metadata = InstanceMetadata(
            endpoint=metadata_endpoint(self._environ),
            disable_v1=settings.disable_imds_v1,
            on_premises_file=settings.on_premises_config_file,
        )
        try:
            identity = identify_host(
                on_premises=on_premises,
                on_premises_file=settings.on_premises_config_file,
                metadata=metadata,
                environ=self._environ,
            )
        except IdentityError as error:
            self._failures += 1
            wait_s = wait_after_failures(self._failures)
            if error.message != self.trouble:
                self._log.warning(
                    "host_not_identified", error=error.message, error_id=error.error_id, retry_in_s=wait_s
                )
            self.trouble, self.error_id = error.message, error.error_id
            return None, wait_s
        return identity, 0.0


def check_environment(environ: Mapping[str, str]) -> None:
    """See whether the CAs, the region and the addresses that the environment names can be used.

    Raises:
        ConfigurationError: with everything that can't.
    """
    names_ca = any(environ.get(name) for name in CA_VARIABLES)
    checks = (tls_context, metadata_endpoint, region_of) if names_ca else (metadata_endpoint, region_of)
    problems: list[Problem] = []
    for check in checks:
        try:
            check(environ)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError("The environment of the agent", problems)


def check_endpoints(settings: Settings, on_premises: OnPremisesIdentity) -> None:
    """See whether a host with this on-premises file has endpoints, with these settings.

    Raises:
        ConfigurationError: use_fips_mode in a region that has no FIPS endpoints.
    """
    identity = identify_host(
        on_premises=on_premises,
        on_premises_file=settings.on_premises_config_file,
        metadata=InstanceMetadata(),
        environ={},
    )
    control_stack(settings, identity)


def control_stack(settings: Settings, identity: HostIdentity) -> ControlEndpoint:
    """Where this host polls, and how.

    Raises:
        ConfigurationError: use_fips_mode in a region that has no FIPS endpoints.
    """
    return control_endpoint(_choice(settings, identity))


def s3_url(settings: Settings, identity: HostIdentity) -> str:
    """The S3 service that this host downloads from, without a bucket."""
    return s3_endpoint(_choice(settings, identity))


def _choice(settings: Settings, identity: HostIdentity) -> EndpointChoice:
    return EndpointChoice(
        region=identity.region,
        dns_suffix=identity.dns_suffix,
        use_fips_mode=settings.use_fips_mode,
        use_dual_stack=settings.use_dual_stack,
        enable_auth_policy=settings.enable_auth_policy,
        deploy_control_endpoint=settings.deploy_control_endpoint,
        s3_endpoint_override=settings.s3_endpoint_override,
    )

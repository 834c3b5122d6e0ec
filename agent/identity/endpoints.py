"""Where requests go, and under which names they are signed; pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import ConfigurationError, Problem

FIPS_REGIONS = ("us-east-1", "us-east-2", "us-west-1", "us-west-2", "us-gov-east-1", "us-gov-west-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A separate part of AWS, with names of its own."""

    name: str
    dns_suffix: str
    dual_stack_dns_suffix: str


_AWS = Partition(name="aws", dns_suffix="amazonaws.com", dual_stack_dns_suffix="api.aws")
_PARTITIONS_BY_PREFIX = {
    "cn-": Partition(
        name="aws-cn",
        dns_suffix="amazonaws.com.cn",
        dual_stack_dns_suffix="api.amazonwebservices.com.cn",
    ),
    "eusc-": Partition(
        name="aws-eusc",
        dns_suffix="amazonaws.eu",
        dual_stack_dns_suffix="api.amazonwebservices.eu",
    ),
    "us-gov-": Partition(name="aws-us-gov", dns_suffix="amazonaws.com", dual_stack_dns_suffix="api.aws"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointChoice:
    """What decides about endpoints.

    Attributes:
        region: of the host.
        dns_suffix: of the host, as its identity knows it.
        use_fips_mode: FIPS 140 endpoints; not available in every region.
        use_dual_stack: endpoints with IPv6 addresses.
        enable_auth_policy: the secure stack, which networks without internet need.
        deploy_control_endpoint: URL that is used instead of the region's; else None.
        s3_endpoint_override: URL that is used instead of S3 in the region; else None.
    """

    region: str
    dns_suffix: str
    use_fips_mode: bool = False
    use_dual_stack: bool = False
    enable_auth_policy: bool = False
    deploy_control_endpoint: str | None = None
    s3_endpoint_override: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlEndpoint:
    """Three names that belong together: a mix is answered with UnknownOperationException.

    `url` has no slash at its end.
    """

    url: str
    target_prefix: str
    signing_name: str


def partition_of(region: str) -> Partition:
    """The partition of a region, judged by its name; what is unknown is taken for the public one."""
    for prefix, partition in _PARTITIONS_BY_PREFIX.items():
        if region.startswith(prefix):
            return partition
    return _AWS


def control_endpoint(choice: EndpointChoice) -> ControlEndpoint:
    """Where host commands come from.

    Raises:
        ConfigurationError: the region has no FIPS endpoints.
    """
    _require_fips_region(choice)
    secure = choice.enable_auth_policy
    signing_name = "codedeploy-commands-secure" if secure else "codedeploy-commands"
    host = signing_name + ("-fips" if choice.use_fips_mode else "")
    suffix = partition_of(choice.region).dual_stack_dns_suffix if choice.use_dual_stack else choice.dns_suffix
    url = choice.deploy_control_endpoint or f"https://{host}.{choice.region}.{suffix}"
    return ControlEndpoint(
        url=url.rstrip("/"),
        target_prefix="CodeDeployCommandService" if secure else "CodeDeployCommandService_v20141006",
        signing_name=signing_name,
    )


def s3_endpoint(choice: EndpointChoice) -> str:
    """URL of S3 in the region, without a bucket, and without a slash at its end.

    Raises:
        ConfigurationError: the region has no FIPS endpoints.
    """
    _require_fips_region(choice)
    host = ("s3-fips" if choice.use_fips_mode else "s3") + (".dualstack" if choice.use_dual_stack else "")
    url = choice.s3_endpoint_override or f"https://{host}.{choice.region}.{choice.dns_suffix}"
    return url.rstrip("/")


def _require_fips_region(choice: EndpointChoice) -> None:
    if not choice.use_fips_mode or choice.region in FIPS_REGIONS:
        return
    raise ConfigurationError(
        "The setting use_fips_mode",
        [
            Problem(
                message=f"there are no FIPS endpoints in {choice.region}, only in {', '.join(FIPS_REGIONS)}. "
                "Set use_fips_mode to false, or move the host."
            )
        ],
    )

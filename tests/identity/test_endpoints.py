"""Host name, target prefix and signing name: one table, one truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigurationError
from agent.identity.endpoints import FIPS_REGIONS, EndpointChoice, control_endpoint, partition_of, s3_endpoint

CASES = json.loads((Path(__file__).parent / "endpoints.json").read_text())


def choice(case: dict[str, Any]) -> EndpointChoice:
    settings = dict(case["choice"])
    settings.setdefault("dns_suffix", partition_of(settings["region"]).dns_suffix)
    return EndpointChoice(**settings)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_control_endpoint_is_the_one_of_the_table(case: dict[str, Any]) -> None:
    """A mix of the two stacks is answered with UnknownOperationException, which tells nobody why."""
    endpoint = control_endpoint(choice(case))

    assert case["control"] == [endpoint.url, endpoint.target_prefix, endpoint.signing_name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_s3_endpoint_is_the_one_of_the_table(case: dict[str, Any]) -> None:
    """Bundles come from the region's own endpoint, so that a network without internet can reach it."""
    assert case["s3"] == s3_endpoint(choice(case))


@pytest.mark.parametrize("endpoint_of", [control_endpoint, s3_endpoint])
def test_fips_mode_is_refused_where_there_are_no_such_endpoints(endpoint_of: Any) -> None:
    """Whoever must use FIPS must not be served without it; the message names the regions that have it."""
    refused = EndpointChoice(region="eu-west-1", dns_suffix="amazonaws.com", use_fips_mode=True)

    with pytest.raises(ConfigurationError) as caught:
        endpoint_of(refused)

    assert [] == [
        name for name in ("use_fips_mode", "eu-west-1", *FIPS_REGIONS) if name not in caught.value.message
    ]

"""What records and history keep of a deployment's specification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.deployments import DeploymentFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.specification import DeploymentSpecification


def facts_of(
    specification: DeploymentSpecification, *, planned_events: Sequence[str] | None = None
) -> DeploymentFacts:
    """The facts of this deployment; `planned_events` are those of a local one, in order."""
    possible = specification.possible_events
    return DeploymentFacts(
        deployment_id=specification.deployment_id,
        deployment_group_id=specification.deployment_group_id,
        deployment_group_name=specification.deployment_group_name,
        application_name=specification.application_name,
        deployment_type=specification.deployment_type,
        creator=specification.creator,
        possible_events=None if possible is None else tuple(sorted(possible)),
        planned_events=None if planned_events is None else tuple(planned_events),
    )

"""The beginning of a deployment: which hosts it goes to, in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.dispatch.progress import advance
from controlplane.domain.statuses import DeploymentStatus, TargetStatus
from controlplane.store import deployments as store
from controlplane.store.hosts import list_instances, tags_of
from controlplane.store.schema import DeploymentGroupRow, DeploymentRow, GroupHostRow, InstanceRow, TargetRow

if TYPE_CHECKING:
    from controlplane.dispatch.transactions import Transaction
    from controlplane.domain.configurations import DeploymentConfiguration
    from controlplane.domain.revisions import Revision
    from controlplane.domain.tags import HostSelection


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRequest:
    """What somebody asked to deploy, checked."""

    group: DeploymentGroupRow
    selection: HostSelection
    configuration: DeploymentConfiguration
    revision: Revision
    description: str | None
    ignore_application_stop_failures: bool
    file_exists_behavior: str


def begin_deployment(transaction: Transaction, request: DeploymentRequest) -> DeploymentRow:
    """A deployment to the hosts the group selects now; its first hosts have their first command ready.

    Without a matching host, or with a minimum that leaves room for none, it has failed already.
    """
    instances = _selected(transaction, request)
    deployment = _new_deployment(transaction, request, fleet_size=len(instances))
    transaction.session.add(deployment)
    transaction.session.flush()
    earlier = store.group_hosts(transaction.session, request.group.id)
    for position, instance in enumerate(instances):
        before = earlier.get(instance.name)
        transaction.session.add(
            TargetRow(
                deployment_id=deployment.id,
                instance_name=instance.name,
                instance_arn=instance.arn,
                position=position,
                status=TargetStatus.PENDING,
                was_healthy=before is None or before.is_healthy,
                updated_at=transaction.now,
            )
        )
    transaction.session.flush()
    advance(transaction, deployment)
    return deployment


def _selected(transaction: Transaction, request: DeploymentRequest) -> list[InstanceRow]:
    """The hosts of the group: first those in trouble, then those with no or another revision, then by name."""
    earlier = store.group_hosts(transaction.session, request.group.id)
    last = store.last_deployment(transaction.session, request.group.id, DeploymentStatus.SUCCEEDED)
    current = None if last is None else last.revision
    selected = [
        instance
        for instance in list_instances(transaction.session)
        if instance.deregistered_at is None and request.selection.selects(tags_of(instance))
    ]
    return sorted(selected, key=lambda instance: (_rank(earlier.get(instance.name), current), instance.name))


def _rank(before: GroupHostRow | None, current: dict[str, object] | None) -> int:
    if before is None:
        return 1
    if not before.is_healthy:
        return 0
    return 3 if before.revision == current else 2


def _new_deployment(
    transaction: Transaction, request: DeploymentRequest, *, fleet_size: int
) -> DeploymentRow:
    group = request.group
    previous = store.last_deployment(transaction.session, group.id, DeploymentStatus.SUCCEEDED)
    return DeploymentRow(
        id=store.new_deployment_id(),
        application_name=group.application_name,
        group_id=group.id,
        group_name=group.name,
        deployment_config_name=request.configuration.name,
        required_healthy=request.configuration.required(fleet_size),
        revision=request.revision.location(),
        previous_revision=None if previous is None else previous.revision,
        description=request.description,
        ignore_application_stop_failures=request.ignore_application_stop_failures,
        file_exists_behavior=request.file_exists_behavior,
        status=DeploymentStatus.CREATED,
        created_at=transaction.now,
    )

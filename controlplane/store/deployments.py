"""Deployments, their targets, and the host commands that carry them out."""

from __future__ import annotations

import secrets
import string
import uuid
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from controlplane.domain.explanation import FailedHost
from controlplane.domain.fleet import FleetHost
from controlplane.domain.statuses import DeploymentStatus, EventStatus, TargetStatus
from controlplane.store.schema import DeploymentRow, GroupHostRow, HostCommandRow, TargetRow

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.orm import Session

    from controlplane.domain.lifecycle import NextEvent

_ID_ALPHABET = string.ascii_uppercase + string.digits
OPEN_DEPLOYMENT = (DeploymentStatus.CREATED, DeploymentStatus.IN_PROGRESS)


def new_deployment_id() -> str:
    """An id that no deployment has: `d-` and nine capitals and digits."""
    return "d-" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(9))


def find_deployment(session: Session, deployment_id: str) -> DeploymentRow | None:
    """The deployment of this id, or None."""
    return session.scalars(select(DeploymentRow).where(DeploymentRow.id == deployment_id)).one_or_none()


def deployment_of(session: Session, command: HostCommandRow) -> DeploymentRow:
    """The deployment the command is part of."""
    return session.scalars(select(DeploymentRow).where(DeploymentRow.id == command.deployment_id)).one()


def active_deployment(session: Session, group_id: str) -> DeploymentRow | None:
    """The deployment of this group that is not over, or None; there is never more than one."""
    query = select(DeploymentRow).where(
        DeploymentRow.group_id == group_id, DeploymentRow.status.in_(OPEN_DEPLOYMENT)
    )
    return session.scalars(query).one_or_none()


def last_deployment(
    session: Session, group_id: str, status: DeploymentStatus | None = None
) -> DeploymentRow | None:
    """The newest deployment of the group, or the newest in this status; None when there is none."""
    query = select(DeploymentRow).where(DeploymentRow.group_id == group_id)
    if status is not None:
        query = query.where(DeploymentRow.status == status)
    return session.scalars(query.order_by(DeploymentRow.number.desc()).limit(1)).one_or_none()


def fleet(session: Session, deployment_id: str) -> list[FleetHost]:
    """The hosts of a deployment in starting order."""
    query = (
        select(TargetRow.instance_name, TargetRow.status, TargetRow.was_healthy)
        .where(TargetRow.deployment_id == deployment_id)
        .order_by(TargetRow.position)
    )
    return [
        FleetHost(name=name, status=status, was_healthy=was_healthy)
        for name, status, was_healthy in session.execute(query)
    ]


def count_targets(session: Session, deployment_ids: Collection[str]) -> dict[str, dict[TargetStatus, int]]:
    """How many hosts of each deployment are in which status."""
    query = (
        select(TargetRow.deployment_id, TargetRow.status, func.count())
        .where(TargetRow.deployment_id.in_(deployment_ids))
        .group_by(TargetRow.deployment_id, TargetRow.status)
    )
    counts: dict[str, dict[TargetStatus, int]] = {deployment_id: {} for deployment_id in deployment_ids}
    for deployment_id, status, count in session.execute(query):
        counts[deployment_id][status] = count
    return counts


def find_target(session: Session, deployment_id: str, instance_name: str) -> TargetRow | None:
    """What this deployment does to this host, or None when the host is no target of it."""
    return session.get(TargetRow, (deployment_id, instance_name))


def set_target_status(
    session: Session, deployment_id: str, names: Collection[str], status: TargetStatus, now: float
) -> None:
    """These hosts of the deployment have this status from now on."""
    session.execute(
        update(TargetRow)
        .where(TargetRow.deployment_id == deployment_id, TargetRow.instance_name.in_(names))
        .values(status=status, updated_at=now)
    )


def skip_pending_targets(session: Session, deployment_id: str, now: float) -> None:
    """Hosts that were not started will not be."""
    session.execute(
        update(TargetRow)
        .where(TargetRow.deployment_id == deployment_id, TargetRow.status == TargetStatus.PENDING)
        .values(status=TargetStatus.SKIPPED, updated_at=now)
    )


def add_command(
    session: Session, *, deployment_id: str, instance_name: str, event: NextEvent, now: float
) -> None:
    """The event is ready to be delivered to the host."""
    session.add(
        HostCommandRow(
            identifier=uuid.uuid4().hex,
            deployment_id=deployment_id,
            instance_name=instance_name,
            position=event.position,
            event=event.event,
            status=EventStatus.PENDING,
            ready_at=now,
        )
    )


def find_command(session: Session, identifier: str) -> HostCommandRow | None:
    """The command of this identifier, or None."""
    return session.scalars(
        select(HostCommandRow).where(HostCommandRow.identifier == identifier)
    ).one_or_none()


def next_undelivered(
    session: Session, instance_name: str, *, delivered_before: float
) -> HostCommandRow | None:
    """The oldest command the host has not acknowledged and was not given since `delivered_before`."""
    query = (
        select(HostCommandRow)
        .where(
            HostCommandRow.status == EventStatus.PENDING,
            HostCommandRow.instance_name == instance_name,
            HostCommandRow.delivered_at.is_(None) | (HostCommandRow.delivered_at <= delivered_before),
        )
        .order_by(HostCommandRow.id)
        .limit(1)
    )
    return session.scalars(query).one_or_none()


def open_commands(session: Session, deployment_id: str | None = None) -> list[HostCommandRow]:
    """All commands without a result, oldest first; those of one deployment when it is named."""
    query = select(HostCommandRow).where(
        HostCommandRow.status.in_((EventStatus.PENDING, EventStatus.IN_PROGRESS))
    )
    if deployment_id is not None:
        query = query.where(HostCommandRow.deployment_id == deployment_id)
    return list(session.scalars(query.order_by(HostCommandRow.id)))


def commands_of(
    session: Session, deployment_id: str, instance_names: Sequence[str]
) -> dict[str, dict[int, HostCommandRow]]:
    """The commands of these hosts in this deployment: by instance name, then by position of the event."""
    query = select(HostCommandRow).where(
        HostCommandRow.deployment_id == deployment_id, HostCommandRow.instance_name.in_(instance_names)
    )
    found: dict[str, dict[int, HostCommandRow]] = {name: {} for name in instance_names}
    for row in session.scalars(query):
        found[row.instance_name][row.position] = row
    return found


def failed_hosts(session: Session, deployment_id: str) -> list[FailedHost]:
    """The hosts that failed, the earliest first, each with the event that decided it."""
    query = (
        select(HostCommandRow)
        .join(
            TargetRow,
            (TargetRow.deployment_id == HostCommandRow.deployment_id)
            & (TargetRow.instance_name == HostCommandRow.instance_name),
        )
        .where(
            HostCommandRow.deployment_id == deployment_id,
            HostCommandRow.status == EventStatus.FAILED,
            TargetRow.status == TargetStatus.FAILED,
        )
        .order_by(HostCommandRow.completed_at, HostCommandRow.id)
    )
    deciding: dict[str, HostCommandRow] = {}
    for row in session.scalars(query):
        # An ignored ApplicationStop failure comes before the event that decided: the later one takes its place.
        deciding.pop(row.instance_name, None)
        deciding[row.instance_name] = row
    return [
        FailedHost(name=name, event=row.event, message=row.message or "", unseen_s=row.unseen_s)
        for name, row in deciding.items()
    ]


def group_hosts(session: Session, group_id: str) -> dict[str, GroupHostRow]:
    """What earlier deployments of the group did, by instance name."""
    rows = session.scalars(select(GroupHostRow).where(GroupHostRow.group_id == group_id))
    return {row.instance_name: row for row in rows}

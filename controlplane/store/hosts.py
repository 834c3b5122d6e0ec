"""On-premises instances: registration, tags, when they were last seen."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from controlplane.store.database import endpoint_names
from controlplane.store.schema import InstanceRow, InstanceTagRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

_SUFFIX_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A host polled at this time, with an agent that calls itself this version."""

    seen_at: float
    agent_version: str | None


def find_registered(session: Session, name: str) -> InstanceRow | None:
    """The registered instance of this name; None when there is none or it was deregistered."""
    row = session.get(InstanceRow, name)
    return row if row is not None and row.deregistered_at is None else None


def find_by_identity(session: Session, iam_user_arn: str) -> InstanceRow | None:
    """The registered instance that acts under this ARN, or None."""
    query = select(InstanceRow).where(
        InstanceRow.iam_user_arn == iam_user_arn, InstanceRow.deregistered_at.is_(None)
    )
    return session.scalars(query).one_or_none()


def register(session: Session, *, name: str, iam_user_arn: str, now: float) -> InstanceRow:
    """A new registration, without tags; what an earlier, deregistered instance of this name had is gone.

    The caller has checked that neither name nor ARN is registered.
    """
    earlier = session.get(InstanceRow, name)
    if earlier is not None:
        session.delete(earlier)
        session.flush()
    names = endpoint_names(session)
    suffix = "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(10))
    row = InstanceRow(
        name=name,
        arn=f"arn:aws:codedeploy:{names.region}:{names.account}:instance/{name}_{suffix}",
        iam_user_arn=iam_user_arn,
        registered_at=now,
    )
    session.add(row)
    session.flush()
    return row


def list_instances(session: Session) -> list[InstanceRow]:
    """All instances by name, registered or not."""
    return list(session.scalars(select(InstanceRow).order_by(InstanceRow.name)))


def tags_of(row: InstanceRow) -> dict[str, str]:
    """The tags of an instance."""
    return {tag.key: tag.value for tag in row.tags}


def put_tags(row: InstanceRow, tags: Mapping[str, str]) -> None:
    """The instance carries these tags from now on; a key it already had gets the new value."""
    present = {tag.key: tag for tag in row.tags}
    for key, value in tags.items():
        if key in present:
            present[key].value = value
        else:
            row.tags.append(InstanceTagRow(key=key, value=value))


def record_sightings(session: Session, sightings: Mapping[str, Sighting]) -> None:
    """Writes down when these hosts last polled, by instance name."""
    for name, sighting in sightings.items():
        session.execute(
            update(InstanceRow)
            .where(InstanceRow.name == name)
            .values(last_seen_at=sighting.seen_at, agent_version=sighting.agent_version)
        )

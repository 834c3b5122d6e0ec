"""The tables. Times are seconds since 1970 in UTC; a revision is stored as the API's RevisionLocation."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# The mapper reads the annotations at run time, so these are no imports for type checkers only.
from controlplane.domain.diagnostics import LifecycleErrorCode  # noqa: TC001
from controlplane.domain.statuses import (  # noqa: TC001
    DeploymentErrorCode,
    DeploymentStatus,
    EventStatus,
    TargetStatus,
)
from controlplane.store.kinds import IdentityKind  # noqa: TC001

SCHEMA_VERSION = 1
"""Written to the database; a database with a higher one is not opened."""


class Base(DeclarativeBase):
    """All tables of the endpoint."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012 - the mapper's own protocol


class EndpointRow(Base):
    """What this endpoint calls itself; exactly one row."""

    __tablename__ = "endpoint"

    id: Mapped[int] = mapped_column(primary_key=True)
    region: Mapped[str]
    account: Mapped[str]


class IdentityRow(Base):
    """Someone who may sign requests: a person (or CI), or a host."""

    __tablename__ = "identities"

    arn: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    kind: Mapped[IdentityKind]
    created_at: Mapped[float]


class AccessKeyRow(Base):
    """A key pair. SigV4 needs the secret itself to check a signature, so it can't be kept as a hash."""

    __tablename__ = "access_keys"

    access_key_id: Mapped[str] = mapped_column(primary_key=True)
    secret_access_key: Mapped[str]
    identity_arn: Mapped[str] = mapped_column(ForeignKey("identities.arn"), index=True)
    created_at: Mapped[float]


class InstanceRow(Base):
    """An on-premises instance. A deregistered one stays as history until its name is registered again."""

    __tablename__ = "instances"

    name: Mapped[str] = mapped_column(primary_key=True)
    arn: Mapped[str]
    iam_user_arn: Mapped[str] = mapped_column(index=True)
    registered_at: Mapped[float]
    deregistered_at: Mapped[float | None]
    last_seen_at: Mapped[float | None]
    agent_version: Mapped[str | None]
    tags: Mapped[list[InstanceTagRow]] = relationship(
        cascade="all, delete-orphan", order_by="InstanceTagRow.key", lazy="selectin"
    )


class InstanceTagRow(Base):
    """One tag; a key occurs once per instance."""

    __tablename__ = "instance_tags"

    instance_name: Mapped[str] = mapped_column(ForeignKey("instances.name"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class ApplicationRow(Base):
    """An application: a name that groups and revisions hang on."""

    __tablename__ = "applications"

    name: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float]


class RevisionRow(Base):
    """A revision an application knows, because it was registered or deployed."""

    __tablename__ = "revisions"

    application_name: Mapped[str] = mapped_column(ForeignKey("applications.name"), primary_key=True)
    location_key: Mapped[str] = mapped_column(primary_key=True)
    location: Mapped[dict[str, Any]]
    description: Mapped[str | None]
    registered_at: Mapped[float]
    first_used_at: Mapped[float | None]
    last_used_at: Mapped[float | None]


class DeploymentConfigurationRow(Base):
    """A deployment configuration made by an operator; the predefined ones are not stored."""

    __tablename__ = "deployment_configurations"

    name: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    unit: Mapped[str]
    value: Mapped[int]
    created_at: Mapped[float]


class DeploymentGroupRow(Base):
    """A deployment group: whom to deploy to, and under which rule."""

    __tablename__ = "deployment_groups"
    __table_args__ = (UniqueConstraint("application_name", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    application_name: Mapped[str] = mapped_column(ForeignKey("applications.name"))
    name: Mapped[str]
    deployment_config_name: Mapped[str]
    service_role_arn: Mapped[str]
    tag_filters: Mapped[list[Any]]
    tag_set: Mapped[list[Any]]
    created_at: Mapped[float]


class DeploymentRow(Base):
    """One deployment. `number` is the order of creation; `required_healthy` is fixed at creation."""

    __tablename__ = "deployments"
    __table_args__ = (Index("deployments_by_group", "group_id", "status"),)

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    application_name: Mapped[str] = mapped_column(index=True)
    group_id: Mapped[str] = mapped_column(ForeignKey("deployment_groups.id"))
    group_name: Mapped[str]
    deployment_config_name: Mapped[str]
    required_healthy: Mapped[int]
    revision: Mapped[dict[str, Any]]
    previous_revision: Mapped[dict[str, Any] | None]
    description: Mapped[str | None]
    ignore_application_stop_failures: Mapped[bool]
    file_exists_behavior: Mapped[str]
    status: Mapped[DeploymentStatus]
    error_code: Mapped[DeploymentErrorCode | None]
    error_message: Mapped[str | None]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    completed_at: Mapped[float | None]


class TargetRow(Base):
    """One host of one deployment; `position` is the starting order."""

    __tablename__ = "targets"

    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), primary_key=True)
    instance_name: Mapped[str] = mapped_column(primary_key=True)
    instance_arn: Mapped[str]
    position: Mapped[int]
    status: Mapped[TargetStatus]
    was_healthy: Mapped[bool]
    updated_at: Mapped[float]


class HostCommandRow(Base):
    """One lifecycle event of one host, written at the moment it becomes ready; later events have no row yet."""

    __tablename__ = "host_commands"
    __table_args__ = (
        UniqueConstraint("deployment_id", "instance_name", "position"),
        Index("host_commands_open", "status", "instance_name"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    identifier: Mapped[str] = mapped_column(unique=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"))
    instance_name: Mapped[str]
    position: Mapped[int]
    event: Mapped[str]
    status: Mapped[EventStatus]
    ready_at: Mapped[float]
    delivered_at: Mapped[float | None]
    acknowledged_at: Mapped[float | None]
    heard_at: Mapped[float | None]
    """When the host last spoke about this command: acknowledgement or update."""
    completed_at: Mapped[float | None]
    is_noop: Mapped[bool | None]
    error_code: Mapped[LifecycleErrorCode | None]
    script_name: Mapped[str | None]
    message: Mapped[str | None]
    log_tail: Mapped[str | None]
    unseen_s: Mapped[float | None]
    """How long the host had been silent, when that is why the event failed."""


class GroupHostRow(Base):
    """What the deployments of one group did to one host so far."""

    __tablename__ = "group_hosts"

    group_id: Mapped[str] = mapped_column(ForeignKey("deployment_groups.id"), primary_key=True)
    instance_name: Mapped[str] = mapped_column(primary_key=True)
    is_healthy: Mapped[bool]
    revision: Mapped[dict[str, Any] | None]
    """The revision whose deployment last succeeded on this host."""

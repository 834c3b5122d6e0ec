"""The closed sets of states, with the words the API uses for them."""

from __future__ import annotations

from enum import Enum


class DeploymentStatus(str, Enum):
    """Where a whole deployment stands."""

    CREATED = "Created"
    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"

    @property
    def is_final(self) -> bool:
        """True when the deployment will never change again."""
        return self not in {DeploymentStatus.CREATED, DeploymentStatus.IN_PROGRESS}


class TargetStatus(str, Enum):
    """Where one host stands within one deployment."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"

    @property
    def is_final(self) -> bool:
        """True when nothing more happens to this host in this deployment."""
        return self not in {TargetStatus.PENDING, TargetStatus.IN_PROGRESS}


class EventStatus(str, Enum):
    """Where one lifecycle event of one host stands; a host command has the status of its event."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"

    @property
    def is_final(self) -> bool:
        """True when the event has a result, or will never run."""
        return self not in {EventStatus.PENDING, EventStatus.IN_PROGRESS}


class CommandStatus(str, Enum):
    """What the host command protocol calls the status of a command."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class DeploymentErrorCode(str, Enum):
    """Why a deployment did not succeed."""

    HEALTH_CONSTRAINTS = "HEALTH_CONSTRAINTS"
    HEALTH_CONSTRAINTS_INVALID = "HEALTH_CONSTRAINTS_INVALID"
    NO_INSTANCES = "NO_INSTANCES"
    MANUAL_STOP = "MANUAL_STOP"

"""The lifecycle events of an in-place deployment, and what follows the end of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from controlplane.domain.statuses import TargetStatus

APPLICATION_STOP: Final = "ApplicationStop"

IN_PLACE_EVENTS: Final = (
    APPLICATION_STOP,
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
)
"""The order on every host when no load balancer takes part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextEvent:
    """The host goes on with this event; `position` counts from 0."""

    position: int

    @property
    def event(self) -> str:
        """Name of the event."""
        return IN_PLACE_EVENTS[self.position]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFinished:
    """The host is done with this deployment; events it did not reach are skipped."""

    status: TargetStatus


AfterEvent: TypeAlias = NextEvent | HostFinished


def after_event(
    *, position: int, succeeded: bool, ignore_application_stop_failures: bool, wanted: bool
) -> AfterEvent:
    """What follows when the event at `position` has ended.

    `wanted` is False when the deployment was stopped meanwhile: the host ends where it is, and counts as
    failed because nobody knows what its half-deployed revision does.
    """
    ignored = ignore_application_stop_failures and IN_PLACE_EVENTS[position] == APPLICATION_STOP
    if not succeeded and not ignored:
        return HostFinished(status=TargetStatus.FAILED)
    if position + 1 == len(IN_PLACE_EVENTS):
        return HostFinished(status=TargetStatus.SUCCEEDED)
    if not wanted:
        return HostFinished(status=TargetStatus.FAILED)
    return NextEvent(position=position + 1)

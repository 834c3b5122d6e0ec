"""How long a command may wait, and whose fault it is when it waits longer."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.domain.diagnostics import Diagnostics, LifecycleErrorCode
from controlplane.domain.explanation import explain_overdue, explain_unacknowledged, explain_unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCommand:
    """A command without a result. All times are seconds since 1970."""

    host: str
    event: str
    ready_at: float
    heard_at: float | None
    """When the host last spoke about it; None until it is acknowledged."""
    seen_at: float | None
    """When the host last polled; None when it never did."""
    watched_since: float
    """When this endpoint started: silence before that proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """Why a command has failed without its host; `unseen_s` tells that the host was silent for so long."""

    diagnostics: Diagnostics
    unseen_s: float | None = None


def find_overdue(
    command: OpenCommand, *, now: float, command_timeout_s: float, host_unseen_after_s: float
) -> Overdue | None:
    """Why the command has failed by now; None while it may still wait."""
    if command.heard_at is not None:
        silent_s = now - max(command.heard_at, command.watched_since)
        if silent_s <= command_timeout_s:
            return None
        message = explain_overdue(host=command.host, event=command.event, silent_s=silent_s)
        return _overdue(LifecycleErrorCode.SCRIPT_TIMED_OUT, message)
    waited_s = now - max(command.ready_at, command.watched_since)
    silent_s = waited_s if command.seen_at is None else min(waited_s, now - command.seen_at)
    if silent_s > host_unseen_after_s:
        unseen_s = silent_s if command.seen_at is None else now - command.seen_at
        message = explain_unseen(
            host=command.host, event=command.event, seen_at=command.seen_at, silent_s=unseen_s
        )
        return _overdue(LifecycleErrorCode.UNKNOWN_ERROR, message, unseen_s)
    if waited_s > command_timeout_s:
        message = explain_unacknowledged(host=command.host, event=command.event, waited_s=waited_s)
        return _overdue(LifecycleErrorCode.UNKNOWN_ERROR, message)
    return None


def _overdue(code: LifecycleErrorCode, message: str, unseen_s: float | None = None) -> Overdue:
    return Overdue(diagnostics=Diagnostics(error_code=code, message=message), unseen_s=unseen_s)

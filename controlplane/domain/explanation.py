"""Why a deployment or an event failed, in the words an operator needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from controlplane.domain.statuses import DeploymentErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedHost:
    """A host that failed: at which event, what it said, and for how long it was silent when it was that."""

    name: str
    event: str
    message: str
    unseen_s: float | None


def explain_failure(
    *, code: DeploymentErrorCode, hosts: int, required: int, succeeded: int, failed: Sequence[FailedHost]
) -> str:
    """One or a few sentences: how many failed, the first one in full, and how many were merely not seen.

    `failed` is ordered by the time of failure.
    """
    if code is DeploymentErrorCode.NO_INSTANCES:
        return (
            "No registered host carries the tags of this deployment group. "
            "Compare the group's tag filters with the tags of the hosts (list-on-premises-instances)."
        )
    if code is DeploymentErrorCode.HEALTH_CONSTRAINTS_INVALID:
        return (
            f"{required} of {hosts} hosts must stay healthy, so none may be taken out for the deployment. "
            "Choose a deployment configuration with a lower minimum, or add hosts to the group."
        )
    return _explain_health(hosts=hosts, required=required, succeeded=succeeded, failed=failed)


def _explain_health(*, hosts: int, required: int, succeeded: int, failed: Sequence[FailedHost]) -> str:
    sentences = [f"{len(failed)} of {hosts} hosts failed."]
    broken = [host for host in failed if host.unseen_s is None]
    unseen = [host for host in failed if host.unseen_s is not None]
    if broken:
        first = broken[0]
        sentences.append(f"First: {first.name}, {first.event}, {first.message.rstrip('. ') or 'no message'}.")
    if unseen:
        longest = max(host.unseen_s or 0.0 for host in unseen)
        names = ", ".join(host.name for host in unseen[:3]) + (", …" if len(unseen) > 3 else "")
        plural = "host" if len(unseen) == 1 else "hosts"
        sentences.append(f"{len(unseen)} {plural} not seen for {spell_duration(longest)}: {names}.")
    sentences.append(f"{succeeded} succeeded; {max(1, required)} must be healthy.")
    return " ".join(sentences)


def explain_unseen(*, host: str, event: str, seen_at: float | None, silent_s: float) -> str:
    """The message of an event that a silent host never received; `seen_at` in seconds since 1970."""
    silence = f"has not polled for {spell_duration(silent_s)}"
    last = "it never polled before" if seen_at is None else f"last seen {spell_time(seen_at)}"
    return (
        f"{event} was not carried out because {host} {silence} ({last}). Check on the host that the agent runs, that it is "
        "configured for this endpoint and with its own access key, and that nothing blocks the way (agentctl status, agentctl whoami)."
    )


def explain_unacknowledged(*, host: str, event: str, waited_s: float) -> str:
    """The message of an event that a polling host does not accept."""
    return (
        f"{host} polls, but has not acknowledged {event} for {spell_duration(waited_s)}. "
        "Look into the agent's log on the host for what keeps it from starting the command."
    )


def explain_overdue(*, host: str, event: str, silent_s: float) -> str:
    """The message of an event that was started and never reported."""
    return (
        f"{host} acknowledged {event} but neither completed nor updated it for {spell_duration(silent_s)}. "
        "Look into the agent's log on the host; the event may still be running there."
    )


def spell_time(seconds: float) -> str:
    """A time in UTC, to the second."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def spell_duration(seconds: float) -> str:
    """A duration as people say it: `45 s`, `14 min`, `3 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"

"""Whether what was reported is true. Pure: everything that has to be known is handed over."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.revision import FAILING_EVENT, HOOK_EVENTS, TIMED_OUT_EVENT
from chaos.schedule import FaultKind, NetworkFault, Script

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chaos.proxy import Exchange

COMPLETE = "PutHostCommandComplete"
_STARVING = (FaultKind.FULL_DISK, FaultKind.READ_ONLY, FaultKind.NO_FILES, FaultKind.NO_PIDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the host said of one command in the end."""

    status: str
    code: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What the control endpoint holds of one lifecycle event of one deployment."""

    deployment_id: str
    name: str
    status: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known about a run after it.

    Attributes:
        exchanges: everything the proxy saw.
        marks: what hooks wrote down: (deployment, event, start or end, pid).
        events: of all deployments, in order.
        scripts: how the hooks of each deployment behave.
        killed_workers: identifiers of the commands whose worker was killed.
        killed_hooks: pids.
        applied: the kinds of faults that took place.
    """

    exchanges: Sequence[Exchange]
    marks: Sequence[tuple[str, str, str, int]]
    events: Sequence[Event]
    scripts: Mapping[str, Script]
    killed_workers: frozenset[str]
    killed_hooks: frozenset[int]
    stopped_hooks: frozenset[int]
    applied: frozenset[FaultKind]


def find_violations(evidence: Evidence) -> list[str]:
    """What must not be, each as a sentence; empty = all is well."""
    return [
        *_check_completions(evidence),
        *_check_hooks(evidence),
        *_check_codes(evidence),
    ]


def parse_report(request: Mapping[str, Any]) -> Report:
    """The report in a request."""
    payload = json.loads(request["Diagnostics"]["Payload"])
    return Report(
        status=request["CommandStatus"], code=int(payload["error_code"]), message=payload["message"]
    )


def _check_completions(evidence: Evidence) -> Iterable[str]:
    """One effective completion for each command that was told to run; repeated only with a reason."""
    accepted = {
        exchange.identifier
        for exchange in evidence.exchanges
        if exchange.operation == "PutHostCommandAcknowledgement"
        and exchange.endpoint_status == 200
        and exchange.answer.get("CommandStatus") == "InProgress"
    }
    arrived: dict[str, list[Exchange]] = {}
    for exchange in evidence.exchanges:
        if exchange.operation == COMPLETE and exchange.endpoint_status == 200:
            arrived.setdefault(exchange.identifier, []).append(exchange)
    for identifier in sorted(accepted - arrived.keys()):
        yield f"command {identifier} was accepted and never reported"
    again = {
        older["HostCommandIdentifier"]
        for older in (exchange.answer.get("HostCommand") for exchange in evidence.exchanges)
        if older
    }
    for identifier, exchanges in arrived.items():
        reports = {(e.request["CommandStatus"], e.request["Diagnostics"]["Payload"]) for e in exchanges}
        # Refused before it was acknowledged, and forgotten for want of disk or descriptors: delivered again, it may
        # be refused for another reason, or found to have nothing to do. Nothing has been done either time.
        is_forgotten = identifier not in accepted and evidence.applied & set(_STARVING)
        if len(reports) > 1 and not is_forgotten:
            yield f"command {identifier} was reported with different results: {sorted(reports)}"
        has_reason = (
            any(not e.is_delivered or e.fault is not NetworkFault.NONE for e in exchanges)
            or identifier in evidence.killed_workers
            or evidence.applied & {FaultKind.KILL_ENDPOINT, *_STARVING}
            or any(e.fault is NetworkFault.DELIVERED_AGAIN for e in evidence.exchanges)
        )
        if len(exchanges) > 1 and not has_reason:
            yield f"command {identifier} was reported {len(exchanges)} times for no reason"
        if identifier not in again:
            yield f"command {identifier} was reported and never delivered"


def _check_hooks(evidence: Evidence) -> Iterable[str]:
    """No hook runs twice, and what has succeeded has run to its end."""
    seen = Counter((deployment, event, what) for deployment, event, what, _ in evidence.marks)
    for (deployment, name, what), times in seen.items():
        if what == "start" and times > 1:
            yield f"the hook {name} of {deployment} ran {times} times"
    for event in evidence.events:
        if event.status != "Succeeded" or event.name not in HOOK_EVENTS:
            continue
        ended = seen[event.deployment_id, event.name, "end"]
        # ApplicationStop comes from the revision that was installed before: there may be none.
        has_none = event.name == "ApplicationStop" and not seen[event.deployment_id, event.name, "start"]
        if ended != 1 and not has_none:
            yield f"{event.name} of {event.deployment_id} has Succeeded, and its hook ended {ended} times"


def _check_codes(evidence: Evidence) -> Iterable[str]:
    """Each failure that was reported has the cause that it names."""
    pids = {(deployment, event): pid for deployment, event, what, pid in evidence.marks if what == "start"}
    lost = {
        exchange.identifier
        for exchange in evidence.exchanges
        if exchange.operation == COMPLETE and parse_report(exchange.request).code == 7
    }
    for identifier in sorted(lost - evidence.killed_workers):
        yield f"command {identifier} was reported as lost (7), and nobody killed its worker"
    is_starved = bool(evidence.applied & set(_STARVING))
    # A hook may have been killed before it wrote down that it began.
    is_any_silent = bool(evidence.killed_hooks - set(pids.values()))
    for event in evidence.events:
        if event.status != "Failed":
            continue
        script = evidence.scripts[event.deployment_id]
        pid = pids.get((event.deployment_id, event.name), 0)
        if "worker-lost" in event.message:
            continue
        if event.code == "ScriptTimedOut":
            is_true = (
                script is Script.TIMED_OUT and event.name == TIMED_OUT_EVENT
            ) or pid in evidence.stopped_hooks
        elif event.code == "ScriptFailed":
            is_true = (
                (script is Script.FAILING and event.name == FAILING_EVENT)
                or pid in evidence.killed_hooks
                or (not pid and is_any_silent)
                or is_starved
            )
        else:
            is_true = is_starved
        if not is_true:
            yield f"{event.name} of {event.deployment_id} Failed without a cause: {event.code}, {event.message}"

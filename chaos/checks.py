"""Whether what was reported is true. Pure: everything that has to be known is handed over."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.faults import MEMORY_FAULTS, STARVING, FaultKind, NetworkFault, S3Fault
from chaos.proxy import deployments_of
from chaos.revision import FAILING_EVENT, HOOK_EVENTS, TIMED_OUT_EVENT
from chaos.schedule import Script

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chaos.proxy import Exchange
    from chaos.s3_proxy import Download

ACKNOWLEDGE = "PutHostCommandAcknowledgement"
COMPLETE = "PutHostCommandComplete"
# The administrator is asked before these; they always have something to do.
_ASKED = ("DownloadBundle", "BeforeInstall", "Install")
_ERROR_ID = re.compile(r"\[([a-z0-9-]+)\]\s*$")


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

    @property
    def error_id(self) -> str:
        """The stable name of what went wrong; empty when the message has none."""
        found = _ERROR_ID.search(self.message)
        return found[1] if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What was deployed: the revision's number, how its hooks behave, and its key in the bucket."""

    number: int
    script: Script
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known about a run after it.

    Attributes:
        exchanges: everything that passed between agent and control endpoint.
        downloads: everything that passed between agent and S3 server.
        marks: what hooks wrote down: (deployment, event, start or end, pid).
        answers: what the administrator's command wrote down: (deployment, event, taken or refused, pid).
        events: of all deployments, in order.
        deployments: all of them, in order.
        has_pre_accept: whether the administrator's command was to be asked.
        killed_workers: identifiers of the commands whose worker was killed, or got no more memory.
        killed_hooks: pids.
        stopped_hooks: pids.
        gone: when the archive of a deployment was gone, by deployment.
        applied: the kinds of faults that took place.
    """

    exchanges: Sequence[Exchange]
    downloads: Sequence[Download]
    marks: Sequence[tuple[str, str, str, int]]
    answers: Sequence[tuple[str, str, str, int]]
    events: Sequence[Event]
    deployments: Mapping[str, Deployment]
    has_pre_accept: bool
    killed_workers: frozenset[str]
    killed_hooks: frozenset[int]
    stopped_hooks: frozenset[int]
    gone: Mapping[str, float]
    applied: frozenset[FaultKind]


def find_violations(evidence: Evidence) -> list[str]:
    """What must not be, each as a sentence; empty = all is well."""
    return [
        *_check_completions(evidence),
        *_check_hooks(evidence),
        *_check_answers(evidence),
        *_check_gone(evidence),
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
        if exchange.operation == ACKNOWLEDGE
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
        is_forgotten = identifier not in accepted and evidence.applied & STARVING
        if len(reports) > 1 and not is_forgotten:
            yield f"command {identifier} was reported with different results: {sorted(reports)}"
        has_reason = (
            any(not e.is_delivered or e.fault is not NetworkFault.NONE for e in exchanges)
            or identifier in evidence.killed_workers
            or evidence.applied & {FaultKind.KILL_ENDPOINT, *STARVING}
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
        has_none = event.name == "ApplicationStop" and not _has_previous(evidence, event.deployment_id)
        if ended != 1 and not (has_none and not ended):
            yield f"{event.name} of {event.deployment_id} has Succeeded, and its hook ended {ended} times"


def _has_previous(evidence: Evidence, deployment_id: str) -> bool:
    """Whether the scripts of a revision that was installed before this deployment are there."""
    previous = ""
    for event in evidence.events:
        if event.deployment_id == deployment_id:
            break
        if event.name == "Install" and event.status == "Succeeded":
            previous = event.deployment_id
    return previous != "" and previous not in evidence.gone


def _check_answers(evidence: Evidence) -> Iterable[str]:
    """Nothing is done that the administrator's command has refused, or before it was asked."""
    answers: dict[tuple[str, str], set[str]] = {}
    for deployment, name, answer, _ in evidence.answers:
        answers.setdefault((deployment, name), set()).add(answer)
    begun = {(deployment, name) for deployment, name, what, _ in evidence.marks if what == "start"}
    for event in evidence.events:
        place = event.deployment_id, event.name
        is_done = event.status == "Succeeded" or place in begun
        if is_done and answers.get(place) == {"refused"}:
            yield f"{event.name} of {event.deployment_id} was refused by pre_accept_command, and was carried out"
        if evidence.has_pre_accept and is_done and event.name in _ASKED and place not in answers:
            yield f"{event.name} of {event.deployment_id} was carried out, and pre_accept_command was not asked"


def _check_gone(evidence: Evidence) -> Iterable[str]:
    """What was begun after the archive of its deployment had gone does not succeed."""
    deployments = deployments_of(evidence.exchanges)
    names: dict[str, str] = {}
    began: dict[str, float] = {}
    for exchange in evidence.exchanges:
        command = exchange.answer.get("HostCommand")
        if command:
            names[command["HostCommandIdentifier"]] = command["CommandName"]
        if exchange.operation == ACKNOWLEDGE and exchange.endpoint_status == 200:
            began.setdefault(exchange.identifier, exchange.at)
    statuses = {(event.deployment_id, event.name): event.status for event in evidence.events}
    for identifier, at in began.items():
        deployment, name = deployments.get(identifier, ""), names.get(identifier, "")
        is_gone = deployment in evidence.gone and at > evidence.gone[deployment]
        needs_it = name == "Install" or (name in HOOK_EVENTS and name != "ApplicationStop")
        if is_gone and needs_it and statuses.get((deployment, name)) == "Succeeded":
            yield f"{name} of {deployment} has Succeeded, and the deployment archive had gone before it began"


def _check_codes(evidence: Evidence) -> Iterable[str]:
    """Each failure that was reported has the cause that it names."""
    pids = {(deployment, event): pid for deployment, event, what, pid in evidence.marks if what == "start"}
    lost = {
        exchange.identifier
        for exchange in evidence.exchanges
        if exchange.operation == COMPLETE and parse_report(exchange.request).code == 7
    }
    # Limits of memory stay with a worker, which may take one command after the other.
    excused = lost if evidence.applied & MEMORY_FAULTS else evidence.killed_workers
    for identifier in sorted(lost - excused):
        yield f"command {identifier} was reported as lost (7), and nobody killed its worker"
    is_starved = bool(evidence.applied & STARVING)
    refused = {(deployment, name) for deployment, name, answer, _ in evidence.answers if answer == "refused"}
    # A hook may have been killed before it wrote down that it began.
    is_any_silent = bool(evidence.killed_hooks - set(pids.values()))
    for event in evidence.events:
        if event.status != "Failed":
            continue
        script = evidence.deployments[event.deployment_id].script
        pid = pids.get((event.deployment_id, event.name), 0)
        if "worker-lost" in event.message or (
            event.deployment_id in evidence.gone and event.name != "ApplicationStop"
        ):
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
        elif event.error_id == "host-not-ready":
            is_true = is_starved or (event.deployment_id, event.name) in refused
        else:
            is_true = is_starved or _is_true_download(evidence, event)
        if not is_true:
            yield f"{event.name} of {event.deployment_id} Failed without a cause: {event.code}, {event.message}"


def _is_true_download(evidence: Evidence, event: Event) -> bool:
    """Whether the S3 server gave cause to fail. Whatever passes is no cause: it is to be waited for."""
    key = evidence.deployments[event.deployment_id].key
    met = {download.fault for download in evidence.downloads if download.key == key}
    if event.name != "DownloadBundle":
        return False
    if event.error_id == "bundle-etag-mismatch":
        return bool(met & {S3Fault.OTHER_ETAG, S3Fault.RANGE_OTHER_ETAG})
    return event.error_id != "bundle-download-failed" and S3Fault.WRONG_BYTES in met

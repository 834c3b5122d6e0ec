"""Commands that wait too long: delivered again, or failed with a reason an operator can act on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from controlplane.dispatch.commands import complete
from controlplane.domain.diagnostics import Diagnostics, LifecycleErrorCode
from controlplane.domain.explanation import explain_overdue, explain_unacknowledged, explain_unseen
from controlplane.domain.statuses import EventStatus
from controlplane.settings import SIGHTINGS_FLUSH_S
from controlplane.store.deployments import open_commands
from controlplane.store.hosts import record_sightings
from controlplane.store.schema import HostCommandRow, InstanceRow

if TYPE_CHECKING:
    from controlplane.dispatch.sightings import Sightings
    from controlplane.dispatch.transactions import Transaction, Transactions
    from controlplane.dispatch.wakeups import Wakeups

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """Why a command has failed without its host."""

    diagnostics: Diagnostics
    unseen_s: float | None = None


def expire_commands(transaction: Transaction) -> None:
    """Every command whose time has run out has failed; hosts due for a second delivery are woken."""
    for command in open_commands(transaction.session):
        overdue = _overdue(transaction, command)
        if overdue is not None:
            command.unseen_s = overdue.unseen_s
            complete(transaction, command, succeeded=False, diagnostics=overdue.diagnostics)
        elif _is_due_again(transaction, command):
            transaction.woken.add(command.instance_name)


def _is_due_again(transaction: Transaction, command: HostCommandRow) -> bool:
    return (
        command.status is EventStatus.PENDING
        and command.delivered_at is not None
        and transaction.now - command.delivered_at >= transaction.timing.redeliver_after_s
    )


def _overdue(transaction: Transaction, command: HostCommandRow) -> Overdue | None:
    if command.status is EventStatus.PENDING:
        return _unaccepted(transaction, command)
    silent_s = transaction.now - max(command.heard_at or command.ready_at, transaction.started_at)
    if silent_s <= transaction.timing.command_timeout_s:
        return None
    message = explain_overdue(host=command.instance_name, event=command.event, silent_s=silent_s)
    return Overdue(diagnostics=Diagnostics(error_code=LifecycleErrorCode.SCRIPT_TIMED_OUT, message=message))


def _unaccepted(transaction: Transaction, command: HostCommandRow) -> Overdue | None:
    """A host can only be blamed for silence since the command was ready and this endpoint was up."""
    seen_at = _last_seen_at(transaction, command.instance_name)
    since = max(command.ready_at, transaction.started_at, seen_at or 0.0)
    host, event = command.instance_name, command.event
    if transaction.now - since > transaction.timing.host_unseen_after_s:
        unseen_s = None if seen_at is None else transaction.now - seen_at
        message = explain_unseen(host=host, event=event, unseen_s=unseen_s)
        return Overdue(
            diagnostics=Diagnostics(error_code=LifecycleErrorCode.UNKNOWN_ERROR, message=message),
            unseen_s=transaction.now - since if unseen_s is None else unseen_s,
        )
    waited_s = transaction.now - max(command.ready_at, transaction.started_at)
    if waited_s > transaction.timing.command_timeout_s:
        message = explain_unacknowledged(host=host, event=event, waited_s=waited_s)
        return Overdue(diagnostics=Diagnostics(error_code=LifecycleErrorCode.UNKNOWN_ERROR, message=message))
    return None


def _last_seen_at(transaction: Transaction, instance_name: str) -> float | None:
    seen_at = transaction.sightings.last_seen_at(instance_name)
    if seen_at is not None:
        return seen_at
    instance = transaction.session.get(InstanceRow, instance_name)
    return None if instance is None else instance.last_seen_at


async def watch_commands(
    transactions: Transactions, *, tick_s: float, wakeups: Wakeups, sightings: Sightings
) -> None:
    """Looks for overdue commands every `tick_s` seconds, and writes sightings down, until cancelled."""
    loop = asyncio.get_running_loop()
    flushed_at = loop.time()
    while True:
        await asyncio.sleep(tick_s)
        for host in wakeups.polling_hosts():
            sightings.see(host)
        try:
            await transactions.run(expire_commands)
            if loop.time() - flushed_at >= SIGHTINGS_FLUSH_S:
                flushed_at = loop.time()
                await flush_sightings(transactions, sightings)
        except Exception:
            # One bad round (a full disk, a locked database) must not end the watch for good.
            log.exception("watch_failed")


async def flush_sightings(transactions: Transactions, sightings: Sightings) -> None:
    """The times at which hosts polled are in the database."""
    unwritten = sightings.take_unwritten()
    if unwritten:
        await transactions.run(lambda transaction: record_sightings(transaction.session, unwritten))

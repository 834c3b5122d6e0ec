"""Commands that wait too long: delivered again, or failed with a reason an operator can act on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from controlplane.dispatch.commands import complete
from controlplane.domain.statuses import EventStatus
from controlplane.domain.waits import OpenCommand, find_overdue
from controlplane.settings import SIGHTINGS_FLUSH_S
from controlplane.store.deployments import open_commands
from controlplane.store.hosts import record_sightings
from controlplane.store.schema import HostCommandRow, InstanceRow

if TYPE_CHECKING:
    from controlplane.dispatch.sightings import Sightings
    from controlplane.dispatch.transactions import Transaction, Transactions
    from controlplane.dispatch.wakeups import Wakeups

log = structlog.get_logger()


def expire_commands(transaction: Transaction) -> None:
    """Every command whose time has run out has failed; hosts due for a second delivery are woken."""
    for command in open_commands(transaction.session):
        overdue = find_overdue(
            _describe(transaction, command),
            now=transaction.now,
            command_timeout_s=transaction.timing.command_timeout_s,
            host_unseen_after_s=transaction.timing.host_unseen_after_s,
        )
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


def _describe(transaction: Transaction, command: HostCommandRow) -> OpenCommand:
    return OpenCommand(
        host=command.instance_name,
        event=command.event,
        ready_at=command.ready_at,
        heard_at=command.heard_at,
        seen_at=_last_seen_at(transaction, command.instance_name),
        watched_since=transaction.started_at,
    )


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

"""One host command: delivered, acknowledged, updated, completed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from typing_extensions import assert_never

from controlplane.dispatch.progress import finish_host
from controlplane.domain.lifecycle import HostFinished, NextEvent, after_event
from controlplane.domain.statuses import CommandStatus, EventStatus
from controlplane.store import deployments as store

if TYPE_CHECKING:
    from controlplane.dispatch.transactions import Transaction
    from controlplane.domain.diagnostics import Diagnostics
    from controlplane.store.schema import HostCommandRow

log = structlog.get_logger()


def deliver(transaction: Transaction, instance_name: str) -> HostCommandRow | None:
    """The command the host should be given now; it is not given again before the redelivery wait is over."""
    delivered_before = transaction.now - transaction.timing.redeliver_after_s
    command = store.next_undelivered(transaction.session, instance_name, delivered_before=delivered_before)
    if command is None:
        return None
    log.info(
        "command_delivered",
        deployment_id=command.deployment_id,
        host=instance_name,
        lifecycle_event=command.event,
        host_command_identifier=command.identifier,
        again=command.delivered_at is not None,
    )
    command.delivered_at = transaction.now
    return command


def acknowledge(transaction: Transaction, command: HostCommandRow, *, is_noop: bool | None) -> CommandStatus:
    """InProgress: run it, it will not be delivered again. Succeeded or Failed: it is over, do not run it."""
    if command.status is EventStatus.PENDING:
        command.status = EventStatus.IN_PROGRESS
        command.acknowledged_at = transaction.now
        command.heard_at = transaction.now
        command.is_noop = is_noop
    return status_of(command)


def record_update(transaction: Transaction, command: HostCommandRow) -> CommandStatus:
    """The host is still at work, so the timeout starts anew.

    The answer is Failed when the deployment was stopped meanwhile: the host may end the event early.
    """
    if command.status is EventStatus.IN_PROGRESS:
        command.heard_at = transaction.now
        if store.deployment_of(transaction.session, command).status.is_final:
            return CommandStatus.FAILED
    return status_of(command)


def complete(
    transaction: Transaction, command: HostCommandRow, *, succeeded: bool, diagnostics: Diagnostics
) -> None:
    """The event has this result, and what follows from it is ready. The first result stays for good."""
    if command.status.is_final:
        log.info("completion_repeated", host_command_identifier=command.identifier)
        return
    _record_result(transaction, command, succeeded=succeeded, diagnostics=diagnostics)
    deployment = store.deployment_of(transaction.session, command)
    following = after_event(
        position=command.position,
        succeeded=succeeded,
        # A silent host did not fail to stop the application: going on would only wait for it once more.
        ignore_application_stop_failures=deployment.ignore_application_stop_failures
        and command.unseen_s is None,
        wanted=not deployment.status.is_final,
    )
    match following:
        case NextEvent():
            store.add_command(
                transaction.session,
                deployment_id=deployment.id,
                instance_name=command.instance_name,
                event=following,
                now=transaction.now,
            )
            transaction.woken.add(command.instance_name)
        case HostFinished(status=status):
            finish_host(transaction, deployment, command.instance_name, status)
        case _:
            assert_never(following)


def status_of(command: HostCommandRow) -> CommandStatus:
    """The status in the words of the host command protocol; a withdrawn command has Failed there."""
    if command.status is EventStatus.SKIPPED:
        return CommandStatus.FAILED
    return CommandStatus(command.status.value)


def _record_result(
    transaction: Transaction, command: HostCommandRow, *, succeeded: bool, diagnostics: Diagnostics
) -> None:
    command.status = EventStatus.SUCCEEDED if succeeded else EventStatus.FAILED
    command.completed_at = transaction.now
    command.error_code = diagnostics.error_code
    command.script_name = diagnostics.script_name
    command.message = diagnostics.message
    command.log_tail = diagnostics.log_tail
    transaction.session.flush()
    log.info(
        "command_completed",
        deployment_id=command.deployment_id,
        host=command.instance_name,
        lifecycle_event=command.event,
        host_command_identifier=command.identifier,
        status=command.status.value,
        error_code=diagnostics.error_code.value,
        seconds=round(transaction.now - command.ready_at, 3),
    )

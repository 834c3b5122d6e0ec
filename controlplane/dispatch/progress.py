"""How a deployment moves: hosts start, hosts finish, the deployment ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from typing_extensions import assert_never

from controlplane.domain.explanation import explain_failure
from controlplane.domain.fleet import Fail, StartHosts, Succeed, Wait, decide
from controlplane.domain.lifecycle import NextEvent
from controlplane.domain.statuses import DeploymentErrorCode, DeploymentStatus, EventStatus, TargetStatus
from controlplane.store import deployments as store
from controlplane.store.schema import DeploymentRow, GroupHostRow, HostCommandRow

if TYPE_CHECKING:
    from collections.abc import Collection

    from controlplane.dispatch.transactions import Transaction

log = structlog.get_logger()


def advance(transaction: Transaction, deployment: DeploymentRow) -> None:
    """Starts every host that may start now, or ends the deployment when that is decided."""
    if deployment.status.is_final:
        return
    hosts = store.fleet(transaction.session, deployment.id)
    decision = decide(hosts, deployment.required_healthy)
    match decision:
        case StartHosts(names=names):
            _start_hosts(transaction, deployment, names)
        case Wait():
            pass
        case Succeed():
            _end(transaction, deployment, DeploymentStatus.SUCCEEDED)
        case Fail(code=code):
            _fail(transaction, deployment, code)
        case _:
            assert_never(decision)


def finish_host(
    transaction: Transaction, deployment: DeploymentRow, instance_name: str, status: TargetStatus
) -> None:
    """The host is done with the deployment; whatever that decides for the deployment happens too."""
    store.set_target_status(transaction.session, deployment.id, [instance_name], status, transaction.now)
    log.info("host_finished", deployment_id=deployment.id, host=instance_name, status=status.value)
    if deployment.status.is_final:
        # Stopped meanwhile: its health was settled then, and a later deployment may have changed it since.
        return
    _record_health(transaction, deployment, instance_name, succeeded=status is TargetStatus.SUCCEEDED)
    advance(transaction, deployment)


def stop(transaction: Transaction, deployment: DeploymentRow) -> bool:
    """Ends the deployment where it is; True when no host is running anything for it any more.

    Commands that no host has acknowledged are withdrawn. An acknowledged one can't be taken back: its host
    learns of the stop when it next speaks about the command, and its result is still recorded.
    """
    deployment.error_code = DeploymentErrorCode.MANUAL_STOP
    deployment.error_message = "The deployment was stopped on request."
    running = False
    for command in store.open_commands(transaction.session, deployment.id):
        _record_health(transaction, deployment, command.instance_name, succeeded=False)
        if command.status is EventStatus.IN_PROGRESS:
            running = True
            continue
        _withdraw(transaction, deployment, command)
    _end(transaction, deployment, DeploymentStatus.STOPPED)
    return not running


def _withdraw(transaction: Transaction, deployment: DeploymentRow, command: HostCommandRow) -> None:
    command.status = EventStatus.SKIPPED
    command.completed_at = transaction.now
    # A host that had run an earlier event is left half-way; one that had not was never touched.
    status = TargetStatus.SKIPPED if command.position == 0 else TargetStatus.FAILED
    store.set_target_status(
        transaction.session, deployment.id, [command.instance_name], status, transaction.now
    )


def _start_hosts(transaction: Transaction, deployment: DeploymentRow, names: Collection[str]) -> None:
    if deployment.started_at is None:
        deployment.started_at = transaction.now
    deployment.status = DeploymentStatus.IN_PROGRESS
    store.set_target_status(
        transaction.session, deployment.id, names, TargetStatus.IN_PROGRESS, transaction.now
    )
    for name in names:
        store.add_command(
            transaction.session,
            deployment_id=deployment.id,
            instance_name=name,
            event=NextEvent(position=0),
            now=transaction.now,
        )
    transaction.woken.update(names)
    log.info("hosts_started", deployment_id=deployment.id, hosts=len(names))


def _fail(transaction: Transaction, deployment: DeploymentRow, code: DeploymentErrorCode) -> None:
    hosts = store.fleet(transaction.session, deployment.id)
    deployment.error_code = code
    deployment.error_message = explain_failure(
        code=code,
        hosts=len(hosts),
        required=deployment.required_healthy,
        succeeded=sum(host.status is TargetStatus.SUCCEEDED for host in hosts),
        failed=store.failed_hosts(transaction.session, deployment.id),
    )
    _end(transaction, deployment, DeploymentStatus.FAILED)


def _end(transaction: Transaction, deployment: DeploymentRow, status: DeploymentStatus) -> None:
    store.skip_pending_targets(transaction.session, deployment.id, transaction.now)
    deployment.status = status
    deployment.completed_at = transaction.now
    log.info(
        "deployment_ended",
        deployment_id=deployment.id,
        status=status.value,
        error_code=deployment.error_code.value if deployment.error_code else None,
        error_message=deployment.error_message,
        seconds=round(transaction.now - deployment.created_at, 3),
    )


def _record_health(
    transaction: Transaction, deployment: DeploymentRow, instance_name: str, *, succeeded: bool
) -> None:
    row = transaction.session.get(GroupHostRow, (deployment.group_id, instance_name))
    if row is None:
        row = GroupHostRow(group_id=deployment.group_id, instance_name=instance_name)
        transaction.session.add(row)
    row.is_healthy = succeeded
    if succeeded:
        row.revision = deployment.revision

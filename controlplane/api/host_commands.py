"""The host command protocol: what a host's agent calls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from botocore.model import OperationNotFoundError

from controlplane.api.host_model import HOST_MODEL
from controlplane.api.public.operations import unknown_operation
from controlplane.api.shapes import EncodeTimestamp, InvalidMemberError, decode, encode
from controlplane.dispatch import commands
from controlplane.domain.diagnostics import parse_completion, parse_is_noop
from controlplane.domain.revisions import parse_revision
from controlplane.domain.statuses import CommandStatus
from controlplane.errors import ServiceError
from controlplane.signing.specifications import ENVELOPE_FORMAT, DeploymentSpecification, SpecificationSigner
from controlplane.store import deployments as store
from controlplane.store.database import endpoint_names
from controlplane.store.hosts import find_by_identity
from controlplane.store.schema import DeploymentGroupRow, DeploymentRow, HostCommandRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from controlplane.dispatch.sightings import Sightings
    from controlplane.dispatch.transactions import Transaction, Transactions
    from controlplane.dispatch.wakeups import Wakeups
    from controlplane.store.identities import Identity

log = structlog.get_logger()

DEPLOYMENT_SYSTEM: Final = "CodeDeploy"
_NULL_WHEN_ABSENT: Final = {"PollHostCommand": ("HostCommand",)}
"""Members that agents look for whether there is something or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConnection:
    """Who calls, with which agent, and how to tell that the caller hung up."""

    identity: Identity
    agent_version: str | None
    hung_up: Callable[[], Awaitable[None]]
    """Returns when the connection is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCall:
    """One call of a host, its members checked."""

    members: Mapping[str, Any]
    connection: HostConnection

    @property
    def caller(self) -> Identity:
        """The host that calls."""
        return self.connection.identity


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadyCommand:
    identifier: str
    deployment_execution_id: str
    event: str


class HostCommandService:
    """The operations of the host command protocol. A host can only act as itself."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        wakeups: Wakeups,
        sightings: Sightings,
        signer: SpecificationSigner,
        poll_hold_s: float,
    ) -> None:
        self._transactions = transactions
        self._wakeups = wakeups
        self._sightings = sightings
        self._signer = signer
        self._poll_hold_s = poll_hold_s
        self._operations: dict[str, Callable[[HostCall], Awaitable[dict[str, Any]]]] = {
            "PollHostCommand": self._poll,
            "GetDeploymentSpecification": self._get_specification,
            "PutHostCommandAcknowledgement": self._acknowledge,
            "PutHostCommandComplete": self._complete,
            "PostHostCommandUpdate": self._update,
        }

    async def call(
        self, name: str, document: Any, *, connection: HostConnection, timestamp: EncodeTimestamp
    ) -> Any:
        """The answer of one operation, ready for the wire. Raises ServiceError."""
        try:
            model = HOST_MODEL.operation_model(name)
        except OperationNotFoundError as error:
            raise unknown_operation(name) from error
        try:
            members = decode(model.input_shape, document)
        except InvalidMemberError as error:
            raise ServiceError("ClientException", str(error)) from error
        answer = await self._operations[name](HostCall(members=members, connection=connection))
        return dict.fromkeys(_NULL_WHEN_ABSENT.get(name, ())) | encode(model.output_shape, answer, timestamp)

    async def _poll(self, call: HostCall) -> dict[str, Any]:
        """A command as soon as there is one, none after the hold time."""
        _check_host_identifier(call)
        host = await self._transactions.run(lambda transaction: _registered_name(transaction, call.caller))
        self._sightings.see(host, call.connection.agent_version)
        ready = await self._wait_for_command(host, call)
        self._sightings.see(host, call.connection.agent_version)
        if ready is None:
            log.debug("poll_idle", host=host)
            return {"HostCommand": None}
        return {
            "HostCommand": {
                "HostCommandIdentifier": ready.identifier,
                "HostIdentifier": call.caller.arn,
                "DeploymentExecutionId": ready.deployment_execution_id,
                "CommandName": ready.event,
            }
        }

    async def _wait_for_command(self, host: str, call: HostCall) -> _ReadyCommand | None:
        deadline = asyncio.get_running_loop().time() + self._poll_hold_s
        with self._wakeups.poll(host) as woken:
            hung_up: asyncio.Future[Any] = asyncio.ensure_future(call.connection.hung_up())
            try:
                while not self._wakeups.is_closing:
                    woken.clear()
                    ready = await self._transactions.run(lambda transaction: _deliver(transaction, host))
                    if ready is not None or not await _woken_before(woken, hung_up, deadline):
                        return ready
                return None
            finally:
                hung_up.cancel()

    async def _get_specification(self, call: HostCall) -> dict[str, Any]:
        _check_host_identifier(call)
        specification = await self._transactions.run(lambda transaction: _specification(transaction, call))
        text = await asyncio.to_thread(self._signer.sign, specification.document())
        return {
            "DeploymentSystem": DEPLOYMENT_SYSTEM,
            "DeploymentSpecification": {"GenericEnvelope": {"Format": ENVELOPE_FORMAT, "Payload": text}},
        }

    async def _acknowledge(self, call: HostCall) -> dict[str, Any]:
        is_noop = parse_is_noop(_diagnostics(call))

        def work(transaction: Transaction) -> CommandStatus:
            return commands.acknowledge(transaction, _own_command(transaction, call), is_noop=is_noop)

        return {"CommandStatus": await self._transactions.run(work)}

    async def _complete(self, call: HostCall) -> dict[str, Any]:
        status = CommandStatus(call.members["CommandStatus"])
        if status not in {CommandStatus.SUCCEEDED, CommandStatus.FAILED}:
            raise ServiceError(
                "ClientException", f"A command can't be completed as {status.value}; say Succeeded or Failed."
            )
        succeeded = status is CommandStatus.SUCCEEDED
        diagnostics = parse_completion(_diagnostics(call), succeeded=succeeded)

        def work(transaction: Transaction) -> None:
            command = _own_command(transaction, call)
            commands.complete(transaction, command, succeeded=succeeded, diagnostics=diagnostics)

        await self._transactions.run(work)
        return {}

    async def _update(self, call: HostCall) -> dict[str, Any]:
        def work(transaction: Transaction) -> CommandStatus:
            return commands.record_update(transaction, _own_command(transaction, call))

        return {"CommandStatus": await self._transactions.run(work)}


async def _woken_before(woken: asyncio.Event, hung_up: asyncio.Future[Any], deadline: float) -> bool:
    """True when it is worth looking again; False when the time is up or nobody listens any more."""
    remaining_s = deadline - asyncio.get_running_loop().time()
    waiting: asyncio.Future[Any] = asyncio.ensure_future(woken.wait())
    try:
        done, _ = await asyncio.wait(
            {waiting, hung_up}, timeout=max(0.0, remaining_s), return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        waiting.cancel()
    return waiting in done and hung_up not in done


def _check_host_identifier(call: HostCall) -> None:
    if call.members["HostIdentifier"] != call.caller.arn:
        raise ServiceError(
            "AccessDeniedException",
            f"The access key belongs to {call.caller.arn}, which may not act as {call.members['HostIdentifier']}.",
        )


def _registered_name(transaction: Transaction, caller: Identity) -> str:
    instance = find_by_identity(transaction.session, caller.arn)
    if instance is None:
        raise ServiceError(
            "AccessDeniedException",
            f"{caller.arn} is not registered as an on-premises instance of this endpoint; "
            "register it with: codedeploy-control host register, or RegisterOnPremisesInstance.",
        )
    return instance.name


def _deliver(transaction: Transaction, host: str) -> _ReadyCommand | None:
    command = commands.deliver(transaction, host)
    if command is None:
        return None
    names = endpoint_names(transaction.session)
    execution = f"{names.region}/{names.account}/{command.deployment_id}/{command.position + 1}"
    return _ReadyCommand(
        identifier=command.identifier, deployment_execution_id=execution, event=command.event
    )


def _own_command(transaction: Transaction, call: HostCall) -> HostCommandRow:
    host = _registered_name(transaction, call.caller)
    command = store.find_command(transaction.session, call.members["HostCommandIdentifier"])
    # The same answer for a command of another host: whether it exists is none of the caller's business.
    if command is None or command.instance_name != host:
        raise ServiceError(
            "ClientException", f"{host} has no host command {call.members['HostCommandIdentifier']}."
        )
    return command


def _specification(transaction: Transaction, call: HostCall) -> DeploymentSpecification:
    host = _registered_name(transaction, call.caller)
    execution = call.members["DeploymentExecutionId"]
    parts = execution.split("/")
    session = transaction.session
    deployment_id = parts[-2] if len(parts) >= 4 else ""
    deployment = store.find_deployment(session, deployment_id)
    if deployment is None or store.find_target(session, deployment.id, host) is None:
        raise ServiceError("ClientException", f"{host} has no deployment execution {execution}.")
    return _describe(transaction, deployment)


def _describe(transaction: Transaction, deployment: DeploymentRow) -> DeploymentSpecification:
    names = endpoint_names(transaction.session)
    group = transaction.session.get_one(DeploymentGroupRow, deployment.group_id)
    return DeploymentSpecification(
        deployment_arn=f"arn:aws:codedeploy:{names.region}:{names.account}:deployment/{deployment.id}",
        group_id=group.id,
        group_name=group.name,
        application_name=deployment.application_name,
        revision=parse_revision(deployment.revision),
        file_exists_behavior=deployment.file_exists_behavior,
    )


def _diagnostics(call: HostCall) -> str | None:
    envelope = call.members.get("Diagnostics")
    return None if envelope is None else envelope["Payload"]

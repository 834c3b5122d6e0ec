"""All operations of the public API that this endpoint has, and the service model they follow."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from botocore.loaders import Loader
from botocore.model import OperationNotFoundError, ServiceModel

from controlplane.api.public import (
    applications,
    deployment_configs,
    deployment_groups,
    deployment_targets,
    deployments,
    on_premises_instances,
    revisions,
)
from controlplane.api.public.call import PublicCall, PublicOperation
from controlplane.api.refusals import refusal
from controlplane.api.shapes import EncodeTimestamp, InvalidMemberError, decode, encode
from controlplane.errors import ServiceError

if TYPE_CHECKING:
    from controlplane.dispatch.transactions import Transactions

OPERATIONS: Final[dict[str, PublicOperation]] = {
    **applications.OPERATIONS,
    **deployment_configs.OPERATIONS,
    **deployment_groups.OPERATIONS,
    **deployment_targets.OPERATIONS,
    **deployments.OPERATIONS,
    **on_premises_instances.OPERATIONS,
    **revisions.OPERATIONS,
}


@cache
def service_model() -> ServiceModel:
    """The public model of the service, as the installed botocore has it."""
    return ServiceModel(Loader().load_service_model("codedeploy", "service-2"), "codedeploy")


async def call_operation(
    transactions: Transactions, *, name: str, document: Any, timestamp: EncodeTimestamp
) -> Any:
    """The answer of one operation, ready for the wire; what it changed is on disk. Raises ServiceError."""
    try:
        model = service_model().operation_model(name)
    except OperationNotFoundError as error:
        raise unknown_operation(name) from error
    operation = OPERATIONS.get(name)
    if operation is None:
        raise ServiceError("OperationNotSupportedException", f"{name} is not available at this endpoint yet.")
    try:
        parameters = decode(model.input_shape, document)
    except InvalidMemberError as error:
        raise refusal(model, error) from error
    answer = await transactions.run(
        lambda transaction: operation(
            PublicCall(operation=name, parameters=parameters, transaction=transaction)
        )
    )
    return {} if model.output_shape is None else encode(model.output_shape, answer, timestamp)


def unknown_operation(name: str) -> ServiceError:
    """The refusal of an operation nobody knows, or that came with the wrong target or signing name."""
    return ServiceError(
        "UnknownOperationException",
        f"There is no operation {name} for this target prefix and signing name. Agents: the normal stack and "
        "the secure stack (enable_auth_policy) each need their own pair of both.",
    )

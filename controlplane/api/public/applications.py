"""Applications."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import select

from controlplane.api.public.call import PublicCall, PublicOperation, refuse_unsupported
from controlplane.api.public.paging import page_of_names
from controlplane.errors import ServiceError
from controlplane.store.schema import ApplicationRow

SERVER_PLATFORM = "Server"


def create_application(call: PublicCall) -> dict[str, Any]:
    """The application exists."""
    name = call.parameters["applicationName"]
    refuse_unsupported(call.parameters, {"tags": "InvalidTagsToAddException"})
    platform = call.parameters.get("computePlatform", SERVER_PLATFORM)
    if platform != SERVER_PLATFORM:
        raise ServiceError(
            "InvalidComputePlatformException",
            f"computePlatform {platform} is not available at this endpoint, which deploys to servers only.",
        )
    if call.transaction.session.get(ApplicationRow, name) is not None:
        raise ServiceError("ApplicationAlreadyExistsException", f"There is an application {name} already.")
    row = ApplicationRow(name=name, id=str(uuid.uuid4()), created_at=call.transaction.now)
    call.transaction.session.add(row)
    return {"applicationId": row.id}


def get_application(call: PublicCall) -> dict[str, Any]:
    """One application."""
    return {"application": _description(require_application(call, call.parameters["applicationName"]))}


def batch_get_applications(call: PublicCall) -> dict[str, Any]:
    """Several applications; one that does not exist is an error."""
    rows = [require_application(call, name) for name in call.parameters["applicationNames"]]
    return {"applicationsInfo": [_description(row) for row in rows]}


def list_applications(call: PublicCall) -> dict[str, Any]:
    """Names of all applications, in order."""
    names, token = page_of_names(call, call.transaction.session.scalars(select(ApplicationRow.name)))
    return {"applications": names, "nextToken": token}


def require_application(call: PublicCall, name: str) -> ApplicationRow:
    """The application of this name; raises ApplicationDoesNotExistException."""
    row = call.transaction.session.get(ApplicationRow, name)
    if row is None:
        raise ServiceError("ApplicationDoesNotExistException", f"There is no application {name}.")
    return row


def _description(row: ApplicationRow) -> dict[str, Any]:
    return {
        "applicationId": row.id,
        "applicationName": row.name,
        "createTime": row.created_at,
        "linkedToGitHub": False,
        "computePlatform": SERVER_PLATFORM,
    }


OPERATIONS: dict[str, PublicOperation] = {
    "CreateApplication": create_application,
    "GetApplication": get_application,
    "BatchGetApplications": batch_get_applications,
    "ListApplications": list_applications,
}

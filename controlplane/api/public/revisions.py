"""Revisions that an application knows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from controlplane.api.public.applications import require_application
from controlplane.domain.revisions import InvalidRevisionError, Revision, parse_revision
from controlplane.errors import ServiceError
from controlplane.store.schema import DeploymentRow, RevisionRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.api.public.call import PublicCall, PublicOperation

MAX_DESCRIPTION = 256


def register_revision(call: PublicCall) -> dict[str, Any]:
    """The application knows the revision; registering it again changes its description."""
    application = require_application(call, call.parameters["applicationName"])
    revision = require_revision(call.parameters)
    row = _remember(call, application.name, revision)
    row.description = description_of(call.parameters)
    return {}


def get_revision(call: PublicCall) -> dict[str, Any]:
    """What is known of one revision."""
    application = require_application(call, call.parameters["applicationName"])
    location = require_revision(call.parameters).location()
    row = call.transaction.session.get(RevisionRow, (application.name, _key(location)))
    if row is None:
        raise ServiceError(
            "RevisionDoesNotExistException",
            f"Application {application.name} does not know this revision; register or deploy it first.",
        )
    return {
        "applicationName": application.name,
        "revision": location,
        "revisionInfo": {
            "description": row.description,
            "deploymentGroups": _groups_running(call, application.name, location),
            "firstUsedTime": row.first_used_at,
            "lastUsedTime": row.last_used_at,
            "registerTime": row.registered_at,
        },
    }


def use_revision(call: PublicCall, application_name: str, revision: Revision) -> None:
    """The revision is known to the application, and was used just now."""
    row = _remember(call, application_name, revision)
    row.last_used_at = call.transaction.now
    if row.first_used_at is None:
        row.first_used_at = call.transaction.now


def require_revision(parameters: Mapping[str, Any]) -> Revision:
    """The revision in the parameters; raises RevisionRequiredException or InvalidRevisionException."""
    if not parameters.get("revision"):
        raise ServiceError("RevisionRequiredException", "revision is required.")
    try:
        return parse_revision(parameters["revision"])
    except InvalidRevisionError as error:
        raise ServiceError("InvalidRevisionException", str(error)) from error


def description_of(parameters: Mapping[str, Any]) -> str | None:
    """The description; raises DescriptionTooLongException."""
    description: str | None = parameters.get("description")
    if description is not None and len(description) > MAX_DESCRIPTION:
        raise ServiceError(
            "DescriptionTooLongException",
            f"description has {len(description)} characters, {MAX_DESCRIPTION} are allowed.",
        )
    return description


def _remember(call: PublicCall, application_name: str, revision: Revision) -> RevisionRow:
    location = revision.location()
    row = call.transaction.session.get(RevisionRow, (application_name, _key(location)))
    if row is None:
        row = RevisionRow(
            application_name=application_name,
            location_key=_key(location),
            location=location,
            registered_at=call.transaction.now,
        )
        call.transaction.session.add(row)
    return row


def _groups_running(call: PublicCall, application_name: str, location: Mapping[str, Any]) -> list[str]:
    query = select(DeploymentRow).where(DeploymentRow.application_name == application_name)
    return sorted(
        {row.group_name for row in call.transaction.session.scalars(query) if row.revision == location}
    )


def _key(location: Mapping[str, Any]) -> str:
    return json.dumps(location, sort_keys=True)


OPERATIONS: dict[str, PublicOperation] = {
    "RegisterApplicationRevision": register_revision,
    "GetApplicationRevision": get_revision,
}

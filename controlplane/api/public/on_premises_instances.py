"""On-premises instances: registration and tags."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from controlplane.api.public.paging import page_of_names
from controlplane.api.public.tag_filters import parse_filters
from controlplane.domain.naming import MAX_TAGS, explain_bad_instance_name, explain_bad_tag
from controlplane.errors import ServiceError
from controlplane.store import hosts
from controlplane.store.identities import find_identity
from controlplane.store.kinds import IdentityKind
from controlplane.store.schema import InstanceRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from controlplane.api.public.call import PublicCall, PublicOperation

MAX_NAMES = 100
_USER_ARN = re.compile(r"arn:[a-z-]+:iam::\d{12}:user/[A-Za-z0-9+=,.@_/-]+")


def register_instance(call: PublicCall) -> dict[str, Any]:
    """The instance is registered under the ARN of a host identity of this endpoint."""
    name, arn = call.parameters["instanceName"], _user_arn(call)
    check_instance_name(name)
    session = call.transaction.session
    if hosts.find_registered(session, name) is not None:
        raise ServiceError("InstanceNameAlreadyRegisteredException", f"{name} is registered already.")
    identity = find_identity(session, arn)
    if identity is None or identity.kind is not IdentityKind.HOST:
        raise ServiceError(
            "InvalidIamUserArnException",
            f"{arn} is no host of this endpoint; make its key first with: codedeploy-control host create-key NAME",
        )
    other = hosts.find_by_identity(session, arn)
    if other is not None:
        raise ServiceError(
            "IamUserArnAlreadyRegisteredException", f"{arn} is registered already, for {other.name}."
        )
    hosts.register(session, name=name, iam_user_arn=arn, now=call.transaction.now)
    return {}


def deregister_instance(call: PublicCall) -> dict[str, Any]:
    """The instance is deregistered; one that is unknown or deregistered already is left as it is."""
    check_instance_name(call.parameters["instanceName"])
    row = hosts.find_registered(call.transaction.session, call.parameters["instanceName"])
    if row is not None:
        row.deregistered_at = call.transaction.now
    return {}


def add_tags(call: PublicCall) -> dict[str, Any]:
    """Each of the instances carries these tags; a key it had gets the new value."""
    tags = {tag["Key"]: tag.get("Value", "") for tag in _required_tags(call)}
    for row in _named_instances(call):
        if len({*hosts.tags_of(row), *tags}) > MAX_TAGS:
            raise ServiceError(
                "TagLimitExceededException", f"{row.name} would carry more than {MAX_TAGS} tags."
            )
        hosts.put_tags(row, tags)
    return {}


def remove_tags(call: PublicCall) -> dict[str, Any]:
    """None of the instances carries these tags; a tag with another value stays."""
    unwanted = {(tag["Key"], tag.get("Value")) for tag in _required_tags(call)}
    for row in _named_instances(call):
        row.tags = [
            tag
            for tag in row.tags
            if (tag.key, tag.value) not in unwanted and (tag.key, None) not in unwanted
        ]
    return {}


def get_instance(call: PublicCall) -> dict[str, Any]:
    """One instance; a deregistered one can still be read."""
    return {"instanceInfo": _description(_known_instance(call, call.parameters["instanceName"]))}


def batch_get_instances(call: PublicCall) -> dict[str, Any]:
    """Several instances."""
    rows = [_known_instance(call, name) for name in call.parameters["instanceNames"]]
    return {"instanceInfos": [_description(row) for row in rows]}


def list_instances(call: PublicCall) -> dict[str, Any]:
    """Names of the instances with this registration status that match any of the filters."""
    status = call.parameters.get("registrationStatus")
    filters = parse_filters(call.parameters.get("tagFilters", ()), code="InvalidTagFilterException")
    names = [
        row.name
        for row in hosts.list_instances(call.transaction.session)
        if (status is None or (status == "Registered") == (row.deregistered_at is None))
        and (not filters or any(one.matches(hosts.tags_of(row)) for one in filters))
    ]
    page, token = page_of_names(call, names)
    return {"instanceNames": page, "nextToken": token}


def check_instance_name(name: str) -> None:
    """Raises InvalidInstanceNameException for a name that can't be registered."""
    problem = explain_bad_instance_name(name)
    if problem is not None:
        raise ServiceError("InvalidInstanceNameException", problem)


def _user_arn(call: PublicCall) -> str:
    user, session = call.parameters.get("iamUserArn"), call.parameters.get("iamSessionArn")
    if user and session:
        raise ServiceError("MultipleIamArnsProvidedException", "Give iamUserArn or iamSessionArn, not both.")
    if session:
        raise ServiceError(
            "InvalidIamSessionArnException",
            "iamSessionArn is not available at this endpoint yet; register the host with an iamUserArn.",
        )
    if not user:
        raise ServiceError("IamArnRequiredException", "iamUserArn is required.")
    if _USER_ARN.fullmatch(user) is None:
        raise ServiceError("InvalidIamUserArnException", f"{user!r} is not the ARN of an IAM user.")
    return str(user)


def _required_tags(call: PublicCall) -> list[dict[str, str]]:
    tags: list[dict[str, str]] = call.parameters["tags"]
    if not tags:
        raise ServiceError("TagRequiredException", "tags is empty.")
    for tag in tags:
        problem = explain_bad_tag(tag.get("Key", ""), tag.get("Value", ""))
        if problem is not None:
            raise ServiceError("InvalidTagException", f"{tag} is no tag: {problem}.")
    return tags


def _named_instances(call: PublicCall) -> Iterable[InstanceRow]:
    names = call.parameters["instanceNames"]
    if not names:
        raise ServiceError("InstanceNameRequiredException", "instanceNames is empty.")
    if len(names) > MAX_NAMES:
        raise ServiceError("InstanceLimitExceededException", f"At most {MAX_NAMES} instances at a time.")
    for name in names:
        check_instance_name(name)
        row = hosts.find_registered(call.transaction.session, name)
        if row is None:
            raise _not_registered(name)
        yield row


def _known_instance(call: PublicCall, name: str) -> InstanceRow:
    check_instance_name(name)
    row = call.transaction.session.get(InstanceRow, name)
    if row is None:
        raise _not_registered(name)
    return row


def _not_registered(name: str) -> ServiceError:
    return ServiceError("InstanceNotRegisteredException", f"There is no registered instance {name}.")


def _description(row: InstanceRow) -> dict[str, Any]:
    return {
        "instanceName": row.name,
        "iamUserArn": row.iam_user_arn,
        "instanceArn": row.arn,
        "registerTime": row.registered_at,
        "deregisterTime": row.deregistered_at,
        "tags": [{"Key": key, "Value": value} for key, value in hosts.tags_of(row).items()],
    }


OPERATIONS: dict[str, PublicOperation] = {
    "RegisterOnPremisesInstance": register_instance,
    "DeregisterOnPremisesInstance": deregister_instance,
    "AddTagsToOnPremisesInstances": add_tags,
    "RemoveTagsFromOnPremisesInstances": remove_tags,
    "GetOnPremisesInstance": get_instance,
    "BatchGetOnPremisesInstances": batch_get_instances,
    "ListOnPremisesInstances": list_instances,
}

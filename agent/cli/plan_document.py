"""The answer of `agentctl plan` for scripts: one JSON document, whose shape is in docs/operations.md."""

from __future__ import annotations

import base64
from collections import Counter
from typing import TYPE_CHECKING, Any

from agent.cli.terminal_text import readable
from agent.install import ChangeKind, Preview

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.appspec import Permission
    from agent.errors import CommandFailure, IdentityError
    from agent.install import BlockedInstall, Change, Conflict, FileSystem
    from agent.specification import DeploymentSpecification

_FORMAT = 1


def plan_document(
    answer: Preview | BlockedInstall, notes: Sequence[str], specification: DeploymentSpecification
) -> dict[str, Any]:
    """The answer, whether Install is possible or blocked."""
    document = _empty_document(specification)
    document["notes"] = [readable(note) for note in notes]
    document["rule"] = {
        "file_exists_behavior": answer.rule.behavior.value,
        "set_by": "appspec" if answer.rule.is_of_appspec else "deployment",
    }
    if isinstance(answer, Preview):
        counts = Counter(change.kind for change in answer.changes)
        document["possible"] = True
        document["summary"] = {
            **{kind.value: counts[kind] for kind in ChangeKind},
            "bytes_to_write": sum(system.needed_bytes for system in answer.file_systems),
        }
        document["changes"] = [_change_as_json(change) for change in answer.changes]
        document["file_systems"] = [_file_system_as_json(system) for system in answer.file_systems]
    else:
        document["error"] = {"id": "install-conflicts", "message": readable(answer.message)}
        document["conflicts"] = [_conflict_as_json(conflict) for conflict in answer.conflicts]
    return document


def failure_document(
    failure: CommandFailure | IdentityError, specification: DeploymentSpecification
) -> dict[str, Any]:
    """Why there is no answer."""
    error = {"id": failure.error_id, "message": readable(failure.message)}
    return {**_empty_document(specification), "error": error}


def _empty_document(specification: DeploymentSpecification) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "possible": False,
        "bundle": readable(specification.application_name),
        "deployment_group_id": specification.deployment_group_id,
        "error": None,
        "rule": None,
        "summary": None,
        "changes": [],
        "conflicts": [],
        "file_systems": [],
        "notes": [],
    }


def _name_as_json(member: str, name: bytes) -> dict[str, str]:
    """JSON has no bytes: names that are no UTF-8 are readable in one member, and exact in another."""
    try:
        return {member: name.decode()}
    except UnicodeDecodeError:
        return {
            member: name.decode(errors="replace"),
            f"{member}_base64": base64.b64encode(name).decode(),
        }


def _change_as_json(change: Change) -> dict[str, Any]:
    source = {"source": None} if change.source is None else _name_as_json("source", change.source)
    return {
        "action": change.kind.value,
        "type": change.object.value,
        **_name_as_json("path", change.path),
        **source,
        "bytes_to_write": change.size_bytes,
        "permissions": None if change.permission is None else _permission_as_json(change.permission),
        "note": change.note or None,
    }


def _permission_as_json(permission: Permission) -> dict[str, Any]:
    context = permission.context
    return {
        "mode": permission.mode,
        "owner": permission.owner,
        "group": permission.group,
        "acls": [str(entry) for entry in permission.acls],
        "context": None
        if context is None
        else {"user": context.user, "type": context.type, "range": context.range},
        "appspec_line": permission.line,
    }


def _conflict_as_json(conflict: Conflict) -> dict[str, Any]:
    modified_at, group = conflict.modified_at, conflict.installed_by
    return {
        **_name_as_json("path", conflict.path),
        "reason": readable(conflict.reason),
        "owner": None if conflict.owner is None else readable(conflict.owner),
        "modified_at": None if modified_at is None else round(modified_at, 3),
        "installed_by_group": None if group is None else readable(group),
        "is_by_rule": conflict.is_by_rule,
    }


def _file_system_as_json(system: FileSystem) -> dict[str, Any]:
    return {
        **_name_as_json("path", system.path),
        "needed_bytes": system.needed_bytes,
        "needed_inodes": system.needed_inodes,
        "free_bytes": system.free_bytes,
        "free_inodes": system.free_inodes,
    }

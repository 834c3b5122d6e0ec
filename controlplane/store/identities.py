"""Identities and their access keys."""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from controlplane.errors import OperatorError
from controlplane.secret import Secret
from controlplane.store.database import endpoint_names
from controlplane.store.kinds import IdentityKind
from controlplane.store.schema import AccessKeyRow, IdentityRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_ID_ALPHABET = string.ascii_uppercase + "234567"
_SECRET_ALPHABET = string.ascii_letters + string.digits
_NAME = re.compile(r"[A-Za-z0-9+=,.@_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a request comes from."""

    arn: str
    name: str
    kind: IdentityKind


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """A key pair and whose it is."""

    access_key_id: str
    secret_access_key: Secret
    identity: Identity


def identity_arn(session: Session, name: str, kind: IdentityKind) -> str:
    """The ARN of an identity of this name. Hosts and people have separate paths, so names can't collide."""
    path = "host/" if kind is IdentityKind.HOST else ""
    return f"arn:aws:iam::{endpoint_names(session).account}:user/{path}{name}"


def create_access_key(session: Session, *, name: str, kind: IdentityKind, now: float) -> AccessKey:
    """A new key pair for this identity, which is made when there is none yet; earlier keys stay valid.

    Raises OperatorError when the name can't be part of an ARN.
    """
    if _NAME.fullmatch(name) is None:
        raise OperatorError(
            f"{name!r} can't be part of an ARN: use 1 to 64 of the characters A-Z a-z 0-9 + = , . @ _ -."
        )
    arn = identity_arn(session, name, kind)
    if session.get(IdentityRow, arn) is None:
        session.add(IdentityRow(arn=arn, name=name, kind=kind, created_at=now))
        session.flush()
    key = AccessKey(
        access_key_id="AKIA" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(16)),
        secret_access_key=Secret("".join(secrets.choice(_SECRET_ALPHABET) for _ in range(40))),
        identity=Identity(arn=arn, name=name, kind=kind),
    )
    session.add(
        AccessKeyRow(
            access_key_id=key.access_key_id,
            secret_access_key=key.secret_access_key.reveal(),
            identity_arn=arn,
            created_at=now,
        )
    )
    return key


def revoke_access_key(session: Session, access_key_id: str) -> bool:
    """Requests signed with this key are refused from now on; False when there is no such key."""
    row = session.get(AccessKeyRow, access_key_id)
    if row is None:
        return False
    session.delete(row)
    return True


def find_access_key(session: Session, access_key_id: str) -> AccessKey | None:
    """The key pair of this id, or None."""
    query = (
        select(AccessKeyRow.secret_access_key, IdentityRow.arn, IdentityRow.name, IdentityRow.kind)
        .join(IdentityRow, IdentityRow.arn == AccessKeyRow.identity_arn)
        .where(AccessKeyRow.access_key_id == access_key_id)
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    secret, arn, name, kind = row
    identity = Identity(arn=arn, name=name, kind=kind)
    return AccessKey(access_key_id=access_key_id, secret_access_key=Secret(secret), identity=identity)


def find_identity(session: Session, arn: str) -> Identity | None:
    """The identity of this ARN, or None."""
    row = session.get(IdentityRow, arn)
    return None if row is None else Identity(arn=row.arn, name=row.name, kind=row.kind)


def list_access_keys(session: Session, kind: IdentityKind) -> list[tuple[Identity, str, float]]:
    """All keys of this kind of identity, by name: the identity, the access key id, when it was made."""
    query = (
        select(IdentityRow.arn, IdentityRow.name, AccessKeyRow.access_key_id, AccessKeyRow.created_at)
        .join(AccessKeyRow, IdentityRow.arn == AccessKeyRow.identity_arn)
        .where(IdentityRow.kind == kind)
        .order_by(IdentityRow.name, AccessKeyRow.created_at)
    )
    return [
        (Identity(arn=arn, name=name, kind=kind), key_id, created_at)
        for arn, name, key_id, created_at in session.execute(query)
    ]

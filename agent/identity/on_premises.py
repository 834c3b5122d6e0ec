"""Who a host outside of EC2 is, as its on-premises file says. Reading the file is `on_premises_file`'s task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.protocol import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class IamUser:
    """The host is an IAM user, with keys that stay."""

    region: str
    iam_user_arn: str
    aws_access_key_id: str
    aws_secret_access_key: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class IamSession:
    """The host is a session of an IAM role; another process puts its keys into a file, again and again."""

    region: str
    iam_session_arn: str
    aws_credentials_file: Path


OnPremisesIdentity = IamUser | IamSession


def to_json(identity: OnPremisesIdentity) -> dict[str, str]:
    """The members as JSON can carry them from one process to another, secrets included."""
    if isinstance(identity, IamUser):
        return {
            "region": identity.region,
            "iam_user_arn": identity.iam_user_arn,
            "aws_access_key_id": identity.aws_access_key_id,
            "aws_secret_access_key": identity.aws_secret_access_key.reveal(),
        }
    return {
        "region": identity.region,
        "iam_session_arn": identity.iam_session_arn,
        "aws_credentials_file": str(identity.aws_credentials_file),
    }


def from_json(members: Mapping[str, str]) -> OnPremisesIdentity:
    """The identity that `to_json` wrote."""
    if "iam_user_arn" in members:
        return IamUser(
            region=members["region"],
            iam_user_arn=members["iam_user_arn"],
            aws_access_key_id=members["aws_access_key_id"],
            aws_secret_access_key=Secret(members["aws_secret_access_key"]),
        )
    return IamSession(
        region=members["region"],
        iam_session_arn=members["iam_session_arn"],
        aws_credentials_file=Path(members["aws_credentials_file"]),
    )

"""What a final refusal of S3 is reported as, and what to do about it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import CommandFailure

if TYPE_CHECKING:
    from agent.bundle.s3_refusals import Refusal
    from agent.specification import S3Revision

EXPIRED_CODES = frozenset(["ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"])
"""Words of S3 for credentials that were good once."""
REGION_CODES = frozenset(
    [
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "TemporaryRedirect",
    ]
)
"""Words of S3 for a bucket that lives elsewhere."""
_ARCHIVED_CODES = frozenset(["InvalidObjectState"])
_MISSING_CODES = frozenset(["NoSuchBucket", "NoSuchKey", "NoSuchVersion"])
_ADVICE = {
    "InvalidAccessKeyId": "This key is not known there: it was deleted, or belongs to another partition.",
    "SignatureDoesNotMatch": "The secret of this key is wrong, or a proxy changes requests on their way.",
    "RequestTimeTooSkewed": "The clock of this host is wrong by more than 15 minutes: set it.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What S3 was asked, for messages.

    Attributes:
        name: of the bundle.
        server: who answers, with the proxy in between.
        region: that the request was signed for.
        access_key_id: that it was signed with.
        credentials_source: where that is from.
    """

    name: str
    revision: S3Revision
    server: str
    region: str
    access_key_id: str
    credentials_source: str


def final_failure(refusal: Refusal, asked: Asked) -> CommandFailure:
    """What a refusal means that stays one however often it is asked for."""
    if refusal.code in EXPIRED_CODES:
        return _credentials_expired(refusal, asked)
    if refusal.code in _ARCHIVED_CODES:
        return _archived(refusal, asked)
    if refusal.code in REGION_CODES:
        return CommandFailure(
            "bundle-wrong-region",
            f"The bundle {asked.name} could not be downloaded: {asked.server} answers {refusal}."
            f" The bucket is in {refusal.region or 'another region'}, and requests are signed for {asked.region}."
            " Check s3_endpoint_override, or copy the bundle to a bucket of this region.",
        )
    if refusal.status == 404 or refusal.code in _MISSING_CODES:
        return CommandFailure(
            "bundle-not-found",
            f"There is no bundle {asked.name}: {asked.server} answers {refusal}. {_what_is_missing(refusal)}",
        )
    if refusal.status in {401, 403}:
        return _access_denied(refusal, asked)
    return CommandFailure(
        "bundle-s3-refused",
        f"The bundle {asked.name} could not be downloaded: {asked.server} answers {refusal}."
        " Compare bucket, key and version of the revision with what it says, and check s3_endpoint_override if it is set.",
    )


def _access_denied(refusal: Refusal, asked: Asked) -> CommandFailure:
    permission = "s3:GetObject" if asked.revision.version is None else "s3:GetObjectVersion"
    arn = f"arn:{_partition(asked.region)}:s3:::{asked.revision.bucket}/{asked.revision.key}"
    advice = _ADVICE.get(
        refusal.code,
        f"It needs {permission} on {arn}, and kms:Decrypt if the object is encrypted with a KMS key."
        " Without s3:ListBucket, a missing object looks like this, too.",
    )
    if not refusal.is_of_s3:
        advice = f"It does not answer as S3 does: a proxy or firewall on the way may have refused it. If not: {advice[0].lower()}{advice[1:]}"
    return CommandFailure(
        "bundle-access-denied",
        f"The bundle {asked.name} could not be downloaded: {asked.server} answers {refusal}"
        f" to the access key {asked.access_key_id}, which is from {asked.credentials_source}. {advice}",
    )


def _credentials_expired(refusal: Refusal, asked: Asked) -> CommandFailure:
    return CommandFailure(
        "bundle-credentials-expired",
        f"The bundle {asked.name} could not be downloaded: {asked.server} answers {refusal} to the access key {asked.access_key_id}, which"
        f" is from {asked.credentials_source}. The credentials were asked for anew once, and what came was"
        " refused as well. Whatever renews them does not do so any more: for a credentials file, that is the"
        " process which writes it; for a role, the metadata service. Check it, and the clock (`date -u`), renew"
        " the credentials, and deploy again.",
    )


def _archived(refusal: Refusal, asked: Asked) -> CommandFailure:
    bucket, key = shlex.quote(asked.revision.bucket), shlex.quote(asked.revision.key)
    where = f" (storage class {refusal.storage_class})" if refusal.storage_class else ""
    version = f" --version-id {shlex.quote(asked.revision.version)}" if asked.revision.version else ""
    return CommandFailure(
        "bundle-archived",
        f"The bundle {asked.name} is archived{where} and can't be read as it is: {asked.server} answers {refusal}."
        f" Restore it first (`aws s3api restore-object --bucket {bucket} --key {key}{version} --restore-request"
        " Days=1`), wait until it can be read, and deploy again.",
    )


def _what_is_missing(refusal: Refusal) -> str:
    if refusal.code == "NoSuchBucket":
        return "Check the bucket of the revision, and s3_endpoint_override if it is set."
    if refusal.code == "NoSuchVersion":
        return "Check the version of the revision, and whether somebody, or a lifecycle rule, has removed it."
    return "Check bucket, key and version of the revision, and whether a lifecycle rule removed it."


def _partition(region: str) -> str:
    prefixes = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "eusc-": "aws-eusc"}
    return next((name for prefix, name in prefixes.items() if region.startswith(prefix)), "aws")

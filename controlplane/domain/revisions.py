"""A revision: where its bundle lies, as the API and the deployment specification name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Revision:
    """A bundle in a bucket."""

    bucket: str
    key: str
    bundle_type: str
    version: str | None
    etag: str | None

    def location(self) -> dict[str, Any]:
        """The RevisionLocation of the public API."""
        optional = {"version": self.version, "eTag": self.etag}
        s3 = {"bucket": self.bucket, "key": self.key, "bundleType": self.bundle_type}
        return {"revisionType": "S3", "s3Location": s3 | _given(optional)}

    def specification(self) -> dict[str, Any]:
        """The Revision of a deployment specification."""
        optional = {"Version": self.version, "ETag": self.etag}
        s3 = {"Bucket": self.bucket, "Key": self.key, "BundleType": self.bundle_type}
        return {"RevisionType": "S3", "S3Revision": s3 | _given(optional)}


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHubRevision:
    """One commit of a GitHub repository."""

    account: str
    repository: str
    commit_id: str

    def location(self) -> dict[str, Any]:
        """The RevisionLocation of the public API."""
        place = {"repository": f"{self.account}/{self.repository}", "commitId": self.commit_id}
        return {"revisionType": "GitHub", "gitHubLocation": place}

    def specification(self) -> dict[str, Any]:
        """The Revision of a deployment specification."""
        place = {"Account": self.account, "Repository": self.repository, "CommitId": self.commit_id}
        return {"RevisionType": "GitHub", "GitHubRevision": place}


Revision: TypeAlias = S3Revision | GitHubRevision


class InvalidRevisionError(ValueError):
    """A revision location that names no bundle; the message says which member is wrong."""


def parse_revision(location: Mapping[str, Any]) -> Revision:
    """The revision a RevisionLocation names; raises InvalidRevisionError."""
    revision_type = location.get("revisionType")
    if revision_type == "S3":
        return _parse_s3(location.get("s3Location") or {})
    if revision_type == "GitHub":
        return _parse_github(location.get("gitHubLocation") or {})
    raise InvalidRevisionError(
        f"revisionType is {revision_type!r}: hosts can be given S3 and GitHub revisions only."
    )


def _parse_s3(place: Mapping[str, Any]) -> S3Revision:
    for member in ("bucket", "key", "bundleType"):
        if not place.get(member):
            raise InvalidRevisionError(f"s3Location lacks {member}.")
    if place["bundleType"] not in {"tar", "tgz", "zip"}:
        raise InvalidRevisionError(f"bundleType is {place['bundleType']!r}: hosts unpack tar, tgz and zip.")
    return S3Revision(
        bucket=place["bucket"],
        key=place["key"],
        bundle_type=place["bundleType"],
        version=place.get("version") or None,
        etag=place.get("eTag") or None,
    )


def _parse_github(place: Mapping[str, Any]) -> GitHubRevision:
    account, separator, repository = str(place.get("repository") or "").partition("/")
    if not (account and separator and repository) or "/" in repository:
        raise InvalidRevisionError("gitHubLocation.repository must be written ACCOUNT/REPOSITORY.")
    if not place.get("commitId"):
        raise InvalidRevisionError("gitHubLocation lacks commitId.")
    return GitHubRevision(account=account, repository=repository, commit_id=place["commitId"])


def _given(members: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in members.items() if value is not None}

"""JSON of a deployment specification → DeploymentSpecification; pure."""

from __future__ import annotations

import json
import posixpath
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from agent.errors import CommandFailure
from agent.protocol import BundleType, FileExistsBehavior, Secret
from agent.specification.revision import GitHubRevision, S3Revision
from agent.specification.specification import DeploymentSpecification, UnknownFileExistsBehavior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.specification.revision import Revision

# Ids become names of files and directories, some with endings of ours; 128 leaves room for those.
_PATH_COMPONENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_NO_PATH_COMPONENT = "but may have letters, digits and the characters . _ - only, not start with a dot, and not be longer than 128"
_DEPLOYMENT_ARN = re.compile(r"arn:[^/]*:deployment/(.*)", re.DOTALL)
_GITHUB_NAME = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]+")
_TOKEN = re.compile(r"[!-~]+")
_REUSABLE_ID = re.compile(r"d-[A-Z0-9]{1,62}")

_S3_BUNDLE_TYPES = (BundleType.TAR, BundleType.TGZ, BundleType.ZIP)
_GITHUB_BUNDLE_TYPES = (BundleType.TAR, BundleType.ZIP)


def parse_specification(content: bytes) -> DeploymentSpecification:
    """What the signed content says. Members that nobody knows are ignored, and null is as absent.

    Raises:
        CommandFailure: `specification-invalid` with everything that is wrong, or
            `specification-local-revision`.
    """
    problems: list[str] = []
    members = _Members("DeploymentSpecification", _json_object(content), problems)
    members.require("DeploymentId", "DeploymentGroupId", "DeploymentGroupName", "ApplicationName", "Revision")
    deployment_id = _deployment_id(members.text("DeploymentId"), problems)
    revision = _revision(members.members("Revision"), problems)
    with_revision = partial(
        DeploymentSpecification,
        deployment_id=deployment_id,
        deployment_group_id=_group_id(members.text("DeploymentGroupId"), problems),
        deployment_group_name=members.text("DeploymentGroupName"),
        application_name=members.text("ApplicationName"),
        creator=members.text("DeploymentCreator") or "user",
        deployment_type=members.text("DeploymentType") or "IN_PLACE",
        appspec_filename=_appspec_filename(members, problems),
        file_exists_behavior=_file_exists_behavior(members),
        possible_events=members.texts("AllPossibleLifecycleEvents"),
        github_token=_github_token(members, problems),
        reuse_archive_from=_reuse_archive_from(members, deployment_id),
    )
    if problems or revision is None:
        raise _invalid(problems)
    return with_revision(revision=revision)


class _Members:
    """The members of one JSON object; what is wrong with them goes to the list of problems."""

    def __init__(self, name: str, members: dict[str, Any], problems: list[str]) -> None:
        self.name = name
        self._members = members
        self._problems = problems

    def require(self, *names: str) -> None:
        """Names everything that is missing at once."""
        missing = [name for name in names if self._members.get(name) in (None, "")]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            self._problems.append(
                f"{self.name} must have {_listed(names)}, but {_listed(missing)} {verb} missing"
            )

    def text(self, name: str) -> str:
        """Empty when it is absent, or is no text that can become an argument or a path."""
        value = self._members.get(name)
        if value is None:
            return ""
        if isinstance(value, str) and _is_clean(value):
            return value
        self._problems.append(f"{name} in {self.name} must be a text without null bytes")
        return ""

    def texts(self, name: str) -> frozenset[str] | None:
        """None when it is absent."""
        value = self._members.get(name)
        if value is None:
            return None
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return frozenset(value)
        self._problems.append(f"{name} in {self.name} must be a list of texts")
        return None

    def members(self, name: str) -> _Members:
        """Without members when it is absent."""
        value = self._members.get(name)
        if value is not None and not isinstance(value, dict):
            self._problems.append(f"{name} in {self.name} must be an object")
        return _Members(name, value if isinstance(value, dict) else {}, self._problems)


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _invalid([f"its content is not JSON ({error})"]) from error
    if not isinstance(value, dict):
        raise _invalid(["its content is JSON, but not an object"])
    return value


def _invalid(problems: Sequence[str]) -> CommandFailure:
    return CommandFailure(
        "specification-invalid",
        f"The deployment specification can't be used: {'; '.join(problems)}. "
        "Create the deployment again with a revision that is complete, or correct the control endpoint.",
    )


def _short_id(text: str) -> str:
    arn = _DEPLOYMENT_ARN.fullmatch(text)
    return arn.group(1) if arn else text


def _deployment_id(text: str, problems: list[str]) -> str:
    if text and not _PATH_COMPONENT.fullmatch(_short_id(text)):
        problems.append(f"DeploymentId is {json.dumps(text[:200])}, {_NO_PATH_COMPONENT}")
    return _short_id(text)


def _group_id(text: str, problems: list[str]) -> str:
    if text and not _PATH_COMPONENT.fullmatch(text):
        problems.append(f"DeploymentGroupId is {json.dumps(text[:200])}, {_NO_PATH_COMPONENT}")
    return text


def _revision(members: _Members, problems: list[str]) -> Revision | None:
    """None when there is a problem."""
    known = len(problems)
    kind = members.text("RevisionType")
    revision: Revision | None = None
    if kind == "S3":
        revision = _s3_revision(members.members("S3Revision"), problems)
    elif kind == "GitHub":
        revision = _github_revision(members.members("GitHubRevision"), problems)
    elif kind in {"Local File", "Local Directory"}:
        raise CommandFailure(
            "specification-local-revision",
            f'The control endpoint asks to deploy a "{kind}" of this host, which would let it install any file '
            "that this host holds. Put the revision into S3 or GitHub, or run agentctl deploy here.",
        )
    elif kind:
        problems.append(
            f"its revision is of the unknown type {json.dumps(kind[:64])}: known are S3Revision, GitHubRevision and, "
            "with agentctl deploy only, LocalRevision"
        )
    elif known == len(problems):
        members.require("RevisionType")
    return revision if known == len(problems) else None


def _s3_revision(members: _Members, problems: list[str]) -> S3Revision:
    members.require("Bucket", "Key", "BundleType")
    return S3Revision(
        bucket=members.text("Bucket"),
        key=members.text("Key"),
        bundle_type=_bundle_type(members, _S3_BUNDLE_TYPES, problems) or BundleType.TAR,
        version=members.text("Version") or None,
        etag=members.text("ETag") or None,
    )


def _github_revision(members: _Members, problems: list[str]) -> GitHubRevision:
    members.require("Account", "Repository", "CommitId")
    for name in ("Account", "Repository"):
        text = members.text(name)
        if text and not _GITHUB_NAME.fullmatch(text):
            problems.append(
                f"{name} in {members.name} is {json.dumps(text[:200])}, which GitHub does not allow"
            )
    return GitHubRevision(
        account=members.text("Account"),
        repository=members.text("Repository"),
        commit_id=members.text("CommitId"),
        bundle_type=_bundle_type(members, _GITHUB_BUNDLE_TYPES, problems),
    )


def _bundle_type(members: _Members, known: Sequence[BundleType], problems: list[str]) -> BundleType | None:
    text = members.text("BundleType")
    for bundle_type in known:
        if text.lower() == bundle_type.value:
            return bundle_type
    if text:
        names = _listed([bundle_type.value for bundle_type in known], "or")
        problems.append(f"BundleType in {members.name} is {json.dumps(text[:64])}, but must be {names}")
    return None


def _appspec_filename(members: _Members, problems: list[str]) -> str | None:
    text = members.text("AppSpecFilename")
    if text and (text.startswith("/") or posixpath.normpath(text).split("/")[0] == ".."):
        problems.append(f"AppSpecFilename is {json.dumps(text[:200])}, which is outside of the bundle")
    return text or None


def _file_exists_behavior(members: _Members) -> FileExistsBehavior | UnknownFileExistsBehavior:
    text = members.members("AgentActionOverrides").members("AgentOverrides").text("FileExistsBehavior")
    if not text:
        return FileExistsBehavior.DISALLOW
    try:
        return FileExistsBehavior(text.upper())
    except ValueError:
        return UnknownFileExistsBehavior(text=text)


def _github_token(members: _Members, problems: list[str]) -> Secret | None:
    """It goes into a header; the message doesn't show it."""
    text = members.text("GitHubAccessToken")
    if text and not _TOKEN.fullmatch(text):
        problems.append(f"GitHubAccessToken in {members.name} has characters that no token has")
    return Secret(text) if text else None


def _reuse_archive_from(members: _Members, deployment_id: str) -> str | None:
    """What can't be such an archive is as absent: the bundle is downloaded then, as after any other failure."""
    text = _short_id(members.text("ReuseArchiveFromDeploymentId"))
    return text if _REUSABLE_ID.fullmatch(text) and text != deployment_id else None


def _is_clean(text: str) -> bool:
    """JSON can write texts that no path and no environment can hold."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _listed(names: Sequence[str], conjunction: str = "and") -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} {conjunction} {names[-1]}"

"""JSON of a deployment specification → DeploymentSpecification; pure."""

from __future__ import annotations

import json
import posixpath
import re
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

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

# What to do about what is wrong, by who can do it.
_ASK_ENDPOINT = "Create the deployment again; if that fails in the same way, the control endpoint has a defect: tell whoever runs it."
_NEW_IDS = "Ids are made by the control endpoint, and become names of directories here: tell whoever runs it."
_NEW_REVISION = "Create the deployment again with a revision that has all of this."
_KNOWN_REVISION = "Create the deployment again with a revision in S3 or GitHub, or update the agent if it is older than the endpoint."
_NEW_BUNDLE_TYPE = "Pack the bundle as one of these, and create the deployment again."
_NEW_APPSPEC_NAME = "Create the deployment again with the path of the AppSpec file inside the revision, such as deploy/appspec.yml."
_NEW_GITHUB_NAME = "Create the deployment again with the names as GitHub shows them."
_RECONNECT = "Connect the application to GitHub again."

_S3_BUNDLE_TYPES = (BundleType.TAR, BundleType.TGZ, BundleType.ZIP)
_GITHUB_BUNDLE_TYPES = (BundleType.TAR, BundleType.ZIP)


def parse_specification(content: bytes) -> DeploymentSpecification:
    """What the signed content says. Members that nobody knows are ignored, and null is as absent.

    Raises:
        CommandFailure: `specification-invalid` with everything that is wrong, or
            `specification-local-revision`.
    """
    problems: list[_Problem] = []
    members = _Members("DeploymentSpecification", _json_object(content), problems)
    members.require("DeploymentId", "DeploymentGroupId", "DeploymentGroupName", "ApplicationName", "Revision")
    deployment_id = _deployment_id(members.text("DeploymentId"), problems)
    revision = _revision(members, problems)
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


class _Problem(NamedTuple):
    """What is wrong, and the sentence that says what to do about it."""

    text: str
    advice: str


class _Members:
    """The members of one JSON object; what is wrong with them goes to the list of problems."""

    def __init__(self, name: str, members: dict[str, Any], problems: list[_Problem]) -> None:
        self.name = name
        self._members = members
        self._problems = problems

    def has(self, name: str) -> bool:
        """Whether there is anything."""
        return self._members.get(name) not in (None, "")

    def require(self, *names: str, advice: str = _ASK_ENDPOINT) -> None:
        """Names everything that is missing at once, and nothing else."""
        missing = [name for name in names if not self.has(name)]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            self._problems.append(_Problem(f"{_listed(missing)} {verb} missing in {self.name}", advice))

    def text(self, name: str) -> str:
        """Empty when it is absent, or is no text that can become an argument or a path."""
        value = self._members.get(name)
        if value is None:
            return ""
        if isinstance(value, str) and _is_clean(value):
            return value
        self._problem(f"{name} in {self.name} must be a text without null bytes")
        return ""

    def texts(self, name: str) -> frozenset[str] | None:
        """None when it is absent."""
        value = self._members.get(name)
        if value is None:
            return None
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return frozenset(value)
        self._problem(f"{name} in {self.name} must be a list of texts")
        return None

    def members(self, name: str) -> _Members:
        """Without members when it is absent."""
        value = self._members.get(name)
        if value is not None and not isinstance(value, dict):
            self._problem(f"{name} in {self.name} must be an object")
        return _Members(name, value if isinstance(value, dict) else {}, self._problems)

    def _problem(self, text: str) -> None:
        self._problems.append(_Problem(text, _ASK_ENDPOINT))


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _invalid(
            [_Problem(f"its content is not JSON ({_why_no_json(error)})", _ASK_ENDPOINT)]
        ) from error
    if not isinstance(value, dict):
        raise _invalid([_Problem("its content is JSON, but not an object", _ASK_ENDPOINT)])
    return value


def _why_no_json(error: ValueError | RecursionError) -> str:
    """Where it ends to be JSON. What is there is not quoted, as it may be a token."""
    match error:
        case json.JSONDecodeError():
            return f"from line {error.lineno}, column {error.colno} on"
        case UnicodeDecodeError():
            return f"not even text in UTF-8, at byte {error.start}"
        case RecursionError():
            return "nested too deeply"
        case _:
            return "a value in it is too large"


def _invalid(problems: Sequence[_Problem]) -> CommandFailure:
    texts = "; ".join(problem.text for problem in problems)
    advice = " ".join(dict.fromkeys(problem.advice for problem in problems))
    message = f"The deployment specification can't be used: {texts}. {advice}"
    return CommandFailure("specification-invalid", message)


def _short_id(text: str) -> str:
    arn = _DEPLOYMENT_ARN.fullmatch(text)
    return arn.group(1) if arn else text


def _deployment_id(text: str, problems: list[_Problem]) -> str:
    if text and not _PATH_COMPONENT.fullmatch(_short_id(text)):
        problems.append(_Problem(f"DeploymentId is {json.dumps(text[:200])}, {_NO_PATH_COMPONENT}", _NEW_IDS))
    return _short_id(text)


def _group_id(text: str, problems: list[_Problem]) -> str:
    if text and not _PATH_COMPONENT.fullmatch(text):
        problem = f"DeploymentGroupId is {json.dumps(text[:200])}, {_NO_PATH_COMPONENT}"
        problems.append(_Problem(problem, _NEW_IDS))
    return text


def _revision(specification: _Members, problems: list[_Problem]) -> Revision | None:
    """None when there is a problem."""
    known = len(problems)
    members = specification.members("Revision")
    kind = members.text("RevisionType")
    revision: Revision | None = None
    if kind == "S3":
        revision = _s3_revision(members, problems)
    elif kind == "GitHub":
        revision = _github_revision(members, problems)
    elif kind in {"Local File", "Local Directory"}:
        raise CommandFailure(
            "specification-local-revision",
            f'The control endpoint asks to deploy a "{kind}" of this host, which would let it install any file '
            "that this host holds. Put the revision into S3 or GitHub, or run agentctl deploy here.",
        )
    elif kind:
        problem = f"RevisionType is {json.dumps(kind[:64])}, but known are S3 and GitHub (and with agentctl deploy, what lies on this host)"
        problems.append(_Problem(problem, _KNOWN_REVISION))
    elif known == len(problems) and specification.has("Revision"):
        members.require("RevisionType")
    return revision if known == len(problems) else None


def _s3_revision(revision: _Members, problems: list[_Problem]) -> S3Revision | None:
    members = _required_object(revision, "S3Revision", problems)
    if members is None:
        return None
    members.require("Bucket", "Key", "BundleType", advice=_NEW_REVISION)
    return S3Revision(
        bucket=members.text("Bucket"),
        key=members.text("Key"),
        bundle_type=_bundle_type(members, _S3_BUNDLE_TYPES, problems) or BundleType.TAR,
        version=members.text("Version") or None,
        etag=members.text("ETag") or None,
    )


def _github_revision(revision: _Members, problems: list[_Problem]) -> GitHubRevision | None:
    members = _required_object(revision, "GitHubRevision", problems)
    if members is None:
        return None
    members.require("Account", "Repository", "CommitId", advice=_NEW_REVISION)
    for name in ("Account", "Repository"):
        text = members.text(name)
        if text and not _GITHUB_NAME.fullmatch(text):
            problem = f"{name} in {members.name} is {json.dumps(text[:200])}, which GitHub does not allow"
            problems.append(_Problem(problem, _NEW_GITHUB_NAME))
    return GitHubRevision(
        account=members.text("Account"),
        repository=members.text("Repository"),
        commit_id=members.text("CommitId"),
        bundle_type=_bundle_type(members, _GITHUB_BUNDLE_TYPES, problems),
    )


def _required_object(parent: _Members, name: str, problems: list[_Problem]) -> _Members | None:
    """The members of an object that has to be there; None when it is not, which is a problem then, and the only one."""
    known = len(problems)
    parent.require(name)
    members = parent.members(name)
    return members if known == len(problems) else None


def _bundle_type(
    members: _Members, known: Sequence[BundleType], problems: list[_Problem]
) -> BundleType | None:
    text = members.text("BundleType")
    for bundle_type in known:
        if text.lower() == bundle_type.value:
            return bundle_type
    if text:
        names = _listed([bundle_type.value for bundle_type in known], "or")
        problem = f"BundleType in {members.name} is {json.dumps(text[:64])}, but must be {names}"
        problems.append(_Problem(problem, _NEW_BUNDLE_TYPE))
    return None


def _appspec_filename(members: _Members, problems: list[_Problem]) -> str | None:
    """As it is written; a leading slash is the revision's root, as for other paths in it."""
    text = members.text("AppSpecFilename")
    inside = posixpath.normpath(text.lstrip("/") or ".")
    if text and inside.split("/")[0] in {".", ".."}:
        where = "outside of the bundle" if inside != "." else "no file"
        problem = f"AppSpecFilename is {json.dumps(text[:200])}, which is {where}"
        problems.append(_Problem(problem, _NEW_APPSPEC_NAME))
    return text or None


def _file_exists_behavior(members: _Members) -> FileExistsBehavior | UnknownFileExistsBehavior:
    text = members.members("AgentActionOverrides").members("AgentOverrides").text("FileExistsBehavior")
    if not text:
        return FileExistsBehavior.DISALLOW
    try:
        return FileExistsBehavior(text.upper())
    except ValueError:
        return UnknownFileExistsBehavior(text=text)


def _github_token(members: _Members, problems: list[_Problem]) -> Secret | None:
    """It goes into a header; the message doesn't show it."""
    text = members.text("GitHubAccessToken")
    if text and not _TOKEN.fullmatch(text):
        problem = f"GitHubAccessToken in {members.name} has characters that no token has"
        problems.append(_Problem(problem, _RECONNECT))
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

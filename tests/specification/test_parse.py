"""What the service says becomes a specification that is right throughout, or a refusal that lists everything."""

from __future__ import annotations

import dataclasses
import json
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import CommandFailure
from agent.protocol import BundleType, ErrorCode, FileExistsBehavior, Secret
from agent.specification import DeploymentSpecification, S3Revision, UnknownFileExistsBehavior
from agent.specification.parse import parse_specification

CASES = Path(__file__).parent / "specifications"
GOOD = sorted(CASES.glob("good_*.json"))
INVALID = sorted(CASES.glob("invalid_*.json"))


def as_json(value: Any) -> Any:
    """The value as the fixtures write it."""
    if isinstance(value, UnknownFileExistsBehavior):
        return {"UnknownFileExistsBehavior": value.text}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, DeploymentSpecification):
        return {type(value).__name__: members(value)}
    return value


def members(value: Any) -> dict[str, Any]:
    return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_specification_is_read_as_its_fixture_says(path: Path) -> None:
    """Each fixture names its reason."""
    case = json.loads(path.read_text())

    parsed = parse_specification(json.dumps(case["specification"]).encode())

    assert case["expected"] == members(parsed)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_specification_is_refused_with_all_that_is_wrong(path: Path) -> None:
    """The message is all that the operator sees in the console."""
    case = json.loads(path.read_text())

    with pytest.raises(CommandFailure) as caught:
        parse_specification(json.dumps(case["specification"]).encode())

    assert case["error_id"] == caught.value.error_id
    assert [text for text in case["mentions"] if text not in caught.value.message] == []


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b'"text"', b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b"NaN"]
)
def test_content_that_is_no_json_object_is_refused(content: bytes) -> None:
    """Also content that a JSON parser dislikes in other ways: too deep, too long, not UTF-8."""
    with pytest.raises(CommandFailure) as caught:
        parse_specification(content)

    assert caught.value.error_id == "specification-invalid"


def test_only_install_fails_for_an_unknown_file_exists_behavior() -> None:
    """Hooks before Install run as ever, and the message names the words that work."""
    specification = DeploymentSpecification(
        deployment_id="d-1",
        deployment_group_id="g",
        deployment_group_name="web",
        application_name="shop",
        revision=S3Revision(bucket="b", key="k", bundle_type=BundleType.TAR),
        file_exists_behavior=UnknownFileExistsBehavior(text="SOMETHING"),
    )

    with pytest.raises(CommandFailure) as caught:
        _ = specification.known_file_exists_behavior

    assert caught.value.error_id == "specification-file-exists-behavior-unknown"
    assert caught.value.code == ErrorCode.UNKNOWN
    assert [name for name in FileExistsBehavior.__members__ if name not in caught.value.message] == []


@pytest.mark.parametrize(
    ("deployment_type", "creator", "expected"),
    [
        ("BLUE_GREEN", "codeDeployRollback", True),
        ("BLUE_GREEN", "user", False),
        ("IN_PLACE", "codeDeployRollback", False),
    ],
)
def test_only_a_rollback_of_a_blue_green_deployment_is_one(
    deployment_type: str, creator: str, *, expected: bool
) -> None:
    """Its traffic hooks come from other revisions than those of all other deployments."""
    specification = DeploymentSpecification(
        deployment_id="d-1",
        deployment_group_id="g",
        deployment_group_name="web",
        application_name="shop",
        revision=S3Revision(bucket="b", key="k", bundle_type=BundleType.TAR),
        creator=creator,
        deployment_type=deployment_type,
    )

    assert expected == specification.is_blue_green_rollback


def test_the_token_is_not_in_the_text_of_a_specification() -> None:
    """Specifications are logged when something goes wrong."""
    path = CASES / "good_everything.json"
    parsed = parse_specification(json.dumps(json.loads(path.read_text())["specification"]).encode())

    assert "secret-token" not in repr(parsed)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
NAMES = st.sampled_from(
    [
        "DeploymentId",
        "DeploymentGroupId",
        "DeploymentGroupName",
        "ApplicationName",
        "Revision",
        "RevisionType",
        "S3Revision",
        "GitHubRevision",
        "Bucket",
        "Key",
        "BundleType",
        "AgentActionOverrides",
        "AgentOverrides",
        "FileExistsBehavior",
        "AllPossibleLifecycleEvents",
        "AppSpecFilename",
    ]
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=9)
)


@given(JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    """No shape of an answer ends in an error of the language, whose message helps nobody."""
    try:
        parse_specification(json.dumps(value).encode())
    except CommandFailure as failure:
        assert failure.error_id.startswith("specification-")  # noqa: PT017 - a good value is fine, too


@given(st.text(max_size=12))
def test_an_id_that_is_taken_is_one_path_component(text: str) -> None:
    """Ids name directories below the deployment root; nothing may lead out of it."""
    case = json.loads((CASES / "good_minimal.json").read_text())["specification"]
    case["DeploymentGroupId"] = text

    try:
        group_id = parse_specification(json.dumps(case).encode()).deployment_group_id
    except CommandFailure:
        return
    assert Path("/root") / group_id != Path("/root")
    assert Path("/root", group_id).resolve().parent == Path("/root")


EVERYTHING = json.loads((CASES / "good_everything.json").read_text())["specification"]


def changed(document: Any, path: list[int], value: Any, *, key: str | None) -> Any:
    """The document with this value somewhere in it, in the place of another or under a key of its own."""
    if not path or not isinstance(document, list | dict) or not document:
        return {**document, key: value} if key is not None and isinstance(document, dict) else value
    if isinstance(document, list):
        number = path[0] % len(document)
        return [
            changed(item, path[1:], value, key=key) if index == number else item
            for index, item in enumerate(document)
        ]
    chosen = list(document)[path[0] % len(document)]
    return {
        name: changed(item, path[1:], value, key=key) if name == chosen else item
        for name, item in document.items()
    }


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(st.integers(0, 30), max_size=3), JSON, st.none() | NAMES)
def test_a_changed_specification_is_whole_or_refused_with_what_to_do(
    path: list[int], value: Any, key: str | None
) -> None:
    """An endpoint with a defect gets a report that names it, and nothing runs on half a specification."""
    outcome = outcome_of(json.dumps(changed(EVERYTHING, path, value, key=key)).encode())

    if isinstance(outcome, CommandFailure):
        assert outcome.error_id in {"specification-invalid", "specification-local-revision"}
        assert outcome.message.endswith(".")
        return
    assert all([outcome.deployment_id, outcome.deployment_group_id, outcome.deployment_group_name])
    assert outcome.application_name
    assert all(required_members(outcome.revision))
    assert outcome.appspec_filename is None or not outcome.appspec_filename.startswith("..")


def outcome_of(content: bytes) -> DeploymentSpecification | CommandFailure:
    """The specification, or why it is refused."""
    try:
        return parse_specification(content)
    except CommandFailure as failure:
        return failure


def required_members(revision: Any) -> list[str]:
    """What a bundle can't be fetched without."""
    if isinstance(revision, S3Revision):
        return [revision.bucket, revision.key]
    return [revision.account, revision.repository, revision.commit_id]

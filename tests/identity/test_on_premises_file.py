"""The on-premises file says who a host is; what is wrong in it is said at once, with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigurationError
from agent.identity.on_premises import from_json, to_json
from agent.identity.on_premises_file import parse_on_premises, read_on_premises

if TYPE_CHECKING:
    from agent.errors import Problem

CASES = Path(__file__).parent / "on_premises"
GOOD = sorted(CASES.glob("good_*.yml"))
INVALID = sorted(CASES.glob("invalid_*.yml"))


def expectation(path: Path) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return expected


def differing(expected: list[list[Any]], actual: tuple[Problem, ...]) -> list[object]:
    """Problems that are not as a fixture lists them: line, then texts that the message holds."""
    if len(expected) != len(actual):
        return [expected, actual]
    return [
        (wanted, problem)
        for wanted, problem in zip(expected, actual, strict=True)
        if wanted[0] != problem.line or any(text not in problem.message for text in wanted[1:])
    ]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_file_is_read_as_its_fixture_says(path: Path) -> None:
    """Each fixture names its reason."""
    parsed = parse_on_premises(path.read_bytes(), str(path))

    expected = expectation(path)
    assert expected["identity"] == to_json(parsed.identity)
    assert [] == differing(expected["warnings"], parsed.warnings)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_file_is_refused_with_all_its_problems(path: Path) -> None:
    """Corrected once, it works; not after as many restarts as there are mistakes."""
    with pytest.raises(ConfigurationError) as caught:
        parse_on_premises(path.read_bytes(), "the-file.yml")

    assert caught.value.source == "the-file.yml"
    assert [] == differing(expectation(path)["problems"], caught.value.problems)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_an_identity_survives_the_way_from_one_process_to_another(path: Path) -> None:
    """The file is parsed in a process of its own, so that the one at rest needs no YAML."""
    identity = parse_on_premises(path.read_bytes(), str(path)).identity

    assert identity == from_json(json.loads(json.dumps(to_json(identity))))


def test_no_secret_is_in_a_message() -> None:
    """A secret key in the wrong line is still a secret."""
    text = (CASES / "good_user.yml").read_text()
    secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    swapped = text.replace("AKIAIOSFODNN7EXAMPLE", secret).replace("region: eu-west-1", "region: Ireland")

    with pytest.raises(ConfigurationError) as caught:
        parse_on_premises(swapped.encode(), "the-file.yml")

    assert secret not in caught.value.message
    assert secret not in repr(parse_on_premises(text.encode(), "the-file.yml"))


def test_a_file_that_is_not_there_is_no_mistake(tmp_path: Path) -> None:
    """Hosts on EC2 have none."""
    assert read_on_premises(tmp_path / "codedeploy.onpremises.yml") is None


def test_a_file_that_cannot_be_read_is_told_with_the_reason(tmp_path: Path) -> None:
    """Going on as if it were absent would make the host somebody else."""
    with pytest.raises(ConfigurationError, match="can't be read by this user .*Is a directory.*ls -l"):
        read_on_premises(tmp_path)


@pytest.mark.parametrize("name", ["link.yml", "link/codedeploy.onpremises.yml"])
def test_a_link_to_where_nothing_is_yet_is_not_taken_for_a_file_that_is_absent(
    tmp_path: Path, name: str
) -> None:
    """The disk of the configuration is mounted late; until then this host must not be an instance of EC2."""
    link = tmp_path / name.partition("/")[0]
    link.symlink_to(tmp_path / "not-mounted")
    with pytest.raises(
        ConfigurationError, match=f"{link} is a link to {tmp_path}/not-mounted, where nothing is"
    ):
        read_on_premises(tmp_path / name)


@pytest.mark.parametrize(
    ("fixture", "mode", "expected"),
    [("good_user", 0o600, 0), ("good_user", 0o400, 0), ("good_user", 0o640, 1), ("good_session", 0o644, 0)],
)
def test_a_secret_that_others_may_read_is_warned_of(
    fixture: str, mode: int, expected: int, tmp_path: Path
) -> None:
    """Whoever has the keys can be this host. The file of a session holds none."""
    path = tmp_path / "codedeploy.onpremises.yml"
    path.write_bytes((CASES / f"{fixture}.yml").read_bytes())
    path.chmod(mode)

    parsed = read_on_premises(path)

    assert parsed is not None
    assert expected == len(parsed.warnings)
    assert all(f"chmod 600 {path}" in warning.message for warning in parsed.warnings)


@given(
    st.one_of(st.binary(max_size=80), st.text(":-[]{}&*!|>'\"%@`#, \n\tregion", max_size=60).map(str.encode))
)
def test_any_text_is_read_or_refused(text: bytes) -> None:
    """An error of the YAML library would end the agent with a message that helps nobody."""
    try:
        parse_on_premises(text, "the-file.yml")
    except ConfigurationError as error:
        assert error.problems  # noqa: PT017 - a good value is fine, too

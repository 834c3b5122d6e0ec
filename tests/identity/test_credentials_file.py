"""Rotated credentials reach the agent without a restart, and a half-written file does no harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import IdentityError
from agent.identity.credentials import Credentials
from agent.identity.credentials_file import CredentialsFile, parse_credentials
from agent.protocol import Secret

PATH = Path("/some/credentials")


def profile(number: int) -> str:
    return (
        f"[default]\naws_access_key_id = ASIA{number}\n"
        f"aws_secret_access_key = secret-{number}\naws_session_token = token-{number}\n"
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    path.write_text(profile(1))
    return path


def test_the_default_profile_is_read(file: Path) -> None:
    """Other profiles belong to other programs."""
    file.write_text("# rotated\n[other]\naws_access_key_id = OTHER\n\n" + profile(1) + "\n[last]\nregion=x\n")

    assert CredentialsFile(file).current() == Credentials(
        access_key_id="ASIA1", secret_access_key=Secret("secret-1"), session_token=Secret("token-1")
    )


@pytest.mark.parametrize(
    "text",
    [
        "[default]\naws_access_key_id=A\naws_secret_access_key=s=/+\n",
        "[ default ]\r\nAWS_ACCESS_KEY_ID = A\r\nAWS_SECRET_ACCESS_KEY = s=/+\r\n",
        "\ufeff; comment\n[default]\n  aws_access_key_id  =  A\n\taws_secret_access_key\t=\ts=/+\nno line of ours\n",
        "[default]\naws_access_key_id=A\naws_secret_access_key=s=/+\naws_session_token=\n",
    ],
)
def test_all_usual_ways_of_writing_the_file_are_read(text: str, tmp_path: Path) -> None:
    """It is written by scripts, by the AWS CLI, and by hand."""
    parsed = parse_credentials(text.encode(), tmp_path)

    assert parsed == Credentials(access_key_id="A", secret_access_key=Secret("s=/+"))


def test_a_file_that_was_replaced_is_read_again(file: Path, tmp_path: Path) -> None:
    """Rotation happens every hour; a restart each time would be a deployment missed each time."""
    source = CredentialsFile(file)
    source.current()
    beside = tmp_path / "new"
    beside.write_text(profile(2))
    # Same size and time: only the file itself is another one.
    os.utime(beside, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    beside.replace(file)

    assert source.current().access_key_id == "ASIA2"


def test_a_file_that_was_written_over_is_read_again(file: Path) -> None:
    """Not everybody renames."""
    source = CredentialsFile(file)
    source.current()
    file.write_text(profile(22))

    assert source.current().access_key_id == "ASIA22"


@pytest.mark.parametrize("text", ["", "[default]\naws_access_key_id = ASIA2\n", "[def", None])
def test_the_old_set_serves_until_the_new_one_is_complete(text: str | None, file: Path) -> None:
    """A reader comes at any moment, also between two writes."""
    source = CredentialsFile(file)
    source.current()
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    during = source.current().access_key_id
    file.write_text(profile(2))

    assert (during, source.current().access_key_id) == ("ASIA1", "ASIA2")


def test_old_credentials_are_described_as_such_with_the_reason(file: Path) -> None:
    """When the service refuses them, that is what somebody has to know."""
    source = CredentialsFile(file)
    source.current()
    file.unlink()
    source.current()
    assert f"{file} as it was before: No usable credentials: the credentials file" in source.describe()
    assert "No such file" in source.describe()
    file.write_text(profile(2))
    source.current()
    assert f"profile default in {file}" == source.describe()


def test_a_file_that_did_not_change_is_not_parsed_again(file: Path) -> None:
    """Every poll asks."""
    source = CredentialsFile(file)

    assert source.current() is source.current()


def test_credentials_that_the_service_refused_are_read_anew(file: Path) -> None:
    """The clock of a network file system may hide a change."""
    source = CredentialsFile(file)
    first = source.current()

    source.forget()

    assert source.current() is not first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't be read .No such file"),
        ("[other]\n", r"profile \[default\] .* lacks aws_access_key_id and aws_secret_access_key"),
        ("[default]\naws_access_key_id=A\n", "lacks aws_secret_access_key"),
        (
            "[default]\naws_access_key_id=A\u20ac\naws_secret_access_key=s\n",
            "aws_access_key_id has characters in it",
        ),
        (
            "[default]\naws_access_key_id=A B\naws_secret_access_key=s\n",
            "aws_access_key_id has characters in it",
        ),
    ],
)
def test_a_first_set_that_is_not_there_is_told_with_its_file(
    text: str | None, message: str, tmp_path: Path
) -> None:
    """The process that should write it is somebody else's: the message names what is missing."""
    path = tmp_path / "credentials"
    if text is not None:
        path.write_text(text)

    with pytest.raises(IdentityError, match=message):
        CredentialsFile(path).current()


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(text: bytes) -> None:
    """Whatever is in the file, the agent goes on."""
    try:
        parse_credentials(b"[default]\naws_access_key_id=A\n" + text, PATH)
    except IdentityError as error:
        assert str(PATH) in error.message  # noqa: PT017 - a good value is fine, too

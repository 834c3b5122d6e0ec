"""The shared-credentials file that another process rotates.

Read without configparser, which would cost the process at rest memory for three lines of text.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.errors import CredentialsUnavailable
from agent.identity.credentials import Credentials, can_be_key
from agent.protocol import Secret

if TYPE_CHECKING:
    from pathlib import Path

_PROFILE = "default"
_REQUIRED = ("aws_access_key_id", "aws_secret_access_key")


class CredentialsFile:
    """Credentials of the profile `default`, read again whenever the file is another one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_as: tuple[int, int, int] | None = None
        self._credentials: Credentials | None = None
        self._trouble = ""

    def current(self) -> Credentials:
        """The newest complete set: a file that is just being written doesn't take away the one before.

        Raises:
            CredentialsUnavailable: there has never been a complete set.
        """
        try:
            self._read_if_changed()
            self._trouble = ""
        except CredentialsUnavailable as error:
            if self._credentials is None:
                raise
            self._trouble = error.message
        if self._credentials is None:
            raise AssertionError("a file that was read without an error has credentials")
        return self._credentials

    def forget(self) -> None:
        """The next `current` reads the file, changed or not."""
        self._read_as = None

    def describe(self) -> str:
        """Where the credentials come from, and why they are old ones, if they are."""
        place = f"profile {_PROFILE} in {self._path}"
        return f"{place} as it was before: {self._trouble.rstrip('.')}" if self._trouble else place

    def _read_if_changed(self) -> None:
        try:
            with self._path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                read_as = (status.st_mtime_ns, status.st_ino, status.st_size)
                if read_as == self._read_as:
                    return
                text = stream.read()
        except OSError as error:
            raise CredentialsUnavailable(
                f"No usable credentials: the credentials file {self._path} can't be read ({error.strerror}). "
                "Check aws_credentials_file in the on-premises file, and the process that writes it."
            ) from error
        self._credentials = parse_credentials(text, self._path)
        self._read_as = read_as


def parse_credentials(text: bytes, path: Path) -> Credentials:
    """The profile `default`. When these credentials expire, the file does not say.

    Raises:
        CredentialsUnavailable: the profile is missing or not complete.
    """
    values = _profile(text.decode("utf-8", "replace"))
    missing = [name for name in _REQUIRED if not values.get(name)]
    if missing:
        raise CredentialsUnavailable(
            f"No usable credentials: the profile [{_PROFILE}] of {path} lacks {' and '.join(missing)}. "
            "Check the process that writes this file."
        )
    token = values.get("aws_session_token")
    odd = [name for name in (*_REQUIRED, "aws_session_token") if not can_be_key(values.get(name) or "-")]
    if odd:
        raise CredentialsUnavailable(
            f"No usable credentials: in the profile [{_PROFILE}] of {path}, {' and '.join(odd)} has characters in it "
            "that no key has. Check the process that writes this file."
        )
    return Credentials(
        access_key_id=values["aws_access_key_id"],
        secret_access_key=Secret(values["aws_secret_access_key"]),
        session_token=Secret(token) if token else None,
    )


def _profile(text: str) -> dict[str, str]:
    """Keys and values of the section `default`."""
    values: dict[str, str] = {}
    section = ""
    for line in text.lstrip("\ufeff").splitlines():
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if stripped.startswith("[") and "]" in stripped:
            section = stripped[1 : stripped.index("]")].strip()
        elif section == _PROFILE and "=" in stripped:
            name, _, value = stripped.partition("=")
            values[name.strip().lower()] = value.strip()
    return values

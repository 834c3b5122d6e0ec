"""Names and numbers of the users and groups of this host, for messages and for whoever asks by name."""

from __future__ import annotations

import grp
import pwd

_LEAVE = 0xFFFFFFFF  # to the kernel: as it is


def known_user_name(uid: int) -> str | None:
    """The name of this user; None where there is no such account, as of files from another host."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def user_name(uid: int) -> str:
    """The name of this user, for a sentence; `user 1234` where there is no such account."""
    return known_user_name(uid) or f"user {uid}"


def user_id(name: str) -> int | None:
    """The number of the user of this name, or that the name itself is; None where there is no such user."""
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return _number(name)


def group_id(name: str) -> int | None:
    """The number of the group of this name, or that the name itself is; None where there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return _number(name)


def _number(name: str) -> int | None:
    is_number = name.isascii() and name.isdigit() and int(name) < _LEAVE
    return int(name) if is_number else None

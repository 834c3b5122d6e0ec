"""Names of the users of this host, for messages and for whoever asks by name."""

from __future__ import annotations

import pwd


def known_user_name(uid: int) -> str | None:
    """The name of this user; None where there is no such account, as of files from another host."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def user_name(uid: int) -> str:
    """The name of this user, for a sentence; `user 1234` where there is no such account."""
    return known_user_name(uid) or f"user {uid}"

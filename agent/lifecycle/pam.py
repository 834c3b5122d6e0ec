"""A user's session as PAM opens it, through ctypes: the same library and rules as `su`.

Account rules, credentials, session; nobody is authenticated, as root needs no password for `su` either.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any

from agent.user_names import known_user_name

_LIBRARY = "libpam.so.0"
_OWN_SERVICE, _SU = "codedeploy-agent", "su"
_LOGGED_AS = _OWN_SERVICE.encode()
_SERVICE_DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d")

_SUCCESS, _CONVERSATION_ERROR = 0, 19
_ERROR_TEXT, _INFORMATION = 3, 4
_RUSER = 8
_ESTABLISH, _DELETE = 0x2, 0x4
_MAX_SAID = 20
_MAX_SAID_CHARACTERS = 400


class _Message(ctypes.Structure):
    _fields_ = (("style", c_int), ("text", c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", c_void_p), ("code", c_int))


_CONVERSE = ctypes.CFUNCTYPE(c_int, c_int, POINTER(POINTER(_Message)), POINTER(c_void_p), c_void_p)


class _Conversation(ctypes.Structure):
    _fields_ = (("converse", _CONVERSE), ("data", c_void_p))


# Everything is spelled out: ctypes takes int for what it isn't told, and cuts pointers in half.
_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "pam_start": (c_int, [c_char_p, c_char_p, POINTER(_Conversation), POINTER(c_void_p)]),
    "pam_end": (c_int, [c_void_p, c_int]),
    "pam_set_item": (c_int, [c_void_p, c_int, c_char_p]),
    "pam_acct_mgmt": (c_int, [c_void_p, c_int]),
    "pam_setcred": (c_int, [c_void_p, c_int]),
    "pam_open_session": (c_int, [c_void_p, c_int]),
    "pam_close_session": (c_int, [c_void_p, c_int]),
    "pam_getenvlist": (POINTER(c_char_p), [c_void_p]),
    "pam_strerror": (c_char_p, [c_void_p, c_int]),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What PAM answered instead of a session.

    Attributes:
        step: the function that was called, such as `pam_acct_mgmt`.
        number: its result.
        answer: what PAM says that this means.
        said: what its modules had to say.
    """

    step: str
    number: int
    answer: str
    said: tuple[str, ...]


class PamRefused(Exception):
    """There is no session."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.answer)
        self.refusal = refusal


@cache
def load_pam() -> ctypes.CDLL | None:
    """The library; None on a host without it."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError):
        return None
    return library


def log_as_agent() -> None:
    """Afterwards what modules log in this process stands there under `codedeploy-agent`.

    The C library takes the name from the command line, of which a process title makes a fragment.
    """
    with contextlib.suppress(ValueError):  # another C library
        name = c_char_p.in_dll(ctypes.CDLL(None), "program_invocation_short_name")
        name.value = _LOGGED_AS


def choose_service() -> str:
    """`codedeploy-agent` where the administrator has made rules of that name, else `su`."""
    return _OWN_SERVICE if service_file(_OWN_SERVICE) else _SU


def service_file(service: str) -> str | None:
    """The file with the rules of this service; None where there is none, and those of `other` count."""
    paths = (f"{directory}/{service}" for directory in _SERVICE_DIRECTORIES)
    return next((path for path in paths if os.path.exists(path)), None)


class PamSession:
    """One session of one user.

    What modules say to the user is kept in `said`, with whether that is an error; what they ask remains unanswered, so
    that nothing waits for a person.
    """

    def __init__(self, library: ctypes.CDLL, *, service: str, user: str) -> None:
        self._pam = library
        self._service = service
        self._user = user
        self._handle = c_void_p()
        self._status = _SUCCESS
        self.said: list[tuple[bool, str]] = []
        # Kept: PAM calls it for as long as the session lives.
        self._conversation = _Conversation(_CONVERSE(self._converse), None)

    def open(self) -> dict[str, str]:
        """The variables that the session brings along.

        Raises:
            PamRefused: there is no session.
        """
        # Each call stands where it is made: its name goes into the refusal.
        self._check(
            "pam_start",
            self._pam.pam_start(
                self._service.encode(),
                os.fsencode(self._user),
                ctypes.byref(self._conversation),
                ctypes.byref(self._handle),
            ),
        )
        self._pam.pam_set_item(self._handle, _RUSER, _own_name())
        self._check("pam_acct_mgmt", self._pam.pam_acct_mgmt(self._handle, 0))
        # Without a password, modules that keep keys may have none to give; others refuse where nothing is
        # configured. A session without such keys is what a service of the host has, too.
        if (number := self._pam.pam_setcred(self._handle, _ESTABLISH)) != _SUCCESS:
            self._hear(
                f"PAM gave {self._user} no credentials (pam_setcred: {self._meaning(number)})", is_error=True
            )
        self._check("pam_open_session", self._pam.pam_open_session(self._handle, 0))
        return self._variables()

    def close(self) -> None:
        """Afterwards the session is over, as far as its modules let it be."""
        self._status = self._pam.pam_close_session(self._handle, 0)
        self._pam.pam_setcred(self._handle, _DELETE)
        self._pam.pam_end(self._handle, self._status)

    def _check(self, step: str, number: int) -> None:
        if number == _SUCCESS:
            return
        refusal = Refusal(
            step=step, number=number, answer=self._meaning(number), said=tuple(text for _, text in self.said)
        )
        if self._handle.value is not None:
            if step == "pam_open_session":
                self._pam.pam_setcred(self._handle, _DELETE)
            self._pam.pam_end(self._handle, number)
        raise PamRefused(refusal)

    def _meaning(self, number: int) -> str:
        text: bytes | None = self._pam.pam_strerror(self._handle, number)
        return (text or b"").decode("utf-8", "replace")

    def _variables(self) -> dict[str, str]:
        variables: dict[str, str] = {}
        listed = self._pam.pam_getenvlist(self._handle)
        number = 0
        while listed and (entry := listed[number]):
            name, equals, value = entry.partition(b"=")
            if equals:
                variables[os.fsdecode(name)] = os.fsdecode(value)
            number += 1
        return variables

    def _converse(self, count: int, messages: Any, responses: Any, _data: Any) -> int:
        try:
            for number in range(count):
                message = messages[number].contents
                if message.style not in (_ERROR_TEXT, _INFORMATION):
                    return _CONVERSATION_ERROR
                text = (message.text or b"").decode("utf-8", "replace").strip()
                self._hear(text, is_error=message.style == _ERROR_TEXT)
            calloc = ctypes.CDLL(None).calloc
            calloc.restype, calloc.argtypes = c_void_p, [c_size_t, c_size_t]
            responses[0] = calloc(count, ctypes.sizeof(_Response))  # PAM frees it
        except Exception:  # noqa: BLE001 - called from C, which knows no exceptions
            return _CONVERSATION_ERROR
        return _SUCCESS

    def _hear(self, text: str, *, is_error: bool) -> None:
        if text and len(self.said) < _MAX_SAID:
            self.said.append((is_error, text[:_MAX_SAID_CHARACTERS]))


def _own_name() -> bytes:
    """Who asks for the session, for modules that make a difference."""
    return os.fsencode(known_user_name(os.geteuid()) or "root")

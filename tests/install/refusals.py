"""A kernel that refuses certain system calls, as older kernels and some file systems do."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.install.children import in_child

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# By machine: what the kernel calls it (AUDIT_ARCH_…), and its numbers.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBERS = {
    "renameat2": {"x86_64": 316, "aarch64": 276},
    "linkat": {"x86_64": 265, "aarch64": 37},
}
_MACHINE = os.uname().machine

# linux/filter.h, linux/seccomp.h and linux/prctl.h
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_OFFSET_OF_NUMBER, _OFFSET_OF_ARCHITECTURE = 0, 4
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2

needs_refusals = pytest.mark.skipif(
    _MACHINE not in _ARCHITECTURES, reason="the numbers of this machine's system calls are not known"
)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def with_refusals(refused: dict[str, int], body: Callable[[], T]) -> T:
    """What the body returns in a process for which these system calls fail with these error numbers."""

    def filtered() -> T:
        _install_filter(refused)
        return body()

    return in_child(filtered)


def _install_filter(refused: dict[str, int]) -> None:
    instructions = [
        _instruction(_LOAD, _OFFSET_OF_ARCHITECTURE),
        _instruction(_JUMP_IF_EQUAL, _ARCHITECTURES[_MACHINE], if_true=1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_LOAD, _OFFSET_OF_NUMBER),
    ]
    for name, number in refused.items():
        instructions += [
            _instruction(_JUMP_IF_EQUAL, _NUMBERS[name][_MACHINE], if_false=1),
            _instruction(_RETURN, _ERRNO | number),
        ]
    instructions.append(_instruction(_RETURN, _ALLOW))
    program = _Program(len(instructions), b"".join(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0))


def _instruction(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _check(status: int) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

"""SELinux: rules of the policy, by its own tools, and labels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.appspec import SelinuxContext
    from agent.install.model.attributes import Attributes

log = get_logger()

_PROGRAM = "semanage"
_TIMEOUT_S = 300
_KERNEL = Path("/sys/fs/selinux")
_SPECIAL = re.compile(rb"([.^$*+?()\[\]{}|\\])")


def labels_to_set(attributes: Iterable[Attributes]) -> list[str]:
    """Problems that would stop a label from being set; none when no entry asks for one."""
    lines = sorted({found.permission.line for found in attributes if found.permission.context is not None})
    if not lines:
        return []
    if _found(_PROGRAM) is not None:
        return []
    where = f"AppSpec line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}"
    wanting = f"a context is asked for ({where}), but this host has no {_PROGRAM}"
    return [
        f"{wanting}; install the SELinux policy tools (policycoreutils), or remove context from the AppSpec"
    ]


def add_rule(path: bytes, context: SelinuxContext, *, is_known: bool) -> None:
    """Have the host's policy give this path the label.

    Args:
        path: an existing file or directory.
        context: the label.
        is_known: an earlier Install has added a rule for this very path.

    Raises:
        OSError: the program failed; the message holds what it printed.
    """
    rule: list[str | bytes] = ["-t", context.type]
    if context.user is not None:
        rule += ["-s", context.user]
    if context.range is not None:
        rule += ["-r", context.range]
    rule += ["--", _pattern(path)]
    likely, other = ("-m", "-a") if is_known else ("-a", "-m")
    try:
        _run([_PROGRAM, "fcontext", likely, *rule])
    except OSError as error:
        # Somebody may have added or removed the rule by hand.
        try:
            _run([_PROGRAM, "fcontext", other, *rule])
        except OSError:
            raise error from None


def label_descriptor(descriptor: int, context: SelinuxContext) -> None:
    """Give this file or directory the label that `add_rule` gives its path, whatever is at the path by now.

    `restorecon` looks for the path itself, and would label what somebody else has put there meanwhile.

    Args:
        descriptor: it may stand for the place only.
        context: the label.

    Raises:
        OSError: the kernel does not take it.
    """
    if not _KERNEL.is_dir():
        return  # SELinux is off
    fields = [context.user or "system_u", "object_r", context.type]
    if (_KERNEL / "mls").read_text().strip() != "0":
        fields.append(context.range or "s0")
    label = ":".join(fields)
    try:
        os.setxattr(f"/proc/self/fd/{descriptor}", "security.selinux", label.encode() + b"\0")
    except OSError as error:
        raise OSError(error.errno, f"the SELinux label {label} can't be given: {error.strerror}") from error


def drop_rule(path: bytes) -> None:
    """Drop our rule for this path from the host's policy; a failure is only logged."""
    try:
        _run([_PROGRAM, "fcontext", "-d", "--", _pattern(path)])
    except OSError as error:
        log.warning("selinux_rule_not_removed", path=repr(path), error=str(error))


def _pattern(path: bytes) -> bytes:
    """Semanage takes a regular expression; this one matches nothing but the path."""
    return _SPECIAL.sub(rb"\\\1", path)


def _found(program: str) -> str | None:
    # A service's PATH may lack the directories where these programs lie.
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def _run(command: list[str | bytes]) -> None:
    program = str(command[0])
    found = _found(program)
    if found is None:
        raise OSError(f"there is no program {program} on this host")
    try:
        done = subprocess.run(
            [found, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{program} did not end within {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        printed = done.stdout.decode("utf-8", "replace").strip()[-500:]
        raise OSError(f"{program} failed with exit code {done.returncode}: {printed}")

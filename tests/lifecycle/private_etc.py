"""Work with an /etc of its own over the machine's: rules of PAM, users and limits that nobody else on the machine ever sees."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lifecycle.isolation import run_isolated

if TYPE_CHECKING:
    from collections.abc import Callable

ETC = Path("/etc")
_NEW_NAMESPACE = 0x00020000

SERVICE = """account required pam_permit.so
auth required pam_permit.so
session required pam_env.so readenv=1
session required pam_env.so readenv=1 envfile=/etc/default/locale
session required pam_limits.so
"""


def in_private_etc(prepare: Callable[[], None], act: Callable[[], Any]) -> Any:
    """What `act` returns (JSON-able), in a child process whose /etc `prepare` has changed."""
    directory = Path(tempfile.mkdtemp(prefix="etc-"))

    def child() -> Any:
        assert ctypes.CDLL(None).unshare(_NEW_NAMESPACE) == 0
        layers = f"lowerdir=/etc,upperdir={directory}/upper,workdir={directory}/work"
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", directory], check=True)
        for name in ("upper", "work"):
            (directory / name).mkdir(mode=0o755)
        subprocess.run(["mount", "-t", "overlay", "-o", layers, "none", "/etc"], check=True)
        (ETC / "pam.d/codedeploy-agent").write_text(SERVICE)
        (ETC / "environment").write_text("")
        (ETC / "default/locale").write_text("")
        prepare()
        return act()

    try:
        return run_isolated(child)
    finally:
        directory.rmdir()


def add_user(
    name: str, *, uid: int = 4242, login_shell: str = "/bin/sh", shadow: str = "*:19000:0:99999:7:::"
) -> None:
    """To be called by `prepare`."""
    with (ETC / "passwd").open("a") as file:
        file.write(f"{name}:x:{uid}:{uid}::/nonexistent:{login_shell}\n")
    with (ETC / "group").open("a") as file:
        file.write(f"{name}:x:{uid}:\n")
    with (ETC / "shadow").open("a") as file:
        file.write(f"{name}:{shadow}\n")


def rules(text: str, service: str = "codedeploy-agent") -> None:
    """The rules of PAM for this service, and no others."""
    (ETC / "pam.d" / service).write_text(text)

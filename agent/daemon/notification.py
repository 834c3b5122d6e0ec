"""Telling systemd what the daemon does, over the socket that it names in NOTIFY_SOCKET."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping


class ServiceNotifier:
    """Sends notifications; without a service manager it does nothing."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        # Removed, so that no hook ever speaks to the service manager in our name.
        address = environment.pop("NOTIFY_SOCKET", "")
        watchdog_us = environment.pop("WATCHDOG_USEC", "")
        watchdog_pid = environment.pop("WATCHDOG_PID", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        is_ours = watchdog_pid in ("", str(os.getpid()))
        self._watchdog_interval_s = int(watchdog_us) / 2e6 if watchdog_us.isdigit() and is_ours else 0.0
        self._last_status = ""
        self._alive_at = 0.0

    def ready(self) -> None:
        """The daemon does its work from now on."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The daemon is about to end."""
        self._send("STOPPING=1")

    def keep_alive(self) -> None:
        """The daemon is not stuck; to be called often, and sent as often as the service manager asks for it."""
        now = time.monotonic()
        if self._watchdog_interval_s and now - self._alive_at >= self._watchdog_interval_s:
            self._alive_at = now
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        if text != self._last_status:
            self._last_status = text
            self._send(f"STATUS={text}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode(), self._address)

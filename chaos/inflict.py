"""Carrying out the actions of a schedule, each at its moment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from chaos.blows import Blows
from chaos.checks import ACKNOWLEDGE, COMPLETE
from chaos.conditions import NotPossibleError
from chaos.faults import FaultKind
from chaos.listening import EXPIRED, GOOD, OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.host import Host
    from chaos.schedule import Action
    from chaos.servers import Servers
    from chaos.wires import Wires

_EVENT_S = 60.0


class Inflictor:
    """Does to one host what its schedule says.

    Attributes:
        applied: faults that took place, by kind, in order.
        skipped: those that could not, with the reason.
        begun: kinds of which one was begun, whether it took place or not.
        violations: what came to light meanwhile.
    """

    def __init__(self, host: Host, wires: Wires, servers: Servers) -> None:
        self.applied: list[str] = []
        self.skipped: list[str] = []
        self.begun: set[FaultKind] = set()
        self.violations: list[str] = []
        self._host, self._wires, self._servers = host, wires, servers
        self._blows = Blows(host)

    def heal(self) -> None:
        """Whatever lasts is over."""
        self._blows.heal()

    def carry_out(self, action: Action) -> None:
        """Wait for the moment, and do it."""
        identifier = ""
        if action.event:
            is_after = action.kind is FaultKind.ARCHIVE_GONE
            identifier = self._wires.control.wait_for(
                COMPLETE if is_after else ACKNOWLEDGE, action.event, turn=action.turn, timeout_s=_EVENT_S
            )
            if not identifier:
                self.skipped.append(f"{action.kind.value}: no {action.event} came")
                return
        time.sleep(action.delay_s)
        try:
            # Noted before: what a fault causes must not look as if nothing had been done.
            self.begun.add(action.kind)
            self.deeds(action, identifier)[action.kind]()
        except NotPossibleError as reason:
            self.skipped.append(f"{action.kind.value}: {reason}")
        else:
            self.applied.append(action.kind.value)

    def deeds(self, action: Action, identifier: str) -> Mapping[FaultKind, Callable[[], None]]:
        """What would be done for this action if it were of that kind, after the command of that identifier."""
        host, blows, duration_s = self._host.conditions, self._blows, action.duration_s
        return {
            FaultKind.KILL_DAEMON: blows.kill_daemon,
            FaultKind.KILL_WORKER: lambda: _try_for(1.0, blows.kill_worker),
            FaultKind.KILL_WAITING: lambda: _try_for(3.0, blows.kill_waiting_worker),
            FaultKind.KILL_HOOK: lambda: _try_for(3.0, blows.kill_hook),
            FaultKind.KILL_RECORDER: lambda: _try_for(3.0, blows.kill_recorder),
            FaultKind.STOP_DAEMON: lambda: blows.stop_for("daemon", duration_s),
            FaultKind.STOP_WORKER: lambda: _try_for(1.0, lambda: blows.stop_for("worker", duration_s)),
            FaultKind.STOP_WAITING: lambda: _try_for(3.0, lambda: blows.stop_for("waiting", duration_s)),
            FaultKind.STOP_HOOK: lambda: _try_for(3.0, lambda: blows.stop_for("script", duration_s)),
            FaultKind.RESTART_DAEMON: self._restart_daemon,
            FaultKind.DRAIN: lambda: blows.drain(duration_s),
            FaultKind.KILL_ENDPOINT: self._servers.kill_control,
            FaultKind.REBOOT: lambda: blows.reboot(duration_s),
            FaultKind.FULL_DISK: lambda: host.fill_disk(duration_s),
            FaultKind.READ_ONLY: lambda: _try_for(2.0, lambda: host.make_read_only(duration_s)),
            FaultKind.NO_FILES: lambda: blows.take_files(duration_s),
            FaultKind.NO_PIDS: lambda: host.take_pids(duration_s),
            FaultKind.NO_MEMORY: lambda: _try_for(
                1.0, lambda: blows.take_memory(action.spare_bytes, duration_s)
            ),
            FaultKind.OOM_KILL: lambda: _try_for(
                1.0, lambda: blows.run_out_of_memory(action.spare_bytes, duration_s)
            ),
            FaultKind.CLOCK_STEP: lambda: host.move_clock(action.clock_s, duration_s),
            FaultKind.REFUSE: lambda: host.refuse(duration_s),
            FaultKind.S3_DOWN: lambda: self._wires.s3.be_down(duration_s),
            FaultKind.ARCHIVE_GONE: lambda: self._remove_archive(identifier, action),
            FaultKind.EXPIRED_CERTIFICATE: lambda: self._show_certificate(EXPIRED, duration_s),
            FaultKind.OTHER_CERTIFICATE: lambda: self._show_certificate(OTHER, duration_s),
        }

    def _restart_daemon(self) -> None:
        if self._host.end() is None:
            self.violations.append("the daemon did not end within 15 s of SIGTERM")
        self._host.start()

    def _remove_archive(self, identifier: str, action: Action) -> None:
        self._blows.remove_archive(self._wires.control.deployment_of(identifier), action.sweep)

    def _show_certificate(self, which: str, duration_s: float) -> None:
        self._wires.show_certificate(which)
        time.sleep(duration_s)
        self._wires.show_certificate(GOOD)


def _try_for(seconds: float, fault: Callable[[], None]) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fault()
        except NotPossibleError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.003)
        else:
            return

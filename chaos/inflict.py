"""Carrying out the actions of a schedule, each at its moment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from typing_extensions import assert_never

from chaos.blows import Blows
from chaos.checks import ACKNOWLEDGE, COMPLETE
from chaos.conditions import NotPossibleError
from chaos.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.host import Host
    from chaos.schedule import Action
    from chaos.servers import Servers
    from chaos.wires import Wires

_EVENT_S = 20.0


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
            self._inflict(action, identifier)
        except NotPossibleError as reason:
            self.skipped.append(f"{action.kind.value}: {reason}")
        else:
            self.applied.append(action.kind.value)

    def _inflict(self, action: Action, identifier: str) -> None:  # noqa: C901, PLR0912 - one for each kind of fault
        host, conditions, blows, duration_s = (
            self._host,
            self._host.conditions,
            self._blows,
            action.duration_s,
        )
        match action.kind:
            case FaultKind.KILL_DAEMON:
                blows.kill_daemon()
            case FaultKind.KILL_WORKER:
                _try_for(1.0, blows.kill_worker)
            case FaultKind.KILL_HOOK:
                _try_for(1.0, blows.kill_hook)
            case FaultKind.KILL_RECORDER:
                _try_for(1.0, blows.kill_recorder)
            case FaultKind.STOP_DAEMON:
                blows.stop_for("daemon", duration_s)
            case FaultKind.STOP_WORKER:
                _try_for(1.0, lambda: blows.stop_for("worker", duration_s))
            case FaultKind.STOP_HOOK:
                _try_for(1.0, lambda: blows.stop_for("script", duration_s))
            case FaultKind.RESTART_DAEMON:
                if host.end() is None:
                    self.violations.append("the daemon did not end within 15 s of SIGTERM")
                host.start()
            case FaultKind.DRAIN:
                blows.drain(duration_s)
            case FaultKind.KILL_ENDPOINT:
                self._servers.kill_control()
            case FaultKind.REBOOT:
                blows.reboot(duration_s)
            case FaultKind.FULL_DISK:
                conditions.fill_disk(duration_s)
            case FaultKind.READ_ONLY:
                _try_for(2.0, lambda: conditions.make_read_only(duration_s))
            case FaultKind.NO_FILES:
                blows.take_files(duration_s)
            case FaultKind.NO_PIDS:
                conditions.take_pids(duration_s)
            case FaultKind.NO_MEMORY | FaultKind.OOM_KILL:
                is_killed = action.kind is FaultKind.OOM_KILL
                _try_for(1.0, lambda: blows.take_memory(action.spare_bytes, is_killed=is_killed))
            case FaultKind.CLOCK_STEP:
                conditions.move_clock(action.clock_s, duration_s)
            case FaultKind.REFUSE:
                conditions.refuse(duration_s)
            case FaultKind.ARCHIVE_GONE:
                blows.remove_archive(self._wires.control.deployment_of(identifier), action.sweep)
            case FaultKind.EXPIRED_CERTIFICATE | FaultKind.OTHER_CERTIFICATE:
                self._show_certificate(
                    is_expired=action.kind is FaultKind.EXPIRED_CERTIFICATE, for_s=duration_s
                )
            case _:
                assert_never(action.kind)

    def _show_certificate(self, *, is_expired: bool, for_s: float) -> None:
        self._wires.show_certificate(is_expired=is_expired)
        time.sleep(for_s)
        self._wires.show_good_certificate()


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

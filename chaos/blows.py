"""What is done to the processes and files of a host."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

from chaos.conditions import NotPossibleError
from chaos.records import RECORDER, WAITING, Record, is_running, shown_as
from chaos.schedule import Sweep

if TYPE_CHECKING:
    import subprocess

    from chaos.host import Host


class Blows:
    """Each strikes what runs at that moment; where there is nothing, NotPossibleError says so."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stopped: set[int] = set()

    def kill_worker(self) -> None:
        """SIGKILL to the worker of a command."""
        _, pid = self._some("worker")
        # Stopped first: it might be done with this command, and begin the next one, while we look.
        self._send(pid, signal.SIGSTOP)
        self._host.harm.workers |= {
            record.identifier for record in self._host.records() if record.pid_of("worker") == pid
        }
        self._send(pid, signal.SIGKILL)

    def kill_waiting_worker(self) -> None:
        """SIGKILL to a worker that waits for the next command."""
        pid = self._shown_as(WAITING)
        self._send(pid, signal.SIGSTOP)
        if WAITING not in shown_as(pid):
            self._send(pid, signal.SIGCONT)
            raise NotPossibleError("it had just begun with a command")
        self._send(pid, signal.SIGKILL)

    def kill_hook(self) -> None:
        """SIGKILL to a hook, not to what it has started."""
        _, pid = self._some("script")
        self._host.harm.hooks.add(pid)
        self._send(pid, signal.SIGKILL)

    def kill_recorder(self) -> None:
        """SIGKILL to a process that reads what hooks print; the hook must not notice."""
        self._send(self._shown_as(RECORDER), signal.SIGKILL)

    def drain(self, duration_s: float) -> None:
        """No command is taken for a while."""
        if self._host.agentctl("drain", "--timeout", "0") not in (0, 1):
            raise NotPossibleError("the mark could not be written")
        time.sleep(duration_s)
        while self._host.agentctl("drain", "--undo"):
            time.sleep(0.1)

    def kill_daemon(self) -> None:
        """SIGKILL to the daemon."""
        daemon = self._daemon()
        daemon.kill()
        daemon.wait()

    def stop_for(self, kind: str, duration_s: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        pid = self._found(kind)
        if kind == "script":
            self._host.harm.stopped_hooks.add(pid)
        self._send(pid, signal.SIGSTOP)
        self._stopped.add(pid)
        time.sleep(duration_s)
        self._send_quietly(pid, signal.SIGCONT)

    def reboot(self, duration_s: float) -> None:
        """Everything ends at once, and another boot begins."""
        if os.geteuid() != 0:
            raise NotPossibleError("another boot id needs root")
        self._host.crash(min(duration_s, 0.5))

    def take_files(self, duration_s: float) -> None:
        """The daemon can open no file for a while, nor can the workers that it starts meanwhile."""
        self._host.conditions.take_files(self._daemon().pid, self._host.processes, duration_s)

    def take_memory(self, spare_bytes: int, duration_s: float) -> None:
        """The worker of a command gets no more memory for a while, nor does what it starts."""
        self._host.conditions.take_memory(self._some("worker")[1], spare_bytes)
        time.sleep(duration_s)
        self._host.conditions.give_memory(self._host.processes())

    def run_out_of_memory(self, spare_bytes: int, duration_s: float) -> None:
        """The worker of a command is killed for wanting more memory within this time, or what it starts is."""
        self._host.conditions.run_out_of_memory(self._some("worker")[1], spare_bytes)
        time.sleep(duration_s)
        self._host.conditions.give_memory(self._host.processes())

    def remove_archive(self, deployment_id: str, sweep: Sweep) -> None:
        """The unpacked revision of this deployment is gone, as after a cleaner of temporary files."""
        for archive in self._host.root.glob(f"*/{deployment_id}/deployment-archive"):
            swept = archive.parent if sweep is Sweep.DEPLOYMENT else archive
            # Gone at once, so that it can be told what began afterwards.
            aside = self._host.root / f"swept-{deployment_id}"
            try:
                swept.rename(aside)
                if sweep is Sweep.CONTENTS:
                    archive.mkdir()
                self._host.harm.gone[deployment_id] = time.time()
                shutil.rmtree(aside)
            except OSError as error:
                raise NotPossibleError(f"the archive can't be removed: {error.strerror}") from None
            return
        raise NotPossibleError("there is no archive")

    def _found(self, kind: str) -> int:
        if kind == "daemon":
            return self._daemon().pid
        return self._shown_as(WAITING) if kind == "waiting" else self._some(kind)[1]

    def _shown_as(self, name: str) -> int:
        for pid in self._host.processes():
            if name in shown_as(pid):
                return pid
        raise NotPossibleError(f"nothing runs that shows itself as `{name}`")

    def _daemon(self) -> subprocess.Popen[bytes]:
        daemon = self._host.daemon
        if daemon is None or daemon.poll() is not None:
            raise NotPossibleError("no daemon runs")
        return daemon

    def _some(self, kind: str) -> tuple[Record, int]:
        for record in reversed(list(self._host.records())):
            pid = record.pid_of(kind)
            if pid and is_running(pid) and pid in self._host.processes():
                return record, pid
        raise NotPossibleError(f"no {kind} runs")

    def _send(self, pid: int, number: signal.Signals) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            raise NotPossibleError("it had just ended") from None

    def _send_quietly(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(NotPossibleError):
            self._send(pid, number)

    def heal(self) -> None:
        """Whatever lasts is over."""
        for pid in self._stopped:
            if pid in self._host.processes():
                self._send_quietly(pid, signal.SIGCONT)

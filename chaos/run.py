"""One run: deployments on a fresh host, faults meanwhile, and a look at what came of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from typing_extensions import assert_never

from chaos.checks import COMPLETE, Evidence, find_violations
from chaos.host import Host, NotPossibleError
from chaos.proxy import Proxy
from chaos.revision import content_of, digest_of, make_bundle, read_tree
from chaos.schedule import Action, FaultKind, Schedule, Script

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chaos.checks import Event
    from chaos.servers import Servers

_DEPLOYMENT_S = 90.0
_QUIET_S = 30.0
_EVENT_S = 20.0
_MARK = "mark of an ongoing deployment"
_DISK_FAULTS = frozenset((FaultKind.FULL_DISK, FaultKind.READ_ONLY))
_MAX_RESIDENT_KIB = 40 * 1024


@dataclass(kw_only=True)
class Outcome:
    """What a run has shown.

    Attributes:
        applied: faults that took place, by kind, in order.
        skipped: those that could not, with the reason.
        network: number of exchanges harmed, by kind.
        completions: reports that the endpoint took.
    """

    seed: int
    violations: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    network: dict[str, int] = field(default_factory=dict)
    completions: int = 0
    seconds: float = 0.0
    resident_kib: int = 0


class Run:
    """One run. `carry_out` may be called once."""

    def __init__(self, schedule: Schedule, servers: Servers, slot: Slot) -> None:
        self.schedule = schedule
        self._servers, self._slot = servers, slot
        self.proxy = Proxy(servers.endpoint, seed=schedule.seed, share=schedule.network)
        directory = slot.scratch / f"run-{schedule.seed}"
        self.host = Host(directory, slot.identity_file, servers.ca_file, servers.s3_url)
        self.outcome = Outcome(seed=schedule.seed)
        self._group = f"g{schedule.seed}-{time.time_ns() % 10**8}"
        self._deployments: dict[str, Script] = {}
        self._numbers: dict[str, int] = {}
        self._over = threading.Event()
        self._known: set[str] = set()
        self._applied: set[FaultKind] = set()

    def carry_out(self, evidence_directory: Path) -> Outcome:
        """Run, look, and leave nothing but evidence of violations."""
        began = time.monotonic()
        try:
            self._prepare()
            self._act()
            self._look()
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            self.outcome.violations.append(f"the run itself broke: {type(error).__name__}: {error}")
        finally:
            self._over.set()
            self.outcome.seconds = round(time.monotonic() - began, 1)
            self._note_exchanges()
            if self.outcome.violations:
                self._keep_evidence(evidence_directory)
            self.host.clean_up()
            self.proxy.close()
        return self.outcome

    # -- doing -------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self.host.prepare(self.schedule, self.proxy)
        self._servers.add_group(self._group, self._slot.name)
        for number, script in enumerate((*self.schedule.revisions, Script.PLAIN), start=1):
            bundle = make_bundle(number, script, destination=self.host.app, marks=self.host.marks)
            self._servers.upload(self._key(number), bundle)
        self.host.start()

    def _key(self, number: int) -> str:
        return f"{self._group}-{number}.tgz"

    def _act(self) -> None:
        """Deploy one revision after the other, under faults."""
        self.proxy.start_faults()
        actors = [
            threading.Thread(target=self._carry_out, args=(action,), daemon=True)
            for action in self.schedule.actions
        ]
        keeper = threading.Thread(target=self._keep_up, daemon=True)
        for thread in (*actors, keeper):
            thread.start()
        timer = threading.Timer(25.0, self.proxy.stop_faults)
        timer.daemon = True
        timer.start()
        for number, script in enumerate(self.schedule.revisions, start=1):
            self._deploy(number, script)
        for thread in actors:
            thread.join()
        timer.cancel()
        self.proxy.stop_faults()
        self.host.heal()

    def _keep_up(self) -> None:
        """What a service manager does: a daemon that has ended is started again."""
        while not self._over.wait(0.3):
            with contextlib.suppress(OSError):
                self.host.keep_up()

    def _deploy(self, number: int, script: Script) -> str:
        deployment_id = self._servers.deploy(self._group, self._key(number))
        self._deployments[deployment_id], self._numbers[deployment_id] = script, number
        status = self._servers.wait(deployment_id, _DEPLOYMENT_S)
        if status not in ("Succeeded", "Failed"):
            raise RuntimeError(f"deployment {deployment_id} of revision {number} is {status} for too long")
        return status

    def _carry_out(self, action: Action) -> None:
        before = 0
        if action.event and not self.proxy.wait_for_start(action.event, since=before, timeout_s=_EVENT_S):
            self.outcome.skipped.append(f"{action.kind.value}: no {action.event} came")
            return
        time.sleep(action.delay_s)
        try:
            # Noted before: what a fault causes must not look as if nothing had been done.
            self._applied.add(action.kind)
            self._fault(action)
        except NotPossibleError as reason:
            self.outcome.skipped.append(f"{action.kind.value}: {reason}")
        else:
            self.outcome.applied.append(action.kind.value)

    def _fault(self, action: Action) -> None:  # noqa: C901, PLR0912 - one for each kind of fault
        host, duration_s = self.host, action.duration_s
        match action.kind:
            case FaultKind.KILL_DAEMON:
                host.kill_daemon()
            case FaultKind.KILL_WORKER:
                _try_for(1.0, host.kill_worker)
            case FaultKind.KILL_HOOK:
                _try_for(1.0, host.kill_hook)
            case FaultKind.KILL_RECORDER:
                _try_for(1.0, host.kill_recorder)
            case FaultKind.STOP_DAEMON:
                host.stop_for("daemon", duration_s)
            case FaultKind.STOP_WORKER:
                _try_for(1.0, lambda: host.stop_for("worker", duration_s))
            case FaultKind.STOP_HOOK:
                _try_for(1.0, lambda: host.stop_for("script", duration_s))
            case FaultKind.RESTART_DAEMON:
                if host.end() is None:
                    self.outcome.violations.append("the daemon did not end within 15 s of SIGTERM")
                host.start()
            case FaultKind.DRAIN:
                host.drain(duration_s)
            case FaultKind.KILL_ENDPOINT:
                self._servers.kill_control()
            case FaultKind.REBOOT:
                host.reboot(duration_s)
            case FaultKind.FULL_DISK:
                host.fill_disk(duration_s)
            case FaultKind.READ_ONLY:
                _try_for(2.0, lambda: host.make_read_only(duration_s))
            case FaultKind.NO_FILES:
                host.take_files(duration_s)
            case FaultKind.NO_PIDS:
                host.take_pids(duration_s)
            case FaultKind.CLOCK_STEP:
                host.move_clock(action.clock_s, duration_s)
            case _:
                assert_never(action.kind)

    # -- looking -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Wait until all is quiet, and check everything; then deploy once more."""
        # A disk that could not be written keeps a mark; the next command removes it.
        self._check_quiet(*([_MARK] if self._applied & _DISK_FAULTS else ()))
        self._known = {item for item in self._known if not item.startswith(_MARK)}
        self._check_tree()
        last = len(self.schedule.revisions) + 1
        status = self._deploy(last, Script.PLAIN)
        if status != "Succeeded":
            self._violated(f"the last deployment, without faults, has {status}")
        self._check_quiet()
        self._check_tree()
        self.outcome.violations += find_violations(self._evidence())
        self._check_daemon()

    def _violated(self, text: str) -> None:
        self.outcome.violations.append(text)

    def _check_quiet(self, *tolerated: str) -> None:
        """Afterwards nothing is left that was not known, but what begins with one of these."""
        deadline = time.monotonic() + _QUIET_S
        while (left := self._left()) - self._known and time.monotonic() < deadline:
            time.sleep(0.05)
        for item in sorted(left - self._known):
            if item.startswith(tolerated):
                continue
            self._violated(f"{item} is left behind")
        self._known |= left

    def _left(self) -> set[str]:
        state, root = self.host.state, self.host.root
        found = [f"job record {path.name}" for path in state.glob("jobs/*")]
        found += [f"{_MARK} {path.name}" for path in root.glob("ongoing-deployment/*")]
        found += ["the throttle file"] if (state / "throttle.json").exists() else []
        daemon = self.host.daemon.pid if self.host.daemon else 0
        # What a killed hook has started is its own affair, as on any host.
        if not self.host.harm.hooks:
            found += [f"process {pid} {_command(pid)}" for pid in self.host.processes() if pid != daemon]
        return set(found)

    def _check_tree(self) -> None:
        """The destination holds exactly one revision: that of the last Install that went well."""
        names = {digest_of(content_of(number)): number for number in self._numbers.values()}
        found = read_tree(self.host.app) if self.host.app.exists() else {}
        number = names.get(digest_of(found), 0) if found else 0
        if found and not number:
            self._violated(
                f"the destination holds no revision: {len(found)} files, {self._differences(found)}"
            )
            return
        allowed = {0}
        for event in self._events():
            if event.name != "Install":
                continue
            if event.status == "Succeeded":
                allowed = {self._numbers[event.deployment_id]}
            elif "had been completed" in event.message:
                allowed = allowed | {self._numbers[event.deployment_id]}
        if number not in allowed:
            self._violated(f"the destination holds revision {number}, and not one of {sorted(allowed)}")

    def _differences(self, found: dict[str, bytes]) -> str:
        parts = []
        for number in sorted(set(self._numbers.values())):
            wanted = content_of(number)
            missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
            other = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
            parts.append(
                f"from {number}: missing {len(missing)} {missing[:3]}, extra {len(extra)} {extra[:3]}, "
                f"other {len(other)} {other[:3]}"
            )
        return "; ".join(parts)

    def _events(self) -> list[Event]:
        return [
            event
            for deployment_id in self._deployments
            for event in self._servers.events(deployment_id, self._slot.name)
        ]

    def _check_daemon(self) -> None:
        self.outcome.resident_kib = self.host.resident_kib()
        if self.outcome.resident_kib > _MAX_RESIDENT_KIB:
            self._violated(f"the daemon has grown to {self.outcome.resident_kib} KiB")
        self.host.is_down = True
        self._over.set()
        code = self.host.end()
        if code != 0:
            self._violated(f"the daemon ended with {code} after SIGTERM")

    def _evidence(self) -> Evidence:
        marks = []
        for line in self.host.marks.read_text().splitlines():
            deployment, event, what, pid = line.split()
            marks.append((deployment, event, what, int(pid)))
        harm = self.host.harm
        return Evidence(
            exchanges=self.proxy.exchanges,
            marks=marks,
            events=self._events(),
            scripts=self._deployments,
            killed_workers=frozenset(harm.workers),
            killed_hooks=frozenset(harm.hooks),
            stopped_hooks=frozenset(harm.stopped_hooks),
            applied=frozenset(self._applied),
        )

    def _note_exchanges(self) -> None:
        for exchange in self.proxy.exchanges:
            kind = exchange.fault.value
            self.outcome.network[kind] = self.outcome.network.get(kind, 0) + 1
            self.outcome.completions += exchange.operation == COMPLETE and exchange.endpoint_status == 200

    def _keep_evidence(self, directory: Path) -> None:
        place = directory / f"seed-{self.schedule.seed}"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(
            self.host.directory,
            place / "host",
            symlinks=True,
            ignore_dangling_symlinks=True,
            dirs_exist_ok=True,
        )
        facts = {"schedule": asdict(self.schedule), "outcome": asdict(self.outcome)}
        (place / "run.json").write_text(json.dumps(facts, indent=1, default=lambda value: value.value))
        with (place / "exchanges.jsonl").open("w") as file:
            for exchange in self.proxy.exchanges:
                file.write(json.dumps(asdict(exchange), default=lambda value: value.value) + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A registered host of which one run after the other makes use."""

    name: str
    identity_file: Path
    scratch: Path


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


def _command(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""

"""One run: deployments on a fresh host, faults meanwhile, and a look at what came of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.checks import COMPLETE, Deployment, Evidence, find_violations
from chaos.faults import DISK_FAULTS
from chaos.host import Host, HostServers
from chaos.inflict import Inflictor
from chaos.looking import MARK, Look
from chaos.revision import make_bundle
from chaos.schedule import Schedule, Script
from chaos.wires import Wires

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from chaos.checks import Event
    from chaos.servers import Servers

_DEPLOYMENT_S = 90.0
_FAULTS_S = 25.0
_MAX_RESIDENT_KIB = 40 * 1024


@dataclass(kw_only=True)
class Outcome:
    """What a run has shown.

    Attributes:
        applied: faults that took place, by kind, in order.
        skipped: those that could not, with the reason.
        exchanges: number of exchanges with the control endpoint, by what happened to them.
        downloads: number of requests to the S3 server, by what happened to them.
        handshakes: number of TLS handshakes with both, by what happened to them.
        answers: what the administrator's command has said, and how often.
        killed_for_memory: processes that the kernel has killed.
        completions: reports that the endpoint took.
    """

    seed: int
    violations: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    exchanges: dict[str, int] = field(default_factory=dict)
    downloads: dict[str, int] = field(default_factory=dict)
    handshakes: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    killed_for_memory: int = 0
    completions: int = 0
    seconds: float = 0.0
    resident_kib: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A registered host of which one run after the other makes use."""

    name: str
    identity_file: Path
    scratch: Path


class Run:
    """One run. `carry_out` may be called once."""

    def __init__(self, schedule: Schedule, servers: Servers, slot: Slot) -> None:
        self.schedule = schedule
        self._servers, self._slot = servers, slot
        self._wires = Wires(schedule, servers)
        told = HostServers(
            identity_file=slot.identity_file,
            control_url=self._wires.control.url,
            s3_url=self._wires.s3.url,
            signer_ca_file=servers.ca_file,
            tls_ca_file=self._wires.tls_ca_file,
        )
        self._host = Host(slot.scratch / f"run-{schedule.seed}", told)
        self._look = Look(self._host)
        self._inflictor = Inflictor(self._host, self._wires, servers)
        self.outcome = Outcome(seed=schedule.seed)
        self._group = f"g{schedule.seed}-{time.time_ns() % 10**8}"
        self._etags: dict[int, str] = {}
        self._deployments: dict[str, Deployment] = {}
        self._over = threading.Event()

    def carry_out(self, evidence_directory: Path) -> Outcome:
        """Run, look, and leave nothing but evidence of violations."""
        began = time.monotonic()
        try:
            self._prepare()
            self._act()
            self._examine()
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            self.outcome.violations.append(f"the run itself broke: {type(error).__name__}: {error}")
        finally:
            self._over.set()
            self.outcome.seconds = round(time.monotonic() - began, 1)
            self._note()
            if self.outcome.violations:
                self._keep_evidence(evidence_directory)
            self._host.clean_up()
            self._wires.close()
        return self.outcome

    # -- doing -------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._host.prepare(self.schedule)
        self._servers.add_group(self._group, self._slot.name)
        for number, script in enumerate((*self.schedule.revisions, Script.PLAIN), start=1):
            bundle = make_bundle(
                number,
                script,
                self.schedule.bundle_type,
                destination=self._host.app,
                marks=self._host.marks,
            )
            self._etags[number] = self._servers.upload(self._key(number), bundle)
        self._host.start()

    def _key(self, number: int) -> str:
        return f"{self._group}-{number}.{self.schedule.bundle_type.value}"

    def _act(self) -> None:
        """Deploy one revision after the other, under faults."""
        self._wires.start_faults()
        actors = [
            threading.Thread(target=self._inflictor.carry_out, args=(action,), daemon=True)
            for action in self.schedule.actions
        ]
        keeper = threading.Thread(target=self._keep_up, daemon=True)
        for thread in (*actors, keeper):
            thread.start()
        timer = threading.Timer(_FAULTS_S, self._wires.stop_faults)
        timer.daemon = True
        timer.start()
        for number, script in enumerate(self.schedule.revisions, start=1):
            if self._deploy(number, script) == "Succeeded":
                self._violated(*self._look.find_other_than(number))
        self._wires.control.give_up()
        for thread in actors:
            thread.join()
        timer.cancel()
        self._wires.stop_faults()
        self._inflictor.heal()

    def _keep_up(self) -> None:
        """What a service manager does: a daemon that has ended is started again."""
        while not self._over.wait(0.3):
            with contextlib.suppress(OSError):
                self._host.keep_up()

    def _deploy(self, number: int, script: Script) -> str:
        key = self._key(number)
        etag = self._etags[number] if self.schedule.names_etag else ""
        deployment_id = self._servers.deploy(self._group, key, self.schedule.bundle_type.value, etag)
        self._deployments[deployment_id] = Deployment(number=number, script=script, key=key)
        status = self._servers.wait(deployment_id, _DEPLOYMENT_S)
        if status not in ("Succeeded", "Failed"):
            raise RuntimeError(f"deployment {deployment_id} of revision {number} is {status} for too long")
        return status

    # -- looking -----------------------------------------------------------------------------------

    def _examine(self) -> None:
        """Wait until all is quiet, and check everything; then deploy once more."""
        # A disk that could not be written keeps a mark; the next command removes it.
        self._violated(*self._look.find_left(*([MARK] if self._inflictor.begun & DISK_FAULTS else ())))
        self._check_tree()
        status = self._deploy(len(self.schedule.revisions) + 1, Script.PLAIN)
        if status != "Succeeded":
            self._violated(f"the last deployment, without faults, has {status}")
        self._violated(*self._look.find_left())
        self._check_tree()
        self._violated(*find_violations(self._evidence()), *self._inflictor.violations)
        self._check_daemon()

    def _violated(self, *texts: str) -> None:
        self.outcome.violations += texts

    def _check_tree(self) -> None:
        numbers = {name: deployment.number for name, deployment in self._deployments.items()}
        self._violated(*self._look.find_mixture(numbers, self._events()))

    def _events(self) -> list[Event]:
        return [
            event
            for deployment_id in self._deployments
            for event in self._servers.events(deployment_id, self._slot.name)
        ]

    def _check_daemon(self) -> None:
        self.outcome.resident_kib = self._host.resident_kib()
        if self.outcome.resident_kib > _MAX_RESIDENT_KIB:
            self._violated(f"the daemon has grown to {self.outcome.resident_kib} KiB")
        self._host.is_down = True
        self._over.set()
        code = self._host.end()
        if code != 0:
            self._violated(f"the daemon ended with {code} after SIGTERM")

    def _evidence(self) -> Evidence:
        harm = self._host.harm
        return Evidence(
            exchanges=self._wires.control.exchanges,
            downloads=self._wires.s3.downloads,
            marks=_read_marks(self._host.marks),
            answers=_read_marks(self._host.conditions.answers),
            events=self._events(),
            deployments=self._deployments,
            has_pre_accept=self.schedule.pre_accept,
            killed_workers=frozenset(harm.workers),
            killed_hooks=frozenset(harm.hooks),
            stopped_hooks=frozenset(harm.stopped_hooks),
            gone=dict(harm.gone),
            applied=frozenset(self._inflictor.begun),
        )

    def _note(self) -> None:
        outcome = self.outcome
        outcome.applied, outcome.skipped = self._inflictor.applied, self._inflictor.skipped
        outcome.exchanges, outcome.downloads, outcome.handshakes = map(dict, self._wires.seen())
        outcome.completions = sum(
            exchange.operation == COMPLETE and exchange.endpoint_status == 200
            for exchange in self._wires.control.exchanges
        )
        outcome.killed_for_memory = self._host.conditions.killed_for_memory()
        with contextlib.suppress(OSError, ValueError):
            outcome.answers = dict(
                Counter(answer for _, _, answer, _ in _read_marks(self._host.conditions.answers))
            )

    def _keep_evidence(self, directory: Path) -> None:
        place = directory / f"seed-{self.schedule.seed}"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(
            self._host.directory,
            place / "host",
            symlinks=True,
            ignore_dangling_symlinks=True,
            dirs_exist_ok=True,
        )
        facts = {"schedule": asdict(self.schedule), "outcome": asdict(self.outcome)}
        (place / "run.json").write_text(json.dumps(facts, indent=1, default=lambda value: value.value))
        _write_lines(place / "exchanges.jsonl", self._wires.control.exchanges)
        _write_lines(place / "downloads.jsonl", self._wires.s3.downloads)


def _write_lines(path: Path, facts: Iterable[Any]) -> None:
    with path.open("w") as file:
        for each in facts:
            file.write(json.dumps(asdict(each), default=lambda value: value.value) + "\n")


def _read_marks(path: Path) -> list[tuple[str, str, str, int]]:
    """What scripts have written down there: deployment, event, word, pid."""
    if not path.exists():
        return []
    marks = []
    for line in path.read_text().splitlines():
        deployment, event, what, pid = line.split()
        marks.append((deployment, event, what, int(pid)))
    return marks

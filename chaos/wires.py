"""Everything between one host and its servers, and what harms it there."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chaos.listening import GOOD, Gate
from chaos.proxy import Proxy
from chaos.s3_proxy import S3Proxy

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.schedule import Schedule
    from chaos.servers import Servers


class Wires:
    """The two proxies of a host, each over TLS where the schedule wants it."""

    def __init__(self, schedule: Schedule, servers: Servers) -> None:
        seed, certificates = schedule.seed, servers.certificates
        self.tls_ca_file: Path | None = certificates.ca_file if schedule.tls else None
        self._gate = Gate(certificates, seed=seed) if schedule.tls else None
        self._s3_gate = Gate(certificates, seed=seed + 1) if schedule.tls else None
        self._handshakes = schedule.handshakes
        self.control = Proxy(servers.endpoint, seed=seed, share=schedule.network, gate=self._gate)
        self.s3 = S3Proxy(servers.s3, seed=seed, share=schedule.s3, gate=self._s3_gate)

    def start_faults(self) -> None:
        """From now on everything is harmed."""
        self.control.start_faults()
        self.s3.start_faults()
        for gate in self._gates():
            gate.share = self._handshakes

    def stop_faults(self) -> None:
        """From now on nothing is harmed any more."""
        self.control.stop_faults()
        self.s3.stop_faults()
        for gate in self._gates():
            gate.share = 0.0
            gate.show(GOOD)

    def show_certificate(self, which: str) -> None:
        """The control endpoint shows this certificate: GOOD, EXPIRED or OTHER."""
        if self._gate is not None:
            self._gate.show(which)
            if which != GOOD:
                # Connections that are kept would never see it.
                self.control.break_connections()

    def seen(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        """How often everything happened: to exchanges with the endpoint, to downloads, to handshakes."""
        handshakes: Counter[str] = Counter()
        for gate in self._gates():
            handshakes.update(gate.seen)
        return (
            Counter(exchange.fault.value for exchange in self.control.exchanges),
            Counter(download.fault.value for download in self.s3.downloads),
            handshakes,
        )

    def close(self) -> None:
        """Stop listening."""
        self.control.close()
        self.s3.close()

    def _gates(self) -> list[Gate]:
        return [gate for gate in (self._gate, self._s3_gate) if gate is not None]

"""A control endpoint that does nothing but answer at once, and note when it was asked."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import queue
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

HOST = "arn:aws:iam::123456789012:user/bench"
SPECIFICATION: dict[str, Any] = {
    "DeploymentId": "d-BENCH",
    "DeploymentGroupId": "group",
    "DeploymentGroupName": "bench",
    "ApplicationName": "bench",
    "Revision": {
        "RevisionType": "S3",
        "S3Revision": {"Bucket": "bucket", "Key": "key", "BundleType": "tar"},
    },
}


class Endpoint:
    """Serves one agent over TLS; use as a context manager.

    `specification` is what the commands that are run from now on belong to; it can be set anew at any time.
    """

    def __init__(self, scratch: Path) -> None:
        self.specification = SPECIFICATION
        self.ca_file = scratch / "ca.pem"
        self.polls = 0
        self._poll_at = 0.0
        self._commands: queue.Queue[dict[str, Any]] = queue.Queue()
        self._delivered_at = 0.0
        self._completed: queue.Queue[tuple[float, dict[str, Any]]] = queue.Queue()
        self._polled = threading.Condition()
        self._signed: tuple[dict[str, Any], str] | None = None
        self._make_certificate(scratch)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Endpoint:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()

    def wait_for_poll(self, after: float) -> float:
        """When the first poll after this moment came (monotonic seconds)."""
        with self._polled:
            if not self._polled.wait_for(lambda: self._poll_at > after, 30):
                raise TimeoutError("the agent does not poll")
            return self._poll_at

    def run_command(self, name: str, *, number: int) -> float:
        """Seconds from the moment that the command was delivered to its completion."""
        self._commands.put(
            {
                "HostCommandIdentifier": f"bench-{time.time_ns()}-{number}",
                "HostIdentifier": HOST,
                "DeploymentExecutionId": f"us-east-1/1/d-BENCH/{number}",
                "CommandName": name,
            }
        )
        completed_at, diagnostics = self._completed.get(timeout=60)
        if diagnostics["error_code"] != 0:
            raise AssertionError(f"{name} failed: {diagnostics['message']}")
        return completed_at - self._delivered_at

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with (
                self._tls.wrap_socket(plain, server_side=True) as connection,
                connection.makefile("rb") as stream,
            ):
                while True:
                    headers = {}
                    if not stream.readline():
                        return
                    while line := stream.readline().strip():
                        name, _, value = line.decode().partition(":")
                        headers[name.lower()] = value.strip()
                    request = stream.read(int(headers.get("content-length", 0)))
                    self._answer(connection, headers["x-amz-target"].rpartition(".")[2], request)
        except OSError:
            return

    def _answer(self, connection: ssl.SSLSocket, operation: str, request: bytes) -> None:
        now = time.monotonic()
        answer: dict[str, Any] = {}
        if operation == "PollHostCommand":
            answer = self._poll(now)
        elif operation == "GetDeploymentSpecification":
            envelope = {"Format": "PKCS7/JSON", "Payload": self._envelope()}
            answer = {
                "DeploymentSystem": "CodeDeploy",
                "DeploymentSpecification": {"GenericEnvelope": envelope},
            }
        elif operation == "PutHostCommandAcknowledgement":
            answer = {"CommandStatus": "InProgress"}
        elif operation == "PutHostCommandComplete":
            diagnostics = json.loads(json.loads(request)["Diagnostics"]["Payload"])
            self._completed.put((now, diagnostics))
        body = json.dumps(answer).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def _poll(self, now: float) -> dict[str, Any]:
        with self._polled:
            self.polls += 1
            self._poll_at = now
            self._polled.notify_all()
        if self._commands.empty():
            return {}
        self._delivered_at = time.monotonic()
        return {"HostCommand": self._commands.get()}

    def _make_certificate(self, scratch: Path) -> None:
        """One certificate serves TLS, signs specifications, and is its own CA."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
        now = dt.datetime.now(dt.timezone.utc)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.ca_file.write_bytes(pem)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (scratch / "server.pem").write_bytes(pem + private)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(scratch / "server.pem")
        self._signer = (certificate, key)

    def _envelope(self) -> str:
        if self._signed is None or self._signed[0] is not self.specification:
            builder = pkcs7.PKCS7SignatureBuilder().set_data(json.dumps(self.specification).encode())
            certificate, key = self._signer
            signed = builder.add_signer(certificate, key, hashes.SHA256())
            text = signed.sign(serialization.Encoding.PEM, [pkcs7.PKCS7Options.Binary]).decode()
            self._signed = (self.specification, text)
        return self._signed[1]

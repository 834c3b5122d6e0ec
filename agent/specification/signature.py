"""Opening an envelope: the content comes out only if the signature over it holds."""

from __future__ import annotations

import binascii
import ctypes
import os
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.specification.envelope import LastSeen, OpenedEnvelope, Signer
from agent.specification.libcrypto import LibcryptoUnavailable, load_libcrypto

if TYPE_CHECKING:
    from pathlib import Path

    from agent.specification.envelope import Envelope, SignerTrust

SIGNED_FORMAT = "PKCS7/JSON"
UNSIGNED_FORMAT = "TEXT/JSON"

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_WHITE_SPACE = re.compile(r"\s+")

# From the headers of OpenSSL, where these are macros.
_NID_DATA = 21
_NID_SIGNED_DATA = 22
_CMS_NO_SIGNER_CERT_VERIFY = 0x20
_BIO_CTRL_INFO = 3
_PARTIAL_CHAIN = 0x80000
_NAME_RFC2253 = 0x1110317

_TRY_AGAIN = (
    "Create the deployment again; if that fails too, ask who runs the control endpoint, "
    "and whether something between it and this host changes its answers."
)


def open_envelope(envelope: Envelope, *, trust: SignerTrust) -> OpenedEnvelope:
    """The signed content, intact, and who signed it.

    With a certificate authority, the signer is one of its own and valid today. With LastSeen the
    signer is anybody: the caller compares it with the one it saw last.

    Raises:
        CommandFailure: anything else than that.
    """
    _require_content(envelope)
    _require_signed_format(envelope.format)
    return _verified(_der(envelope.payload), trust)


def _require_content(envelope: Envelope) -> None:
    if not envelope.format and not envelope.payload.strip():
        raise CommandFailure(
            "specification-missing",
            "The control endpoint has answered without a deployment specification, so there is nothing to carry out. "
            "Create the deployment again; if that fails in the same way, the fault is the endpoint's: ask who runs it.",
        )
    if not envelope.format:
        raise CommandFailure(
            "specification-format-unknown",
            "The control endpoint does not say in which format its deployment specification is, and this agent reads "
            f"{SIGNED_FORMAT} only. Create the deployment again; if that fails in the same way, ask who runs the endpoint.",
        )


def _require_signed_format(name: str) -> None:
    if name == SIGNED_FORMAT:
        return
    if name == UNSIGNED_FORMAT:
        raise CommandFailure(
            "specification-unsigned",
            "The DeploymentSpecification is plain text without a signature, so anybody may have written it. "
            "Make the control endpoint sign what it sends; for a bundle on this host use agentctl deploy.",
        )
    raise CommandFailure(
        "specification-format-unknown",
        f"The DeploymentSpecification has the unknown format {name[:64]!r}, and this agent reads signed PKCS7 only. "
        "Update the agent, if the control endpoint is newer, and else ask who runs the endpoint.",
    )


def _der(payload: str) -> bytes:
    """The bytes of the message: the payload is PEM, whatever its label, or bare base64."""
    if not payload.strip():
        raise _unreadable("it is empty")
    _, has_label, after = payload.partition("-----BEGIN ")
    body = after.partition("-----")[2].partition("-----")[0] if has_label else payload
    text = _WHITE_SPACE.sub("", body)
    if not _BASE64.fullmatch(text):
        raise _unreadable("it is neither PEM nor base64")
    try:
        return binascii.a2b_base64(text)
    except binascii.Error as error:
        raise _unreadable("its base64 is damaged") from error


def _unreadable(reason: str) -> CommandFailure:
    return CommandFailure(
        "specification-envelope-unreadable",
        f"The deployment specification is no signed message: {reason}. {_TRY_AGAIN}",
    )


def _verified(der: bytes, trust: SignerTrust) -> OpenedEnvelope:
    with ExitStack() as owned:
        openssl = _OpenSSL(owned)
        message = openssl.parse(der)
        content = openssl.content(message)
        certificates = openssl.signers(message)
        signer = openssl.describe(certificates[0])
        if not isinstance(trust, LastSeen):  # so that no other kind of trust is ever taken for none
            store = openssl.store(trust.file)
            for certificate in certificates:
                openssl.require_trusted(certificate, message, store, trust.file, signer)
        return OpenedEnvelope(content=content, signer=signer)


class _OpenSSL:
    """Calls into libcrypto; all that they allocate is freed when `owned` closes."""

    def __init__(self, owned: ExitStack) -> None:
        try:
            self._lib = load_libcrypto()
        except LibcryptoUnavailable as error:
            raise CommandFailure(
                "specification-verifier-missing",
                f"This Python has no OpenSSL that verifies signed messages: {error}. "
                "Run the agent with a Python whose ssl module is linked with OpenSSL 1.1.1 or later.",
            ) from error
        self._owned = owned
        self._lib.ERR_clear_error()
        owned.callback(self._lib.ERR_clear_error)  # what is left there would surprise Python's ssl

    def parse(self, der: bytes) -> int:
        """A signed message whose content is plain data."""
        position = ctypes.c_char_p(der)
        message = self._lib.d2i_CMS_ContentInfo(None, ctypes.byref(position), len(der))
        if not message:
            raise _unreadable(self._reason())
        self._owned.callback(self._lib.CMS_ContentInfo_free, message)
        if self._lib.OBJ_obj2nid(self._lib.CMS_get0_type(message)) != _NID_SIGNED_DATA:
            raise _unreadable("it is a message of another kind, such as an encrypted one")
        if self._lib.OBJ_obj2nid(self._lib.CMS_get0_eContentType(message)) != _NID_DATA:
            raise _unreadable("it is signed, but holds something else than data")
        return int(message)

    def content(self, message: int) -> bytes:
        """What all signers of the message signed; whoever they are."""
        output = self._memory()
        if not self._lib.CMS_verify(message, None, None, None, output, _CMS_NO_SIGNER_CERT_VERIFY):
            raise CommandFailure(
                "specification-signature-invalid",
                f"The signature of the deployment specification is not valid ({self._reason()}): "
                f"it was damaged or changed after it had been signed. {_TRY_AGAIN}",
            )
        return self._read(output)

    def signers(self, message: int) -> list[int]:
        """Certificates of the signers, owned by the message; at least one, once `content` has returned."""
        stack = self._lib.CMS_get0_signers(message)
        self._owned.callback(self._lib.OPENSSL_sk_free, stack)
        return [self._lib.OPENSSL_sk_value(stack, index) for index in range(self._lib.OPENSSL_sk_num(stack))]

    def describe(self, certificate: int) -> Signer:
        digest = ctypes.create_string_buffer(32)
        length = ctypes.c_uint()
        self._lib.X509_digest(certificate, self._lib.EVP_sha256(), digest, ctypes.byref(length))
        name = self._memory()
        self._lib.X509_NAME_print_ex(name, self._lib.X509_get_subject_name(certificate), 0, _NAME_RFC2253)
        return Signer(
            fingerprint=digest.raw.hex(), subject=self._read(name).decode("ascii", "backslashreplace")
        )

    def store(self, file: Path) -> int:
        """All certificates of the file, each an anchor of trust, even if another one has issued it."""
        store = self._lib.X509_STORE_new()
        self._owned.callback(self._lib.X509_STORE_free, store)
        if not self._lib.X509_STORE_load_locations(store, os.fsencode(file), None):
            raise CommandFailure(
                "specification-trust-unusable",
                f"The certificates in {file} can't be read ({self._reason()}), so no signature can be checked. "
                "Correct the file, or the setting deployment_signer_ca_file.",
            )
        self._lib.X509_STORE_set_flags(store, _PARTIAL_CHAIN)
        return int(store)

    def require_trusted(self, certificate: int, message: int, store: int, file: Path, signer: Signer) -> None:
        """The certificate leads to one in the store. Any purpose will do: signers of specifications have none."""
        enclosed = self._enclosed_certificates(message)
        context = self._lib.X509_STORE_CTX_new()
        self._owned.callback(self._lib.X509_STORE_CTX_free, context)
        ready = self._lib.X509_STORE_CTX_init(context, store, certificate, enclosed)
        if ready and self._lib.X509_verify_cert(context) == 1:
            return
        code = self._lib.X509_STORE_CTX_get_error(context)
        reason = self._lib.X509_verify_cert_error_string(code).decode("ascii", "replace")
        raise CommandFailure(
            "specification-signer-untrusted",
            f'The deployment specification is signed by "{signer.subject}" (SHA-256 {signer.fingerprint}), '
            f"which {file} does not vouch for: {reason}. If this signer is right, add its certificate, or the "
            "one that issued it, to that file; if it is not, somebody else is sending deployments to this host.",
        )

    def _enclosed_certificates(self, message: int) -> int | None:
        """A stack of the certificates that came with the message; they may link, but are not trusted."""
        stack: int | None = self._lib.CMS_get1_certs(message)
        self._owned.callback(self._free_certificates, stack)
        return stack

    def _free_certificates(self, stack: int | None) -> None:
        while stack and self._lib.OPENSSL_sk_num(stack) > 0:
            self._lib.X509_free(self._lib.OPENSSL_sk_pop(stack))
        self._lib.OPENSSL_sk_free(stack)

    def _memory(self) -> int:
        """A growing buffer."""
        bio = self._lib.BIO_new(self._lib.BIO_s_mem())
        self._owned.callback(self._lib.BIO_free, bio)
        return int(bio)

    def _read(self, bio: int) -> bytes:
        start = ctypes.c_void_p()
        length = self._lib.BIO_ctrl(bio, _BIO_CTRL_INFO, 0, ctypes.byref(start))
        return ctypes.string_at(start, length) if length > 0 else b""

    def _reason(self) -> str:
        """OpenSSL's words for what went wrong, from the cause to its effects."""
        reasons: list[str] = []
        while code := self._lib.ERR_get_error():
            text = self._lib.ERR_reason_error_string(code)
            # Since 3.0, a failed system call has no text of its own, but its errno.
            reason = text.decode("ascii", "replace") if text else os.strerror(code & 0x7FFFFFFF)
            if reason not in reasons:
                reasons.append(reason)
        return ", ".join(reasons) or "no reason given"

"""Only an intact message of the right signer is opened; everything else is refused with a reason."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import CommandFailure
from agent.specification import CertificateAuthority, Envelope, LastSeen, Signer, SignerTrust
from agent.specification.signature import open_envelope
from tests.specification import ber
from tests.specification.pki import DAY, Identity, issue, sign

CONTENT = b'{"DeploymentId": "d-1", "ApplicationName": "shop"}' * 20
NO_ATTRIBUTES = pkcs7.PKCS7Options.NoAttributes


@pytest.fixture(scope="module")
def authority() -> Identity:
    return issue("Test CA", is_authority=True)


@pytest.fixture(scope="module")
def ec_signer(authority: Identity) -> Identity:
    return issue("EC Signer", issuer=authority)


@pytest.fixture(scope="module")
def rsa_signer(authority: Identity) -> Identity:
    return issue("RSA Signer", issuer=authority, key=rsa.generate_private_key(65537, 2048))


@pytest.fixture(params=["rsa", "ec"])
def signer(request: pytest.FixtureRequest, rsa_signer: Identity, ec_signer: Identity) -> Identity:
    return rsa_signer if request.param == "rsa" else ec_signer


@pytest.fixture
def trust(authority: Identity, tmp_path: Path) -> CertificateAuthority:
    return trusting(authority, tmp_path)


def trusting(identity: Identity, directory: Path) -> CertificateAuthority:
    file = directory / "trusted.pem"
    file.write_bytes(identity.pem)
    return CertificateAuthority(file=file)


def signed(payload: str) -> Envelope:
    return Envelope(format="PKCS7/JSON", payload=payload)


def refusal(envelope: Envelope, trust: SignerTrust) -> CommandFailure:
    with pytest.raises(CommandFailure) as caught:
        open_envelope(envelope, trust=trust)
    return caught.value


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("with_attributes", [True, False], ids=["attributes", "bare"])
@pytest.mark.parametrize("depth", [0, 1, 3], ids=["primitive", "constructed", "nested"])
@pytest.mark.parametrize("indefinite", [False, True], ids=["definite", "indefinite"])
def test_every_valid_shape_of_a_signed_message_is_opened(
    signer: Identity, trust: CertificateAuthority, *, with_attributes: bool, depth: int, indefinite: bool
) -> None:
    """The service writes a constructed string today, and may write any other form tomorrow."""
    message = sign(CONTENT, signer, *(() if with_attributes else (NO_ATTRIBUTES,)))
    reshaped = ber.rewrite(message, depth=depth, indefinite=indefinite)

    opened = open_envelope(signed(ber.pem(reshaped)), trust=trust)

    assert opened.content == CONTENT


@pytest.mark.parametrize("label", ["PKCS7", "CMS", "PKCS #7 SIGNED DATA"])
def test_any_label_of_the_pem_form_will_do(
    label: str, ec_signer: Identity, trust: CertificateAuthority
) -> None:
    """Tools write PKCS7 or CMS over the same bytes."""
    opened = open_envelope(signed("\r\n" + ber.pem(sign(CONTENT, ec_signer), label)), trust=trust)

    assert opened.content == CONTENT


def test_bare_base64_is_read_as_well(ec_signer: Identity, trust: CertificateAuthority) -> None:
    """A control endpoint may send the message without the PEM lines around it."""
    payload = base64.b64encode(sign(CONTENT, ec_signer)).decode()

    assert open_envelope(signed(payload), trust=trust).content == CONTENT


OPENSSL_COMMANDS = {
    "cms": ["cms", "-sign", "-binary", "-nodetach"],
    "cms streamed": ["cms", "-sign", "-binary", "-nodetach", "-stream"],
    "cms with key identifier": ["cms", "-sign", "-binary", "-nodetach", "-keyid"],
    "cms without attributes": ["cms", "-sign", "-binary", "-nodetach", "-noattr"],
    "smime": ["smime", "-sign", "-binary", "-nodetach"],
    "smime streamed": ["smime", "-sign", "-binary", "-nodetach", "-stream"],
}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize("command", OPENSSL_COMMANDS.values(), ids=OPENSSL_COMMANDS.keys())
def test_what_the_openssl_command_signs_is_opened(
    command: list[str], signer: Identity, trust: CertificateAuthority, tmp_path: Path
) -> None:
    """Whoever runs a control endpoint may sign with the tool that every host has."""
    certificate, key = signer.write(tmp_path)
    payload = subprocess.run(
        ["openssl", *command, "-signer", certificate, "-inkey", key, "-outform", "PEM"],
        input=CONTENT,
        check=True,
        capture_output=True,
    ).stdout

    assert open_envelope(signed(payload.decode()), trust=trust).content == CONTENT


def test_the_signer_is_named_by_fingerprint_and_subject(signer: Identity) -> None:
    """Both are logged, and the fingerprint is what a host remembers its signer by."""
    opened = open_envelope(signed(ber.pem(sign(CONTENT, signer))), trust=LastSeen())

    name = signer.certificate.subject.rfc4514_string()
    assert opened.signer == Signer(fingerprint=signer.fingerprint, subject=name)


@pytest.mark.parametrize("with_attributes", [True, False], ids=["attributes", "bare"])
def test_content_that_was_changed_after_signing_is_refused(
    signer: Identity, *, with_attributes: bool
) -> None:
    """Existing agents deploy such a specification: whoever sits in between chooses what is installed."""
    message = sign(CONTENT, signer, *(() if with_attributes else (NO_ATTRIBUTES,)))
    changed = message.replace(b"shop", b"evil")

    failure = refusal(signed(ber.pem(changed)), LastSeen())

    assert failure.error_id == "specification-signature-invalid"


def test_a_message_without_its_content_is_refused(ec_signer: Identity) -> None:
    """A detached signature vouches for something that is not there."""
    detached = sign(CONTENT, ec_signer, pkcs7.PKCS7Options.DetachedSignature)

    assert refusal(signed(ber.pem(detached)), LastSeen()).error_id == "specification-signature-invalid"


def test_a_message_without_the_certificate_of_its_signer_is_refused(ec_signer: Identity) -> None:
    """Without the certificate there is no key to check with."""
    bare = sign(CONTENT, ec_signer, pkcs7.PKCS7Options.NoCerts)

    assert refusal(signed(ber.pem(bare)), LastSeen()).error_id == "specification-signature-invalid"


def test_a_stranger_is_refused_where_a_certificate_authority_is_set(trust: CertificateAuthority) -> None:
    """Anybody can sign; only whom the administrator trusts may deploy."""
    stranger = issue("Stranger")

    failure = refusal(signed(ber.pem(sign(CONTENT, stranger))), trust)

    assert failure.error_id == "specification-signer-untrusted"
    assert stranger.fingerprint in failure.message
    assert str(trust.file) in failure.message


def test_a_stranger_who_encloses_the_trusted_certificates_is_still_refused(
    authority: Identity, ec_signer: Identity, trust: CertificateAuthority
) -> None:
    """Certificates that travel with a message are public: they prove nothing about its signer."""
    message = sign(CONTENT, issue("EC Signer"), enclosed=(ec_signer, authority))

    assert refusal(signed(ber.pem(message)), trust).error_id == "specification-signer-untrusted"


def test_a_signer_of_another_authority_of_the_same_name_is_refused(trust: CertificateAuthority) -> None:
    """Names are free to choose; the keys decide."""
    impostor = issue("EC Signer", issuer=issue("Test CA", is_authority=True))

    assert (
        refusal(signed(ber.pem(sign(CONTENT, impostor))), trust).error_id == "specification-signer-untrusted"
    )


def test_a_signer_that_no_authority_allowed_to_issue_certificates_makes_no_others(
    ec_signer: Identity, trust: CertificateAuthority
) -> None:
    """The holder of one signer certificate can't mint more of them."""
    minted = issue("Minted", issuer=ec_signer)
    message = sign(CONTENT, minted, enclosed=(ec_signer,))

    assert refusal(signed(ber.pem(message)), trust).error_id == "specification-signer-untrusted"


def test_an_expired_signer_is_refused_with_the_reason(
    authority: Identity, trust: CertificateAuthority
) -> None:
    """The reason tells an expired certificate, or a wrong clock, from a stranger."""
    expired = issue("Expired", issuer=authority, ends_in=-DAY)

    failure = refusal(signed(ber.pem(sign(CONTENT, expired))), trust)

    assert failure.error_id == "specification-signer-untrusted"
    assert "certificate has expired" in failure.message


def test_an_intermediate_authority_may_come_with_the_message(
    authority: Identity, trust: CertificateAuthority
) -> None:
    """The file on the host names the root only; the chain between may change without it."""
    intermediate = issue("Intermediate", issuer=authority, is_authority=True)
    message = sign(CONTENT, issue("Signer", issuer=intermediate), enclosed=(intermediate,))

    assert open_envelope(signed(ber.pem(message)), trust=trust).content == CONTENT


def test_the_file_of_trusted_certificates_may_hold_the_signer_itself(
    ec_signer: Identity, tmp_path: Path
) -> None:
    """Where only one signer is right, its own certificate is the tightest pin."""
    pin = trusting(ec_signer, tmp_path)

    assert open_envelope(signed(ber.pem(sign(CONTENT, ec_signer))), trust=pin).content == CONTENT


@pytest.mark.parametrize("content", [None, b"", b"no certificate"], ids=["absent", "empty", "garbage"])
def test_a_trust_file_that_cannot_be_used_trusts_nobody(
    content: bytes | None, ec_signer: Identity, tmp_path: Path
) -> None:
    """A typing error in the settings must not switch the check off."""
    file = tmp_path / "trusted.pem"
    if content is not None:
        file.write_bytes(content)

    failure = refusal(signed(ber.pem(sign(CONTENT, ec_signer))), CertificateAuthority(file=file))

    assert failure.error_id == "specification-trust-unusable"
    assert str(file) in failure.message


@pytest.mark.parametrize(
    "payload",
    [
        "",
        " \n",
        "this is no envelope!",
        "AAAAA",
        "AAAA",
        "MAAA",
        ber.pem(b""),
        ber.pem(b"\x30\x80"),
        "\udc80\0",
    ],
)
def test_what_is_no_signed_message_is_refused_as_unreadable(payload: str) -> None:
    """An error page of a proxy in the place of a specification is told from a forged one."""
    assert refusal(signed(payload), LastSeen()).error_id == "specification-envelope-unreadable"


def test_a_message_that_holds_something_else_than_data_is_refused(ec_signer: Identity) -> None:
    """A time stamp of the same authority is signed, too, but it is no deployment."""
    data = bytes.fromhex("06092a864886f70d010701")
    time_stamp = bytes.fromhex("06092a864886f70d010702")  # any other kind of the same length
    message = sign(CONTENT, ec_signer, NO_ATTRIBUTES).replace(data, time_stamp)

    assert refusal(signed(ber.pem(message)), LastSeen()).error_id == "specification-envelope-unreadable"


def test_an_unsigned_specification_is_refused_and_called_so() -> None:
    """Unsigned text is for local deployments, which never pass through here."""
    failure = refusal(Envelope(format="TEXT/JSON", payload=CONTENT.decode()), LastSeen())

    assert failure.error_id == "specification-unsigned"
    assert "DeploymentSpecification" in failure.message


def test_an_answer_without_a_specification_is_called_that() -> None:
    """An update of the agent, which an unknown format asks for, would not help."""
    failure = refusal(Envelope(format="", payload=""), LastSeen())

    assert failure.error_id == "specification-missing"
    assert "Create the deployment again" in failure.message
    assert "Update" not in failure.message


def test_a_payload_without_a_format_is_refused() -> None:
    """What it is can't be guessed."""
    failure = refusal(Envelope(format="", payload="e30"), LastSeen())

    assert failure.error_id == "specification-format-unknown"
    assert "does not say in which format" in failure.message


def test_an_unknown_format_is_refused_by_its_name() -> None:
    """The operator learns that the control endpoint speaks something newer."""
    failure = refusal(Envelope(format="JOSE/JSON", payload="e30"), LastSeen())

    assert failure.error_id == "specification-format-unknown"
    assert "'JOSE/JSON'" in failure.message


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_and_nothing_else_happens(message: bytes) -> None:
    """The payload is read by a C library: it must neither crash the worker nor raise by surprise."""
    failure = refusal(signed(ber.pem(message)), LastSeen())

    assert failure.error_id in {"specification-envelope-unreadable", "specification-signature-invalid"}


@settings(max_examples=300)
@given(place=st.integers(0, 0xFFFF), value=st.integers(0, 255))
def test_a_message_damaged_anywhere_yields_its_content_or_a_refusal(
    ec_signer: Identity, place: int, value: int
) -> None:
    """Whatever one changed byte does to the structure, no other content comes out."""
    message = bytearray(sign(CONTENT, ec_signer))
    message[place % len(message)] = value

    try:
        opened = open_envelope(signed(ber.pem(bytes(message))), trust=LastSeen())
    except CommandFailure:
        return
    assert opened.content == CONTENT


@given(st.text(max_size=200))
def test_arbitrary_text_is_refused_and_nothing_else_happens(payload: str) -> None:
    """The payload is whatever the network brought."""
    assert refusal(signed(payload), LastSeen()).error_id.startswith("specification-")


def test_verifying_thousands_of_messages_takes_no_more_memory(
    authority: Identity, ec_signer: Identity, tmp_path: Path
) -> None:
    """What C allocates, Python does not give back: each object must be freed by hand, also after a refusal."""
    trust = trusting(authority, tmp_path)
    good = signed(ber.pem(sign(CONTENT, ec_signer)))
    changed = signed(ber.pem(sign(CONTENT, ec_signer).replace(b"shop", b"evil")))
    strange = signed(ber.pem(sign(CONTENT, issue("Stranger"))))

    def verify(times: int) -> int:
        for _ in range(times):
            open_envelope(good, trust=trust)
            refusal(changed, trust)
            refusal(strange, trust)
        return resident_bytes()

    warm = verify(300)

    # The smallest object that can leak takes 64 bytes, three times in each round.
    assert verify(1000) - warm < 128 * 1024

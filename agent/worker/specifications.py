"""Getting a command's deployment specification, and making sure that it is meant for us."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, TypeVar

from agent.errors import CommandFailure, CommandForAnotherHost
from agent.files import read_file, replace_file
from agent.logs import get_logger
from agent.specification import CertificateAuthority, Envelope, LastSeen
from agent.specification.parse import parse_specification
from agent.specification.signature import open_envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Protocol

    from agent.endpoint import SpecificationAnswer
    from agent.protocol import HostCommand
    from agent.specification import DeploymentSpecification, Signer
    from agent.worker.context import WorkerContext

    T = TypeVar("T")

    class Ask(Protocol):
        """Calls until there is an answer."""

        def __call__(self, call: Callable[[], T], /) -> T: ...


log = get_logger()

_DEPLOYMENT_SYSTEM = "CodeDeploy"
_PAUSES_AFTER_NOTHING_S = (0.25, 0.5, 1.0)


def check_addressee(command: HostCommand, host_identifier: str) -> None:
    """Stop at a command that is meant for another host.

    The daemon accepts none. But this host may have been given another name since.

    Raises:
        CommandForAnotherHost: it is not for us.
    """
    if not command.is_for(host_identifier):
        raise CommandForAnotherHost(command.host_identifier, host_identifier)


def fetch_specification(command: HostCommand, context: WorkerContext, ask: Ask) -> DeploymentSpecification:
    """The specification of this command's deployment, its signature verified.

    Raises:
        CommandFailure: it can't be trusted, or makes no sense.
        EndpointError, IdentityError: it can't be had.
    """
    answer = _ask(command, context, ask)
    if answer.deployment_system != _DEPLOYMENT_SYSTEM and not answer.is_empty:
        raise CommandFailure(
            "deployment-system-unknown",
            f"The deployment is for the system {answer.deployment_system or '(none)'}; this agent carries out "
            f"those of {_DEPLOYMENT_SYSTEM} only. Check which endpoint the host polls.",
        )
    ca_file = context.settings.deployment_signer_ca_file
    envelope = Envelope(format=answer.envelope_format, payload=answer.envelope_payload)
    opened = open_envelope(envelope, trust=CertificateAuthority(file=ca_file) if ca_file else LastSeen())
    if ca_file is None:
        _note_signer(opened.signer, context.settings.state_directory / "signer.json")
    return parse_specification(opened.content)


def _ask(command: HostCommand, context: WorkerContext, ask: Ask) -> SpecificationAnswer:
    """What the endpoint answers; `{}` counts when it comes again: something in between may have said it once."""
    for pause_s in _PAUSES_AFTER_NOTHING_S:
        answer = ask(lambda: context.client.deployment_specification(command))
        if not answer.is_empty:
            return answer
        time.sleep(pause_s)
    return ask(lambda: context.client.deployment_specification(command))


def _note_signer(signer: Signer, seen_file: Path) -> None:
    """Remember who signs for this host; somebody new is accepted, and said in the log."""
    seen: object
    try:
        seen = json.loads(read_file(seen_file))["fingerprint"]
    except FileNotFoundError:
        seen = None
    except (OSError, ValueError, KeyError, TypeError) as error:
        # It may have been anybody, so whoever signs now may be somebody else.
        seen = f"unknown: {seen_file} can't be read ({error})"
    if seen == signer.fingerprint:
        return
    if seen is not None:
        log.warning("signer_changed", was=seen, now=signer.fingerprint, subject=signer.subject)
    content = json.dumps({"fingerprint": signer.fingerprint, "subject": signer.subject})
    try:
        replace_file(seen_file, content.encode(), mode=0o600)
    except OSError as error:
        log.warning("signer_not_noted", error=str(error))

"""What an answer other than 200 means, and what to do about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.errors import EndpointUnavailable, RequestRefused, Throttled

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.endpoint.connection import Response
    from agent.endpoint.stack import Stack
    from agent.errors import EndpointError
    from agent.identity import HostIdentity

PORTAL_ADVICE = "Check that no portal or proxy answers in its place."
_FAULTS_OF_SERVICE = frozenset(
    {"ServerException", "InternalFailure", "InternalServerError", "ServiceUnavailable"}
)
_WHAT_IT_DOES_NOT_KNOW = {
    "PollHostCommand": "The endpoint does not know this host: register it there as {host} (see `agentctl whoami`; a host "
    "outside of EC2: `aws deploy register-on-premises-instance`).",
    "GetDeploymentSpecification": "The endpoint does not know this deployment, or it is over there: nothing is wrong "
    "with this host. Create the deployment again if it is still wanted.",
    "PutHostCommandAcknowledgement": "The endpoint does not know this command, or it is over there: nothing is wrong "
    "with this host. Create the deployment again if it is still wanted.",
    "PutHostCommandComplete": "The endpoint does not know this command, or it is over there, as after a stop or a "
    "timeout: this report is of no use to it.",
}
_ADVICE = {
    "UnknownOperationException": "The agent speaks the protocol {protocol}, and this address another one. An address "
    "of codedeploy-commands-secure needs enable_auth_policy: true in the agent's settings, one of codedeploy-commands "
    "needs false; check deploy_control_endpoint, too.",
    "InvalidSignatureException": "Check the secret key ({credentials}) and the clock of this host.",
    "RequestTimeTooSkewedException": "Set the clock of this host: run timedatectl, and let NTP keep it right.",
    "UnrecognizedClientException": "The access key is unknown there; check {credentials}.",
    "InvalidClientTokenId": "The access key is unknown there; check {credentials}.",
    "MissingAuthenticationTokenException": "The signature got lost on the way: check what proxies do to the header "
    "Authorization.",
    "IncompleteSignatureException": "The signature got lost on the way: check what proxies do to the header "
    "Authorization.",
    "ExpiredTokenException": "The credentials have expired; check what renews them ({credentials}).",
    "AccessDeniedException": "The user or role of this host may not do this: check {credentials}, and with "
    "enable_auth_policy: true attach a policy that allows {action}.",
}
_THROTTLED = "It asks for fewer requests, so all processes of this agent pause until one succeeds."
_OTHER_ADVICE = "Compare address, credentials and clock of this host with what the endpoint expects."


class Refusals:
    """Turns the refusals of one endpoint into errors."""

    def __init__(self, stack: Stack, identity: HostIdentity, went_through: Callable[[], str]) -> None:
        """Make it.

        Args:
            stack: of the endpoint.
            identity: of this host.
            went_through: names the proxy on the way, in a sentence; empty without one.
        """
        self._stack = stack
        self._identity = identity
        self._went_through = went_through

    def refusal(self, operation: str, response: Response) -> EndpointError:
        """The error that an answer other than 200 stands for."""
        error_type, said = _error_body(response)
        request_id = response.headers.get("x-amzn-RequestId", "")
        is_fault = response.status >= 500 or response.status == 408 or error_type in _FAULTS_OF_SERVICE
        met = "failed" if is_fault else "was refused"
        about = (
            f"{operation} at {self._stack.url} {met} with {response.status} {error_type or 'without a type'}"
        )
        about += f": {said.rstrip('.')}" if said else ""
        about += f" (request id {request_id})." if request_id else "."
        way = self._went_through()
        lowered = error_type.lower()
        if response.status == 429 or "throttl" in lowered or "rateexceeded" in lowered:
            return Throttled(f"{about} {_THROTTLED}{way}", request_id=request_id)
        if is_fault:
            message = f"{about} {_fault_of(error_type, way)}{way}"
            return EndpointUnavailable(message, request_id=request_id)
        if not error_type:
            # The service always names a type: this was a proxy, a portal or a firewall, whatever it means.
            return EndpointUnavailable(
                f"{about} {_what_came(response)}{PORTAL_ADVICE}{way}",
                request_id=request_id,
                error_id="endpoint-answer-unusable",
            )
        return RequestRefused(
            f"{about} {self._advice(operation, error_type)}{way}",
            error_type=error_type,
            status=response.status,
            request_id=request_id,
        )

    def _advice(self, operation: str, error_type: str) -> str:
        if error_type == "ClientException":
            advice = _WHAT_IT_DOES_NOT_KNOW.get(operation, _OTHER_ADVICE)
        else:
            advice = _ADVICE.get(error_type, _OTHER_ADVICE)
        return advice.format(
            host=self._identity.host_identifier,
            protocol=self._stack.signing_name,
            credentials=self._identity.credential_source.describe(),
            action=f"codedeploy-commands-secure:{operation}",
        )


def beginning(body: bytes) -> str:
    """How an answer begins, in quotes, as it can stand in a message whatever it is made of."""
    return repr(body[:60].decode("utf-8", "replace"))


def _fault_of(error_type: str, way: str) -> str:
    """Whose fault an answer of 500 and more is; the service names a type, a proxy on the way does not."""
    if way and not error_type:
        return "It comes from the endpoint or from the proxy: look at the logs of both if it lasts. It is tried again."
    return "The fault is on its side, and not this host's. It is tried again."


def _what_came(response: Response) -> str:
    """Whatever tells who has answered, as sentences; empty where there is nothing."""
    said = ""
    if location := response.headers.get("Location", ""):
        # What follows a `?` may be meant for one visitor only.
        said += f"It leads to {location.partition('?')[0][:100]}. "
    if response.body:
        said += f"The answer begins with {beginning(response.body)}. "
    return said


def _error_body(response: Response) -> tuple[str, str]:
    """Type and message of an error answer; empty where it does not say."""
    values: Any
    try:
        values = json.loads(response.body)
    except (ValueError, RecursionError):
        values = {}
    if not isinstance(values, dict):
        values = {}
    kind = response.headers.get("x-amzn-ErrorType") or _text(values.get("__type"))
    # `namespace#Type:link` and `Type` are both seen.
    kind = kind.rpartition("#")[2].partition(":")[0]
    return kind, _text(values.get("message") or values.get("Message"))[:500]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""

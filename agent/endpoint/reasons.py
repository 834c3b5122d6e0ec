"""Why there was no answer: what the system or a library says, in sentences that say what to do."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import TYPE_CHECKING

from agent.certificates import untrusted_because
from agent.errors import EndpointUnavailable

if TYPE_CHECKING:
    from agent.certificates import TrustedCAs
    from agent.endpoint.proxy import Proxy

# First match. Said of the endpoint and of a proxy alike.
REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (
        ssl.SSLError,
        "TLS failed ({0}); check that the address speaks TLS and that nothing on the way interferes",
    ),
    (socket.gaierror, "its name can't be resolved ({0}); {1}"),
    (ConnectionRefusedError, "nothing listens there ({0}); check address, port and firewall"),
    (TimeoutError, "no answer came in time; check route, security groups and firewall{2}"),
    (http.client.RemoteDisconnected, "it closed the connection without an answer"),
    (ConnectionError, "the connection broke ({0})"),
    (http.client.IncompleteRead, "its answer broke off ({0}); check proxies and load balancers on the way"),
    (
        http.client.HTTPException,
        "the answer is not HTTP ({0}); check that no portal or proxy answers instead",
    ),
    (OSError, "{0}; check network and routes"),
)


def went_through(proxy: Proxy | None) -> str:
    """The sentence that names the proxy, to be put behind another one; empty without a proxy."""
    return f" The request went through {proxy}." if proxy else ""


def unavailable(
    url: str, error: BaseException, *, proxy: Proxy | None = None, cas: TrustedCAs | None = None
) -> EndpointUnavailable:
    """The error that this exception stands for.

    Args:
        url: of the control endpoint.
        error: what happened on the way to it, or with it.
        proxy: which the request went through.
        cas: which CAs are trusted.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"The control endpoint {url} can't be trusted: {untrusted_because(error, cas, 'Check deploy_control_endpoint, and where DNS and proxies lead to.')}"
        return EndpointUnavailable(f"{why}{went_through(proxy)}", error_id="endpoint-untrusted")
    needs_proxy = "" if proxy else ", and whether the way out is a proxy (proxy_uri)"
    reason = _reason(
        error, f"check DNS, the region, and deploy_control_endpoint if it is set{needs_proxy}", needs_proxy
    )
    return EndpointUnavailable(f"The control endpoint {url} gave no answer: {reason}.{went_through(proxy)}")


def proxy_unusable(proxy: Proxy, error: BaseException) -> EndpointUnavailable:
    """The proxy itself can't be reached, or makes no sense."""
    reason = _reason(error, "check DNS and its address")
    return EndpointUnavailable(
        f"The control endpoint can't be asked, because {proxy} gave no answer: {reason}.",
        error_id="proxy-failed",
    )


def proxy_refusal(proxy: Proxy, place: str, status: int, said: str) -> EndpointUnavailable:
    """The proxy has answered for itself, and not with what we asked it for.

    Args:
        proxy: which has answered.
        place: what it was asked for.
        status: its answer.
        said: the words beside the status.
    """
    answer = f"{status} {said[:100]}".strip()
    if status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED and proxy.authorization:
        why = "does not accept the user and password in its address; correct them there"
    elif status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        why = "wants a user and a password; write its address as http://user:password@host:port"
    elif status in (
        http.HTTPStatus.BAD_GATEWAY,
        http.HTTPStatus.SERVICE_UNAVAILABLE,
        http.HTTPStatus.GATEWAY_TIMEOUT,
    ):
        why = f"can't reach {place}; check the way from the proxy to there"
    else:
        why = f"refuses to connect to {place}; have it allowed there, or except the host from the proxy with no_proxy"
    return EndpointUnavailable(
        f"The control endpoint can't be asked: {proxy} answered {answer}: it {why}.", error_id="proxy-failed"
    )


def _reason(error: BaseException, about_name: str, more: str = "") -> str:
    for kind, reason in REASONS:
        if isinstance(error, kind):
            # What answered may be quoted in it, with its line ends.
            said = " ".join((getattr(error, "strerror", None) or str(error)).split())
            return reason.format(said, about_name, more)
    raise AssertionError(f"{type(error).__name__} is in no row of the table") from error

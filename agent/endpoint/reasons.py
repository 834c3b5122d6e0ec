"""Why there was no answer: what the system or a library says, in sentences that say what to do."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from typing import TYPE_CHECKING

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

_NOT_YET_VALID, _EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 9, 10, 62, 64  # of OpenSSL's X509_V_ERR_*
_OWN_CA = (
    "If a CA of your own, or of a proxy that looks into TLS, has issued it: put the certificate of that CA, in PEM form "
    "and named NAME.crt, into /usr/local/share/ca-certificates and run update-ca-certificates (Debian, Ubuntu), or into "
    "/etc/pki/ca-trust/source/anchors and run update-ca-trust (Amazon Linux, RHEL); or name its file with AWS_CA_BUNDLE "
    "in the environment of the agent's service. Then restart the agent."
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
        why = f"The control endpoint {url} can't be trusted: {_certificate_reason(error, cas)}"
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


def _certificate_reason(error: ssl.SSLCertVerificationError, cas: TrustedCAs | None) -> str:
    said = error.verify_message
    if error.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        return (
            f"its certificate is for another name ({said.rstrip('.')}). Check deploy_control_endpoint, and where DNS "
            "and proxies lead to."
        )
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        return (
            f"its certificate is out of date ({said}), while this host's clock says {now}. If the clock is right, "
            "tell whoever runs the endpoint."
        )
    return f"its certificate is not trusted ({said}). {_trusted(cas)}{_OWN_CA}"


def _trusted(cas: TrustedCAs | None) -> str:
    """The sentences that say which CAs count; empty where nobody knows."""
    if cas is None:
        return ""
    if not cas.variable:
        return f"Trusted are the CAs of this host, in {cas.path}. "
    # OpenSSL finds a certificate in a directory by the hash of its subject only.
    rehash = f" (after adding one, run `openssl rehash {cas.path}`)" if cas.path.is_dir() else ""
    return f"Trusted are only the CAs in {cas.path}, which {cas.variable} names{rehash}. "

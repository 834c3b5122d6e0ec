"""Requests for bundles: through the right proxy, with the right CAs, and their failures as decisions."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3

from agent import proxies
from agent.bundle.trouble import Trouble, TryAgain
from agent.bundle.whole_heads import WholeHeadAdapter
from agent.certificates import TrustedCAs, trusted_cas, untrusted_because
from agent.errors import CommandFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.bundle.sources import BundleSources

E = TypeVar("E", bound=BaseException)

# What http.client makes of a proxy's answer to CONNECT: the status is nowhere but in this text.
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: (\d{3})")
# What OpenSSL says of an answer in plain text.
_NO_TLS = frozenset(["WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"])
_PASSING_TUNNEL_STATUSES = frozenset([408, 429, 500, 502, 503, 504])


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that requests go through.

    Attributes:
        uri: its address, with the password if there is one.
        origin: where this host has it from.
    """

    uri: str
    origin: str

    def __str__(self) -> str:
        return f"the proxy {without_secrets(self.uri)} ({self.origin})"


class Session(requests.Session):
    """Uses no environment but the proxies', and no request is without timeouts.

    `.netrc` would replace our Authorization, and REQUESTS_CA_BUNDLE our CAs.
    """

    def __init__(self, sources: BundleSources) -> None:
        super().__init__()
        self.trust_env = False
        for scheme in ("http://", "https://"):
            self.mount(scheme, WholeHeadAdapter())
        # An object with Content-Encoding must arrive as it is stored.
        self.headers.update({"Accept-Encoding": "identity", "User-Agent": "codedeploy-host-agent"})
        self._ca_path = (
            requests.utils.DEFAULT_CA_BUNDLE_PATH if sources.ca_path is None else str(sources.ca_path)
        )
        self._cas = _named_cas(Path(self._ca_path))
        self._proxy_uri = sources.proxy_uri
        self._timeouts = (sources.patience.connect_timeout_s, sources.patience.stall_timeout_s)

    def get_streamed(self, url: str, headers: dict[str, str]) -> requests.Response:
        """The answer, with its body unread, and redirects left to the caller.

        Raises:
            TryAgain: there is none.
            CommandFailure: `bundle-certificate-untrusted`, `bundle-address-invalid`, `bundle-proxy-refused`.
        """
        self._check_certificates(url)
        proxy = proxy_for(url, self._proxy_uri)
        with translated_errors(_host_of(url), proxy, self._cas):
            request = self.prepare_request(requests.Request("GET", url, headers))
            request.url = url  # as it was signed: keys in S3 may hold `..` and `//`
            response = self.send(
                request,
                stream=True,
                allow_redirects=False,
                verify=self._ca_path,
                proxies={} if proxy is None else {"http": proxy.uri, "https": proxy.uri},
                timeout=self._timeouts,
            )
        if response.status_code == requests.codes.proxy_authentication_required and proxy is not None:
            response.close()
            raise _proxy_refusal(proxy, _host_of(url), response.status_code)
        return response

    def _check_certificates(self, url: str) -> None:
        if url.startswith("https:") and not os.path.exists(self._ca_path):
            raise CommandFailure(
                "bundle-certificate-untrusted",
                f"The server of {urlsplit(url).netloc} can't be trusted, because the CA certificates of this host are not"
                f" there: {self._ca_path}. Install the package ca-certificates, or name the CAs in AWS_CA_BUNDLE, and"
                " restart the agent.",
            )

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - the parent's
        """None, always: else requests reads the body of a redirect, and follows it with our headers."""
        return None


def _named_cas(path: Path) -> TrustedCAs:
    """The CAs at this path, with the variable that names it where one does."""
    cas = trusted_cas(os.environ)
    return cas if cas is not None and cas.path == path else TrustedCAs(path)


def proxy_for(url: str, proxy_uri: str | None) -> Proxy | None:
    """The proxy that a request for this address goes through; None = it goes straight there.

    Args:
        url: what is asked for.
        proxy_uri: the administrator's proxy; None = as the environment says.
    """
    address = proxies.proxy_for(url, proxies.proxies_of(proxy_uri, os.environ))
    if address is None:
        return None
    return Proxy(uri=address, origin=proxies.who_set_proxy(url, proxy_uri, os.environ))


def without_secrets(uri: str) -> str:
    """An address without the user and password in it."""
    return re.sub(r"^(\w+://|)[^/@]*@", r"\1***@", uri)


@contextlib.contextmanager
def translated_errors(
    where: str, proxy: Proxy | None = None, cas: TrustedCAs | None = None
) -> Iterator[None]:
    """What requests and urllib3 raise, as a decision: try again, or fail.

    Args:
        where: host (and port) that was asked.
        proxy: what it was asked through.
        cas: which CAs are trusted.

    Raises:
        TryAgain: it may go better the next time.
        CommandFailure: `bundle-certificate-untrusted`, `bundle-address-invalid`, `bundle-proxy-refused`.
    """
    try:
        yield
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.MissingSchema,
        requests.exceptions.InvalidSchema,
        urllib3.exceptions.LocationParseError,
    ) as error:
        raise CommandFailure(
            "bundle-address-invalid",
            f"{where} can't be asked for a bundle: {_shown(error)}. Check s3_endpoint_override, github_api_endpoint and"
            " proxy_uri in the agent's settings.",
        ) from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        _check_trust(error, where, proxy, cas)
        if isinstance(error, requests.exceptions.ProxyError) and proxy is not None:
            raise _proxy_trouble(error, where, proxy) from error
        raise _trouble(error, where) from error


def _check_trust(error: Exception, where: str, proxy: Proxy | None, cas: TrustedCAs | None) -> None:
    untrusted = _cause(error, ssl.SSLCertVerificationError)
    if untrusted is not None:
        why = untrusted_because(
            untrusted,
            cas,
            "Check s3_endpoint_override or github_api_endpoint if one is set, and where DNS and proxies lead to.",
        )
        way = "" if proxy is None else f" The request went through {proxy}."
        raise CommandFailure(
            "bundle-certificate-untrusted",
            f"The server {where} can't be trusted with the request: {why}{way}",
        ) from error


def _proxy_trouble(error: Exception, where: str, proxy: Proxy) -> Exception:
    """A proxy's refusal is final, unless it says that it will pass."""
    refused = next(filter(None, (_TUNNEL_REFUSED.search(str(cause)) for cause in _causes(error))), None)
    if refused is not None:
        status = int(refused[1])
        if status in _PASSING_TUNNEL_STATUSES:
            return TryAgain(f"{proxy} answers {status} when asked for {where}", Trouble.PROXY)
        return _proxy_refusal(proxy, where, status)
    if _cause(error, socket.gaierror) is not None:
        return TryAgain(f"the name of {proxy} can't be resolved", Trouble.PROXY)
    return TryAgain(f"{proxy} can't be reached{_why(error)}", Trouble.PROXY)


def _proxy_refusal(proxy: Proxy, where: str, status: int) -> CommandFailure:
    if status == requests.codes.proxy_authentication_required:
        why = "it asks for a user and a password, and " + (
            "does not take those in its address" if "@" in proxy.uri else "there are none in its address"
        )
        advice = "Write it as http://user:password@host:port"
    else:
        why = f"it answers {status}"
        advice = "Allow this host to reach that address through it, or name the address in NO_PROXY"
    return CommandFailure(
        "bundle-proxy-refused",
        f"{where} can't be asked for the bundle, because {proxy} does not let the request through: {why}."
        f" {advice}, and restart the agent.",
    )


def _trouble(error: Exception, where: str) -> TryAgain:
    match error:
        case requests.exceptions.ConnectTimeout():
            return TryAgain(f"{where} did not take a connection within the time allowed", Trouble.UNREACHABLE)
        case requests.exceptions.ReadTimeout() | urllib3.exceptions.ReadTimeoutError():
            return TryAgain(f"no data came from {where} for too long", Trouble.INTERRUPTED)
        case requests.exceptions.ConnectionError():
            return _no_connection(error, where)
        case _ if _cause(error, http.client.IncompleteRead) is not None:
            return TryAgain("the connection ended in the middle of the transfer", Trouble.INTERRUPTED)
        case _:
            return TryAgain(f"the transfer broke off{_why(error)}", Trouble.INTERRUPTED)


def _no_connection(error: Exception, where: str) -> TryAgain:
    if _cause(error, socket.gaierror) is not None:
        return TryAgain(f"the name {where} can't be resolved{_why(error)}", Trouble.UNRESOLVED)
    if _cause(error, urllib3.exceptions.ProtocolError) is not None:
        return TryAgain(
            f"the connection to {where} ended before an answer came{_why(error)}",
            Trouble.INTERRUPTED,
        )
    if (of_tls := _cause(error, ssl.SSLError)) is not None:
        if of_tls.reason in _NO_TLS:
            return TryAgain(f"what answers at {where} does not speak TLS", Trouble.NO_TLS)
        return TryAgain(f"{where} and this host find no common TLS{_why(error)}", Trouble.NO_TLS)
    return TryAgain(f"no connection to {where}{_why(error)}", Trouble.UNREACHABLE)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it was made of, which requests and urllib3 wrap several times."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        inner = [*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__]
        waiting.extend(each for each in inner if isinstance(each, BaseException))


def _cause(error: BaseException, kind: type[E]) -> E | None:
    return next((cause for cause in _causes(error) if isinstance(cause, kind)), None)


def _why(error: BaseException) -> str:
    """What the system or a library says of it, as an addition to a sentence, without the names of classes."""
    innermost = _innermost(error)
    if isinstance(innermost, ssl.SSLError):
        return f" ({(innermost.reason or 'no reason given').replace('_', ' ').lower()})"
    if isinstance(innermost, OSError) and innermost.strerror:
        return f" ({innermost.strerror})"
    return f" ({_shown(innermost)})"


def _innermost(error: BaseException) -> BaseException:
    while error.__context__ is not None:
        error = error.__context__
    return error


def _shown(error: BaseException) -> str:
    """Its text without the queries of addresses, in which GitHub puts tokens, and without passwords."""
    text = re.sub(r"\?[^\s'\")]+", "?...", str(error))
    return re.sub(r"//[^/@\s]*@", "//***@", text) or type(error).__name__


def _host_of(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]

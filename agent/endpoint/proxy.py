"""Which proxy a request goes through, and who has set it. Pure."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from agent.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that is spoken to in the clear, whatever the scheme of its address, as the existing agents do.

    Attributes:
        scheme: of its address; for messages, and for the port where the address names none.
        host: name or address.
        port: where it listens.
        set_by: where its address was found, in words.
        authorization: header that says who we are; empty when nobody has given us a name for it.
    """

    scheme: str
    host: str
    port: int
    set_by: str
    authorization: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        """As messages name it: without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"the proxy {self.scheme}://{host}:{self.port} (set by {self.set_by})"


def parse_proxy(address: str, set_by: str) -> Proxy:
    """The proxy at this address, `http://[user:password@]host[:port]`.

    Raises:
        ConfigurationError: it is no address of an http proxy. What it says is not repeated: it may hold a password.
    """
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise ConfigurationError(
            "The address of the proxy",
            [
                Problem(
                    message=f"{set_by} must be of the form http://host:port, or http://user:password@host:port."
                )
            ],
        )
    return Proxy(
        scheme=parts.scheme,
        host=host,
        port=port or _DEFAULT_PORTS[parts.scheme],
        set_by=set_by,
        authorization=_authorization(parts.username, parts.password),
    )


def _authorization(user: str | None, password: str | None) -> dict[str, str]:
    if not user:
        return {}
    token = b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {token}"}


def proxy_for(url: str, proxies: Mapping[str, str]) -> str | None:
    """The address of the proxy for this URL; None for a direct connection.

    Args:
        url: where the request goes.
        proxies: scheme → proxy address; `no` → hosts without one, separated by commas: a name covers
            its subdomains, too, a network such as `10.0.0.0/8` its addresses, and `*` everything.
    """
    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme)
    if not proxy or _is_direct(parts.hostname or "", parts.port, proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def who_set_proxy(url: str, proxy_uri: str | None, environ: Mapping[str, str]) -> str:
    """Where the address of the proxy for this URL was found, in words.

    Args:
        url: where the request goes.
        proxy_uri: of the settings, which wins over the environment.
        environ: of the agent.
    """
    if proxy_uri:
        return "proxy_uri in the agent's settings"
    name = f"{urlsplit(url).scheme}_proxy"
    found = name if environ.get(name) else name.upper()
    return f"{found} in the agent's environment"


def _is_direct(host: str, port: int | None, no_proxy: str) -> bool:
    for entry in (item.strip().lower().lstrip(".") for item in no_proxy.split(",")):
        if not entry:
            continue
        if entry in ("*", host, f"{host}:{port}") or host.endswith(f".{entry}"):
            return True
        if "/" in entry and _is_in_network(host, entry):
            return True
    return False


def _is_in_network(host: str, network: str) -> bool:
    """Whether the host is given as an address of this network; names are not looked up."""
    # Few hosts have such an entry, and the daemon imports this module.
    import ipaddress  # noqa: PLC0415

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False

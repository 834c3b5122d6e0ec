"""Which proxy a request goes through, and who has set it: the same for polls and for bundles. Pure.

`http_proxy`, `https_proxy` and `no_proxy` count, in small letters or, where those are not set, in capital ones. `all_proxy`
does not: it is often there for other programs, and names a SOCKS proxy, which the agent does not speak to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


def proxies_of(proxy_uri: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Scheme → proxy address; `no` → hosts without one, separated by commas.

    Args:
        proxy_uri: of the settings, which wins over the environment, but for the hosts without one.
        environ: of the agent.
    """
    found = {scheme: environ.get(_variable(scheme, environ), "") for scheme in ("http", "https", "no")}
    if proxy_uri:
        found |= {"http": proxy_uri, "https": proxy_uri}
    return {scheme: value for scheme, value in found.items() if value}


def proxy_for(url: str, proxies: Mapping[str, str]) -> str | None:
    """The address of the proxy for this URL; None for a direct connection.

    Args:
        url: where the request goes.
        proxies: from `proxies_of`. Of the hosts without one, a name covers its subdomains, too, a network such as
            `10.0.0.0/8` its addresses, and `*` everything.
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
    return f"{_variable(urlsplit(url).scheme, environ)} in the agent's environment"


def _variable(scheme: str, environ: Mapping[str, str]) -> str:
    """The variable that counts, in small letters if there is such a one."""
    name = f"{scheme}_proxy"
    return name if name in environ else name.upper()


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

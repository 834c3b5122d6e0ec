"""Which proxy a request goes through. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


def proxy_for(url: str, proxies: Mapping[str, str]) -> str | None:
    """The proxy for this address; None for a direct connection.

    Args:
        url: where the request goes.
        proxies: scheme → proxy address; `no` → hosts without one, separated by commas: a name covers
            its subdomains, too, and `*` everything.
    """
    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme)
    if not proxy or _is_direct(parts.hostname or "", parts.port, proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_direct(host: str, port: int | None, no_proxy: str) -> bool:
    for entry in (item.strip().lower().lstrip(".") for item in no_proxy.split(",")):
        if not entry:
            continue
        if entry in ("*", host, f"{host}:{port}") or host.endswith(f".{entry}"):
            return True
    return False

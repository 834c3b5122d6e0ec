"""A proxy on the way to the control endpoint, by its address. Pure."""

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

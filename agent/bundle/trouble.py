"""What keeps a transfer from its end: which troubles pass, and what an operator can do about those that don't."""

from __future__ import annotations

import enum


class Trouble(enum.Enum):
    """A kind of trouble that may pass by itself."""

    UNRESOLVED = "name not resolved"
    UNREACHABLE = "no connection"
    NO_TLS = "no TLS"
    PROXY = "proxy in trouble"
    SERVER_ERROR = "server in trouble"
    THROTTLED = "throttled"
    NO_CREDENTIALS = "credentials lost meanwhile"
    INTERRUPTED = "transfer interrupted"
    REPLACED = "object replaced meanwhile"
    CONTRADICTION = "answers contradict each other"


ERROR_IDS = {
    Trouble.UNRESOLVED: "bundle-download-failed",
    Trouble.UNREACHABLE: "bundle-download-failed",
    Trouble.NO_TLS: "bundle-download-failed",
    Trouble.PROXY: "bundle-proxy-failed",
    Trouble.SERVER_ERROR: "bundle-server-error",
    Trouble.THROTTLED: "bundle-throttled",
    Trouble.NO_CREDENTIALS: "bundle-credentials-missing",
    Trouble.INTERRUPTED: "bundle-download-failed",
    Trouble.REPLACED: "bundle-answers-inconsistent",
    Trouble.CONTRADICTION: "bundle-answers-inconsistent",
}
"""What it is reported as when it does not pass."""

ADVICE = {
    Trouble.UNRESOLVED: "Check the name, and /etc/resolv.conf and the name servers of this host, and deploy again.",
    Trouble.UNREACHABLE: (
        "Check the route there, security groups, firewalls and VPC endpoints, and whether this host needs proxy_uri,"
        " and deploy again."
    ),
    Trouble.NO_TLS: (
        "Check that this address is meant to be asked with https, and what proxies and firewalls on the way do with TLS,"
        " and deploy again."
    ),
    Trouble.PROXY: "Check whether the proxy runs and is the right one for this host, and deploy again.",
    Trouble.SERVER_ERROR: (
        "The fault is on its side: nothing is wrong with this host, its network or its credentials. Look at the state"
        " of that service, and deploy again when it is well."
    ),
    Trouble.THROTTLED: (
        "It gets more requests than it takes. Deploy to fewer hosts at a time, or raise download_patience_seconds,"
        " and deploy again."
    ),
    Trouble.NO_CREDENTIALS: "There were some when the transfer began: see `agentctl whoami`, and deploy again.",
    Trouble.INTERRUPTED: (
        "The server answers, and the connection does not last: check proxies and firewalls on the way and the log of"
        " the server, and deploy again."
    ),
    Trouble.REPLACED: (
        "Whoever uploads it must have come to an end: upload the bundle once, under a key that is never used again,"
        " register that revision, and deploy it."
    ),
    Trouble.CONTRADICTION: (
        "Nobody can tell which of its answers is right, so none was used. Check that server, and caches and proxies in"
        " front of it."
    ),
}
"""What to do when it does not pass."""


class TryAgain(Exception):
    """This attempt came to nothing, but another one may succeed; the message is a clause for people.

    Attributes:
        trouble: what is wrong.
        wait_s: how long the server wants to be left alone, at least.
    """

    def __init__(self, message: str, trouble: Trouble, *, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.wait_s = wait_s


class StartAnew(TryAgain):
    """Another attempt may succeed, and what has arrived is of no use any more."""

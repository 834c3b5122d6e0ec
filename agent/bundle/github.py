"""A bundle that GitHub makes of a commit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from agent.bundle.answers import retry_after_s
from agent.bundle.session import proxy_for
from agent.bundle.trouble import Trouble, TryAgain
from agent.errors import CommandFailure
from agent.protocol import BundleType

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

    from agent.bundle.digests import Announced
    from agent.bundle.session import Session
    from agent.bundle.sources import BundleSources
    from agent.specification import GitHubRevision

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset([301, 302, 303, 307, 308])
_DEFAULT_PORTS = {"http": 80, "https": 443}


class GitHubArchive:
    """The archive of a revision's commit, to be downloaded; see `download.Remote`.

    Attributes:
        bundle_type: what it is: a tar compressed with gzip, or a zip.
    """

    def __init__(self, revision: GitHubRevision, sources: BundleSources) -> None:
        is_zip = revision.bundle_type is BundleType.ZIP
        self.bundle_type = BundleType.ZIP if is_zip else BundleType.TGZ
        parts = (
            revision.account,
            revision.repository,
            "zipball" if is_zip else "tarball",
            revision.commit_id,
        )
        path = "/".join(quote(part, safe="") for part in parts)
        self._revision = revision
        self._sources = sources
        self._token = sources.github_token
        self._endpoint = sources.github_api_endpoint.rstrip("/")
        self._url = f"{self._endpoint}/repos/{path}"

    @property
    def name(self) -> str:
        """Account, repository and commit."""
        revision = self._revision
        return f"github.com/{revision.account}/{revision.repository} at {revision.commit_id}"

    @property
    def address(self) -> str:
        """See `download.Remote`."""
        return self._url

    def digests(self, headers: Mapping[str, str]) -> tuple[Announced, ...]:
        """See `download.Remote`; GitHub announces none."""
        del headers
        return ()

    def open(self, session: Session, *, start: int, etag: str | None) -> requests.Response:
        """See `download.Remote`; GitHub makes the archive while it sends it, so always all of it."""
        del start, etag
        url = self._url
        for _ in range(_MAX_REDIRECTS + 1):
            response = session.get_streamed(url, self._headers(url))
            if response.status_code not in _REDIRECTS:
                return self._checked(response)
            with response:
                url = self._redirected(url, response.headers.get("Location", ""))
        raise self._redirect_refused(f"there are more than {_MAX_REDIRECTS} redirects")

    @property
    def _server(self) -> str:
        return f"GitHub at {self._endpoint}"

    @property
    def _server_and_way(self) -> str:
        proxy = proxy_for(self._url, self._sources.proxy_uri)
        return self._server if proxy is None else f"{self._server}, through {proxy},"

    def _wait_s(self, response: requests.Response) -> float:
        """How long GitHub wants to be left alone; 0 = it doesn't say, or for longer than there is patience."""
        if response.headers.get("X-RateLimit-Remaining") == "0":
            reset = response.headers.get("X-RateLimit-Reset", "")
            wait_s = int(reset) - time.time() if reset.isascii() and reset.isdigit() else 0.0
            return wait_s if 0 < wait_s <= self._sources.patience.give_up_after_s else 0.0
        return retry_after_s(response.headers.get("Retry-After"))

    def _headers(self, url: str) -> dict[str, str]:
        """The token goes to the API and to nobody it sends us to: they know us by their address."""
        if self._token is None or _origin(url) != _origin(self._endpoint):
            return {}
        return {"Authorization": f"token {self._token.reveal()}"}

    def _redirected(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location) if location else ""
        except ValueError:
            target = ""
        scheme, host, _ = _origin(target)
        if not host or scheme not in _DEFAULT_PORTS:
            raise self._redirect_refused("a redirect leads nowhere")
        if scheme == "http" and urlsplit(url).scheme == "https":
            raise self._redirect_refused(f"a redirect leads to {host} without encryption")
        return target

    def _redirect_refused(self, why: str) -> CommandFailure:
        return CommandFailure(
            "bundle-redirect-refused",
            f"The bundle {self.name} could not be downloaded: {why}. Check github_api_endpoint, and what stands"
            " between this host and GitHub.",
        )

    def _checked(self, response: requests.Response) -> requests.Response:
        status = response.status_code
        if status == 200:
            return response
        response.close()
        wait_s = self._wait_s(response)
        if status == 429 or (status == 403 and wait_s > 0):
            raise TryAgain(
                f"{self._server} asks for fewer requests: it answers {status}",
                Trouble.THROTTLED,
                wait_s=wait_s,
            )
        if status >= 500 or status == 408:
            raise TryAgain(f"{self._server} answers {status}", Trouble.SERVER_ERROR, wait_s=wait_s)
        if status == 404:
            advice = (
                "" if self._token else " A private repository needs a token, and this deployment has none."
            )
            raise CommandFailure(
                "bundle-not-found",
                f"There is no bundle {self.name}, or no access to it: {self._server_and_way} answers 404."
                f"{advice} Check account, repository, commit and token.",
            )
        raise CommandFailure(
            "bundle-github-refused",
            f"The bundle {self.name} could not be downloaded: {self._server_and_way} answers {status}."
            f" {_advice(response)}",
        )


def _advice(response: requests.Response) -> str:
    if response.headers.get("X-RateLimit-Remaining") == "0":
        reset = response.headers.get("X-RateLimit-Reset", "")
        until = (
            time.strftime(" until %Y-%m-%d %H:%M:%S UTC", time.gmtime(int(reset))) if reset.isdigit() else ""
        )
        return f"The rate limit is used up{until}; with a token it is higher."
    if response.status_code == 401:
        return "The token has expired, or was revoked: connect the application to GitHub again."
    return "Check that the token may read this repository."


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what must be equal for a token to go there."""
    try:
        parts = urlsplit(url)
        return parts.scheme, (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:  # no port has such a number, or no host such a name
        return "", "", None

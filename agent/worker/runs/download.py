"""DownloadBundle: the revision onto this host, unpacked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.appspec import appspec_names
from agent.bundle import (
    ArchiveLimits,
    BundleSources,
    TransferPatience,
    make_deployment_archive,
    reuse_archive,
)
from agent.certificates import trusted_cas
from agent.deployments.pointers import write_pointer
from agent.deployments.retention import remove_expired
from agent.errors import CommandFailure, IdentityError
from agent.files import replace_file
from agent.logs import get_logger
from agent.worker.directories import keeping_in
from agent.worker.results import succeeded_result
from agent.worker.runs.group_revisions import GroupRevisions, note_appspec_filename

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.deployments import CommandResult, DeploymentDirectory
    from agent.identity import Credentials
    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext

log = get_logger()

DOWNLOADED = "downloaded"
REUSED = "archive-reuse"


class DownloadRun:
    """DownloadBundle of one deployment."""

    is_noop = False

    def __init__(self, specification: DeploymentSpecification, host: HostContext) -> None:
        self._specification = specification
        self._host = host
        self._revisions = GroupRevisions(specification, host)

    def carry_out(self) -> CommandResult:
        """Afterwards the deployment archive is there, and this deployment is the group's most recent one."""
        group_id = self._specification.deployment_group_id
        current = self._revisions.current
        with keeping_in(current.path):
            make_room(self._specification, self._host)
            # The archive's parent is what retention goes by: a name of ours, closed to nobody.
            current.path.mkdir(parents=True, exist_ok=True)
            source = self._fetch(current)
            replace_file(current.bundle_source, source.encode())
            note_appspec_filename(current, self._specification.appspec_filename)
            write_pointer(self._host.root.most_recent(group_id), current)
        return succeeded_result(f"BundleSource={source}")

    def _fetch(self, current: DeploymentDirectory) -> str:
        """Get the archive, from an earlier deployment if the service says so and that works."""
        if self._reuse(current):
            return REUSED
        fetched = make_deployment_archive(
            self._specification.revision,
            bundle=current.bundle,
            archive=current.archive,
            sources=self._sources(),
            limits=self._limits(),
            appspec_names=appspec_names(self._specification.appspec_filename),
        )
        log.info("bundle_fetched", size_bytes=fetched.size_bytes, etag=fetched.etag)
        if fetched.etag:
            replace_file(current.bundle_etag, fetched.etag.encode())
        return DOWNLOADED

    def _reuse(self, current: DeploymentDirectory) -> bool:
        earlier_id = self._specification.reuse_archive_from
        if earlier_id is None or not self._host.settings.enable_archive_reuse:
            return False
        earlier = self._host.root.deployment(self._specification.deployment_group_id, earlier_id)
        try:
            names = appspec_names(self._specification.appspec_filename)
            reuse_archive(earlier.archive, current.archive, names)
        except CommandFailure as failure:
            log.warning(
                "archive_not_reused", earlier=earlier_id, error=failure.message, error_id=failure.error_id
            )
            return False
        return True

    def _sources(self) -> BundleSources:
        settings, identity = self._host.settings, self._host.identity
        return BundleSources(
            s3_endpoint=self._host.s3_url,
            region=identity.region if identity else "",
            credentials=self._credentials,
            renew_credentials=self._renew_credentials,
            credentials_source=identity.credential_source.describe() if identity else "nowhere",
            github_api_endpoint=settings.github_api_endpoint,
            github_token=self._specification.github_token,
            proxy_uri=settings.proxy_uri,
            ca_path=_ca_path(self._host.environment),
            patience=TransferPatience(give_up_after_s=settings.download_patience_seconds),
            is_cancelled=self._host.is_cancelled,
        )

    def _credentials(self) -> Credentials:
        if self._host.identity is None:
            raise IdentityError(
                "This host does not know who it is, so it can't sign requests to S3. "
                "Write the on-premises file, or attach a role to the instance."
            )
        return self._host.identity.credentials()

    def _renew_credentials(self) -> None:
        if self._host.identity is not None:
            self._host.identity.credential_source.forget()

    def _limits(self) -> ArchiveLimits:
        settings = self._host.settings
        return ArchiveLimits(
            max_extraction_size_bytes=settings.archive_max_extraction_size,
            reject_symlinks=settings.reject_symlinks_in_bundle,
            reject_unsafe_permissions=settings.reject_unsafe_permissions_in_bundle,
            ignore_ownership=settings.ignore_ownership_in_bundle,
        )


def make_room(specification: DeploymentSpecification, host: HostContext) -> None:
    """Afterwards the group has room for this deployment: the oldest revisions that nobody needs have gone.

    Raises:
        OSError: the group's directory can't be listed.
    """
    revisions = GroupRevisions(specification, host)
    current, last_successful = revisions.current, revisions.last_successful
    protected = {current.path} | ({last_successful.path} if last_successful else set())
    group = host.root.group(specification.deployment_group_id)
    removed = remove_expired(group, max_revisions=host.settings.max_revisions, protected=protected)
    if removed:
        log.info("revisions_expired", removed=[path.name for path in removed])


def _ca_path(environment: Mapping[str, str]) -> Path | None:
    trusted = trusted_cas(environment)
    return trusted.path if trusted else None

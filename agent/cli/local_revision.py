"""What `agentctl deploy` and `agentctl plan` are both told: which revision, for which group, on this host."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import click

from agent.appspec.paths import leaves_archive
from agent.cli.completion import offer_groups
from agent.cli.configured_host import context_of, identity_of
from agent.protocol import BundleType, FileExistsBehavior
from agent.settings import DEFAULT_CONFIGURATION
from agent.specification import GitHubRevision, LocalRevision, Revision, S3Revision

if TYPE_CHECKING:
    from agent.settings import Settings
    from agent.worker.context import HostContext

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_GITHUB_PAGE = re.compile(r"/([^/]+)/([^/]+?)(?:\.git)?/?")
_GITHUB_API = re.compile(r"/repos/([^/]+)/([^/]+)/(tarball|zipball)/(.+)")

type_option = click.option(
    "-t",
    "--type",
    "type_name",
    type=click.Choice([kind.value for kind in BundleType]),
    help="Format of the bundle. Default: what its name says, else directory.",
)
file_exists_option = click.option(
    "-b",
    "--file-exists-behavior",
    type=click.Choice([item.value for item in FileExistsBehavior], case_sensitive=False),
    default="DISALLOW",
    show_default=True,
    help="What to do with files that no deployment has put there.",
)
group_option = click.option(
    "-g",
    "--deployment-group",
    "group_id",
    default="default-local-deployment-group",
    show_default=True,
    shell_complete=offer_groups,
    help="Id of the deployment group; deployments of one group replace each other.",
)


def _checked_appspec_filename(
    _context: click.Context, _option: click.Parameter, name: str | None
) -> str | None:
    """The name, if a file inside a revision may have it: what is wrong with that is said before anything is fetched."""
    if name is None:
        return None
    if leaves_archive(name):
        raise click.BadParameter(f"{name} leads out of the revision")
    if os.path.basename(name) in {"", ".", ".."}:
        raise click.BadParameter(f"{name!r} is not the name of a file")
    return name


appspec_option = click.option(
    "-A",
    "--appspec-filename",
    callback=_checked_appspec_filename,
    help="Name of the AppSpec file. Default: appspec.yml or appspec.yaml.",
)
configuration_option = click.option(
    "-c",
    "--agent-configuration-file",
    "--config-file",
    "agent_configuration_file",
    # As in `config_option`: what is wrong with the file is said by whoever reads it.
    type=click.Path(path_type=Path, readable=False),
    default=DEFAULT_CONFIGURATION,
    show_default=True,
    help="Settings of the agent.",
)


def working_directory() -> str:
    """Where we are.

    Raises:
        click.BadParameter: nowhere: the directory has been removed since.
    """
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise _bad(
            "the working directory has been removed; change to one that is there, or give the whole path"
        ) from None


def revision_at(location: str | None, type_name: str | None) -> Revision:
    """The revision at this location; None = the working directory.

    Raises:
        click.BadParameter: there is none, or its type does not fit.
        PermissionError: this user may not read it.
    """
    if location is None:
        return _revision(working_directory(), BundleType(type_name or "directory"))
    return _revision(location, BundleType(type_name or _guess_type(location)))


def checked_group_id(group_id: str) -> str:
    """The id, if a deployment group may have it.

    Raises:
        click.BadParameter: it may not.
    """
    if not _ID.fullmatch(group_id):
        raise click.BadParameter(
            f"{group_id} is no id: letters, digits, '.', '_' and '-'", param_hint="--deployment-group"
        )
    return group_id


def host_for(revision: Revision, settings: Settings) -> HostContext:
    """This host. Who it is matters to hooks, and to S3; a bundle on this host can do without.

    Raises:
        ConfigurationError: the on-premises file has problems.
    """
    must_know = isinstance(revision, S3Revision)
    is_known = must_know or _may_read(settings.on_premises_config_file)
    return context_of(settings, identity_of(settings) if is_known else None)


def _may_read(on_premises_file: Path) -> bool:
    """Whether the file is there and this user may read it; that it is there and hidden is said."""
    try:
        with on_premises_file.open("rb"):
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        click.echo(
            f"agentctl: {on_premises_file} can't be read ({error.strerror or error}), so nobody knows who this host is: "
            "hooks get neither AWS_REGION nor AWS_HOST_IDENTIFIER.",
            err=True,
        )
        return False


def _revision(location: str, kind: BundleType) -> Revision:
    if location.startswith("s3://"):
        return _s3_revision(location, kind)
    if location.startswith(("https://github.com/", "https://api.github.com/")):
        return _github_revision(location, kind)
    if "://" in location:
        raise _bad(f"{location} is neither a path nor s3:// nor https://github.com/")
    path = Path(location if os.path.isabs(location) else os.path.join(working_directory(), location))
    try:
        mode = path.stat().st_mode
    except PermissionError:
        raise
    except FileNotFoundError:
        raise _bad(f"there is nothing at {path}") from None
    except OSError as error:
        raise _bad(f"{path} can't be read: {error.strerror or error}") from None
    what = (
        "a directory"
        if stat.S_ISDIR(mode)
        else "a file"
        if stat.S_ISREG(mode)
        else "neither file nor directory"
    )
    if what != ("a directory" if kind is BundleType.DIRECTORY else "a file"):
        raise _bad(f"{path} is {what}, which does not fit --type {kind.value}")
    # The directory itself, lest a deployment begins that can't get its files; each of them is met later.
    if not os.access(path, os.R_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)):
        raise PermissionError(
            errno.EACCES, f"this bundle can't be read: {os.strerror(errno.EACCES)}", str(path)
        )
    return LocalRevision(location=path, bundle_type=kind)


def _guess_type(location: str) -> str:
    """What the name says, where the user does not."""
    name = urlsplit(location).path if "://" in location else location
    for suffix, kind in ((".tar.gz", "tgz"), (".tgz", "tgz"), (".tar", "tar"), (".zip", "zip")):
        if name.lower().endswith(suffix):
            return kind
    return "tar" if "github.com/" in location else "directory"


def _s3_revision(location: str, kind: BundleType) -> S3Revision:
    parts = urlsplit(location)
    key = unquote(parts.path.lstrip("/"))
    if not parts.netloc or not key or kind is BundleType.DIRECTORY:
        raise _bad(f"{location} must be s3://bucket/key, with --type tar, tgz or zip")
    query = parse_qs(parts.query)
    return S3Revision(
        bucket=parts.netloc,
        key=key,
        bundle_type=kind,
        version=query.get("versionId", [None])[0],
        etag=query.get("etag", [None])[0],
    )


def _github_revision(location: str, kind: BundleType) -> GitHubRevision:
    parts = urlsplit(location)
    if kind not in (BundleType.TAR, BundleType.ZIP):
        raise _bad(f"GitHub makes tar and zip, not {kind.value}; say so with --type")
    api = _GITHUB_API.fullmatch(parts.path)
    if api:
        return GitHubRevision(account=api[1], repository=api[2], commit_id=api[4], bundle_type=kind)
    page = _GITHUB_PAGE.fullmatch(parts.path)
    if page:
        return GitHubRevision(account=page[1], repository=page[2], commit_id="HEAD", bundle_type=kind)
    raise _bad(f"{location} must be https://github.com/account/repository")


def _bad(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="--bundle-location")

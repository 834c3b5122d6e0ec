"""Every setting of the agent, once: its type, unit, default and bounds.

The values only; `agent.settings_file` reads them from YAML. The daemon at rest holds this module
and not the parser.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_CONFIGURATION = Path("/etc/codedeploy-agent/conf/codedeployagent.yml")

# Off by default, because a host that comes from another agent may rely on what they forbid.
# `hardening: strict` turns them all on.
HARDENING_KEYS = (
    "reject_symlinks_in_bundle",
    "reject_path_traversal_in_bundle",
    "reject_unsafe_permissions_in_bundle",
    "reject_unconfined_selinux_in_bundle",
    "reject_symlink_permission_targets",
    "ignore_ownership_in_bundle",
    "restrict_agent_dir_permissions",
    "restrict_log_dir_permissions",
    "restrict_hook_env_to_allowlist",
    "strip_loader_env_in_hooks",
)

# Keys of older agents: they load, do nothing, and are named once in the log.
RETIRED_KEYS = frozenset(
    {
        "children",
        "codedeploy_test_profile",
        "enable_command_port",
        "instance_service_endpoint",
        "instance_service_port",
        "instance_service_region",
        "shared_dir",
        "ssl_verify_peer",
        "user",
        "wait_after_error",
        "wait_between_spawning_children",
    },
)


def _flag(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("true", "yes", "on", "1"):
        return True
    if lowered in ("false", "no", "off", "0"):
        return False
    raise ValueError("true or false")


def _whole(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    expected = f"a whole number of at least {minimum}"
    if maximum is not None:
        expected += f" and at most {maximum}"

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?\d{1,18}", text):
            raise ValueError(expected)
        value = int(text)
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError(expected)
        return value

    return parse


def _seconds(minimum: float, maximum: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        expected = f"seconds between {minimum:g} and {maximum:g}"
        if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text):
            raise ValueError(expected)
        value = float(text)
        if not minimum <= value <= maximum:
            raise ValueError(expected)
        return value

    return parse


def _absolute_path(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError("a path that starts with /")
    return Path(text)


def _path_pattern(text: str) -> str:
    if not text.startswith(("/", "*")):
        raise ValueError("a pattern of paths that starts with / or *")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", text) or text.startswith("."):
        raise ValueError("a name of letters, digits, '.', '_' and '-'")
    return text


def _command(text: str) -> str:
    # The daemon at rest holds this module, and reads no command.
    import shlex  # noqa: PLC0415

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError("a command whose quotes are closed") from error
    if not words:
        raise ValueError("a command")
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    try:
        valid_port = parts.port is None or parts.port > 0
    except ValueError:
        valid_port = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not valid_port:
        raise ValueError("an address such as https://host or http://host:port")
    return text.rstrip("/")


def _server(text: str) -> str:
    """An address that requests are signed for, which leaves no room for a user and a password."""
    url = _url(text)
    scheme, slashes, rest = url.partition("//")
    place, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{place.rpartition('@')[2]}{slash}{path}"


_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZE_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d{1,18})\s*([A-Za-z]{0,3})", text)
    unit = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError("a size in bytes, or one such as 500MB or 1GiB")
    return int(match[1]) * unit


def _hardening(text: str) -> str:
    if text not in ("compatible", "strict"):
        raise ValueError("compatible or strict")
    return text


def _setting(default: Any, parse: Callable[[str], Any]) -> Any:
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this agent behaves. `conf/codedeployagent.yml` explains every key to its user."""

    # Places
    root_dir: Path = _setting(Path("/opt/codedeploy-agent/deployment-root"), _absolute_path)
    log_dir: Path = _setting(Path("/var/log/aws/codedeploy-agent"), _absolute_path)
    pid_dir: Path = _setting(Path("/opt/codedeploy-agent/state/.pid"), _absolute_path)
    program_name: str = _setting("codedeploy-agent", _name)
    on_premises_config_file: Path = _setting(
        Path("/etc/codedeploy-agent/conf/codedeploy.onpremises.yml"), _absolute_path
    )
    ongoing_deployment_tracking: str = _setting("ongoing-deployment", _name)

    # Start
    start_when_file: Path | None = _setting(None, _absolute_path)
    start_when_command: str | None = _setting(None, _command)

    # Control endpoint
    wait_between_runs: float = _setting(30.0, _seconds(0.05, 3600))
    http_read_timeout: float = _setting(80.0, _seconds(1, 3600))
    deploy_control_endpoint: str | None = _setting(None, _server)
    enable_auth_policy: bool = _setting(False, _flag)
    use_fips_mode: bool = _setting(False, _flag)
    use_dual_stack: bool = _setting(False, _flag)
    proxy_uri: str | None = _setting(None, _url)
    disable_imds_v1: bool = _setting(False, _flag)
    deployment_signer_ca_file: Path | None = _setting(None, _absolute_path)
    kill_agent_max_wait_time_seconds: int = _setting(7200, _whole(0, 86400))
    wait_between_updates: float = _setting(60.0, _seconds(0.05, 3600))

    # What the host must have before it takes a command
    min_free_bytes: int = _setting(64 * 2**20, _size)
    min_free_inodes: int = _setting(1000, _whole(0))
    min_free_memory: int = _setting(0, _size)
    pre_accept_command: str | None = _setting(None, _command)

    # Bundles
    s3_endpoint_override: str | None = _setting(None, _server)
    github_api_endpoint: str = _setting("https://api.github.com", _server)
    download_patience_seconds: float = _setting(300.0, _seconds(0, 86400))
    max_revisions: int = _setting(5, _whole(1))
    enable_archive_reuse: bool = _setting(True, _flag)
    archive_max_extraction_size: int | None = _setting(None, _size)

    # Install and hooks
    follow_directory_symlinks: bool = _setting(False, _flag)
    follow_links_of_others: tuple[str, ...] = field(default=(), metadata={"parse_each": _path_pattern})
    fail_on_open_output: bool = _setting(False, _flag)
    agent_update_command: str | None = _setting(None, _command)
    environment: Mapping[str, str] = field(default_factory=dict)

    # Logs
    verbose: bool = _setting(False, _flag)
    log_aws_wire: bool = _setting(False, _flag)
    enable_deployments_log: bool = _setting(True, _flag)

    # Hardening
    hardening: str = _setting("compatible", _hardening)
    disable_core_dumps: bool = _setting(True, _flag)
    reject_symlinks_in_bundle: bool = _setting(False, _flag)
    reject_path_traversal_in_bundle: bool = _setting(False, _flag)
    reject_unsafe_permissions_in_bundle: bool = _setting(False, _flag)
    reject_unconfined_selinux_in_bundle: bool = _setting(False, _flag)
    reject_symlink_permission_targets: bool = _setting(False, _flag)
    ignore_ownership_in_bundle: bool = _setting(False, _flag)
    restrict_agent_dir_permissions: bool = _setting(False, _flag)
    restrict_log_dir_permissions: bool = _setting(False, _flag)
    restrict_hook_env_to_allowlist: bool = _setting(False, _flag)
    strip_loader_env_in_hooks: bool = _setting(False, _flag)

    @property
    def state_directory(self) -> Path:
        """Where the agent keeps what is its own: lock, status, job records, history."""
        return self.pid_dir

    @property
    def agent_log(self) -> Path:
        """The log file of the daemon and its workers."""
        return self.log_dir / f"{self.program_name}.log"

    @property
    def deployments_log(self) -> Path | None:
        """The log file that collects the output of all hooks; None when it is switched off."""
        if not self.enable_deployments_log:
            return None
        return self.root_dir / "deployment-logs" / f"{self.program_name}-deployments.log"

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON-able values; `from_json` reads them back."""
        values = asdict(self)
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Settings:
        """Settings equal to those that `to_json` was called on."""
        defaults = cls()
        restored = dict(values)
        for name in _path_keys(defaults):
            if restored[name] is not None:
                restored[name] = Path(restored[name])
        for name in list_parsers():
            restored[name] = tuple(restored[name])
        return cls(**restored)


def _path_keys(defaults: Settings) -> list[str]:
    return [item.name for item in fields(defaults) if item.metadata.get("parse") is _absolute_path]


def scalar_parsers() -> dict[str, Callable[[str], Any]]:
    """Every key whose value is one text, with the function that reads it.

    The functions raise ValueError; its message is what would have been right.
    """
    return {item.name: item.metadata["parse"] for item in fields(Settings) if "parse" in item.metadata}


def list_parsers() -> dict[str, Callable[[str], str]]:
    """Every key whose value is a list of texts, or one text, with the function that reads each."""
    return {
        item.name: item.metadata["parse_each"] for item in fields(Settings) if "parse_each" in item.metadata
    }

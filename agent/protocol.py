"""The nouns of the host command protocol that every room speaks, and the closed sets behind them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class CommandStatus(Enum):
    """Where a host command stands, as the control endpoint and we tell each other."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ErrorCode(IntEnum):
    """`error_code` of a completion's diagnostics."""

    SUCCEEDED = 0
    SCRIPT_MISSING = 1
    SCRIPT_NOT_EXECUTABLE = 2
    SCRIPT_TIMED_OUT = 3
    SCRIPT_FAILED = 4
    UNKNOWN = 5
    OUTPUT_LEFT_OPEN = 6
    FAILED_AFTER_RESTART = 7


class FileExistsBehavior(Enum):
    """What Install does with a file that is there already and was not put there by us."""

    DISALLOW = "DISALLOW"
    OVERWRITE = "OVERWRITE"
    RETAIN = "RETAIN"


class BundleType(Enum):
    """How a revision's files are packed."""

    TAR = "tar"
    TGZ = "tgz"
    ZIP = "zip"
    DIRECTORY = "directory"


DOWNLOAD_BUNDLE = "DownloadBundle"
INSTALL = "Install"
UPDATE_DEPLOYMENT_AGENT = "UpdateDeploymentAgent"

# In the order in which the service sends them (traffic events only with a load balancer).
IN_PLACE_ORDER = (
    "BeforeBlockTraffic",
    "AfterBlockTraffic",
    "ApplicationStop",
    DOWNLOAD_BUNDLE,
    "BeforeInstall",
    INSTALL,
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
)
# Before the new revision is there: scripts of an earlier one run at them.
EARLY_EVENTS = IN_PLACE_ORDER[: IN_PLACE_ORDER.index(DOWNLOAD_BUNDLE)]
LIFECYCLE_EVENTS = tuple(name for name in IN_PLACE_ORDER if name not in (DOWNLOAD_BUNDLE, INSTALL))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCommand:
    """One piece of work for this host, as PollHostCommand delivered it."""

    identifier: str
    host_identifier: str
    deployment_execution_id: str
    name: str
    nonce: int | None = None

    def is_for(self, host_identifier: str) -> bool:
        """Whether it is meant for this host, which the service may name by the last part of its identifier.

        `user/web-1` and `instance/i-1` do, but never a part of a name: `eb-1` is another host than `web-1`.
        """
        named = self.host_identifier
        if named == host_identifier:
            return True
        before = host_identifier.removesuffix(named) if named else ""
        return before != host_identifier and before.endswith(("/", ":"))


class Secret:
    """A text that must not be seen: prints as `***`, and is read by `reveal()` only."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

"""The error tree. One class per decision that a caller makes.

AgentError
├── ConfigurationError      the agent must not start: settings or on-premises file are wrong
├── AgentAlreadyRuns        the agent must not start: another one owns this deployment root
├── DirectoryNotLockable    the agent must not start: nothing would keep a second one away
├── IdentityError           try again later: host identifier or region can't be had now
│   └── CredentialsUnavailable  try again later: credentials can't be had now
├── EndpointError           a request to the control endpoint came to nothing
│   ├── EndpointUnavailable     try again: no connection, no sense in the answer, or the server's fault
│   ├── Throttled               try again later, and everybody else slower, too
│   ├── CommandForAnotherHost   leave what has come alone, and ask more rarely
│   └── RequestRefused          don't try again: the endpoint says that the request is wrong
└── CommandFailure          fail this command, go on with the next
    ├── AppSpecMissing          an archive has no AppSpec file: an earlier one is done without
    ├── AppSpecInvalid          with all problems of an AppSpec file: an earlier one is read no further than needed
    ├── HostNotReady            the host is at fault, and not the revision: a script may still put it right
    └── InstallNotCompleted     the new revision is installed: what is left to do is tried again

Every message is one or more whole sentences: what failed, on what, why, and what to do next.
`error_id` is stable: it stands in reports and logs, and `agentctl explain` documents it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.protocol import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence


class AgentError(Exception):
    """Anything that this program raises on purpose."""

    # Every class whose errors are raised, or the error itself, has an id of its own.
    error_id = ""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def trouble(self) -> str:
        """The message, the same for every request that meets the same trouble."""
        return self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in a file that a person wrote.

    `line` and `column` count from 1; 0 means that the problem has no place of its own.
    """

    message: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.message
        place = f"line {self.line}, column {self.column}" if self.column else f"line {self.line}"
        return f"{place}: {self.message}"


class ConfigurationError(AgentError):
    """The agent can't start as it is configured; `problems` lists everything at once."""

    error_id = "configuration-invalid"

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        listed = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{source} can't be used:\n{listed}")
        self.source = source
        self.problems = tuple(problems)


class AgentAlreadyRuns(AgentError):
    """Another agent owns the deployment root."""

    error_id = "agent-already-runs"


class DirectoryNotLockable(AgentError):
    """A directory that only one agent may own can't be locked."""

    error_id = "directory-not-lockable"


class IdentityError(AgentError):
    """Region, host identifier or credentials can't be had at the moment."""

    error_id = "identity-unavailable"


class CredentialsUnavailable(IdentityError):
    """This host knows who it is, but has nothing to sign with at the moment."""

    error_id = "credentials-unavailable"


class EndpointError(AgentError):
    """A request to the control endpoint did not give an answer that can be used.

    `request_id` is the endpoint's own name of that one request, as the message has it; empty when
    it gave none.
    """

    def __init__(self, message: str, *, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id

    @property
    def trouble(self) -> str:
        """The message without the name of the one request."""
        return self.message.replace(self.request_id, "") if self.request_id else self.message


class EndpointUnavailable(EndpointError):
    """Nothing wrong with the request: worth another try.

    `error_id` may be a more precise one: of the proxy on the way, the certificate, or what has answered.
    """

    error_id = "endpoint-unavailable"

    def __init__(self, message: str, *, request_id: str = "", error_id: str = "") -> None:
        super().__init__(message, request_id=request_id)
        if error_id:
            self.error_id = error_id


class Throttled(EndpointError):
    """The endpoint asks for fewer requests."""

    error_id = "endpoint-throttled"


class CommandForAnotherHost(EndpointError):
    """The endpoint has delivered a command that is none of ours."""

    error_id = "command-for-another-host"

    def __init__(self, named: str, host_identifier: str) -> None:
        super().__init__(
            f"The control endpoint delivered a command for host {named}, and this is {host_identifier}. It is left "
            "alone: neither carried out nor reported. If this host should carry it out, register it under the name "
            "that it polls with (`agentctl whoami`); if not, check that no two hosts share credentials or an "
            "on-premises file."
        )


class RequestRefused(EndpointError):
    """The endpoint refuses this request for good; `error_type` is its own word for why."""

    error_id = "endpoint-refused"

    def __init__(self, message: str, *, error_type: str, status: int, request_id: str = "") -> None:
        super().__init__(message, request_id=request_id)
        self.error_type = error_type
        self.status = status


class CommandFailure(AgentError):
    """This host command has failed, and this is what to report.

    Attributes:
        error_id: stable name of the kind of failure, such as `bundle-not-found`.
        code: `error_code` of the report.
        script_name: location of the hook script that failed, as its AppSpec writes it; else empty.
        log: tail of the hook output, as it goes into the report; else empty.
    """

    def __init__(
        self,
        error_id: str,
        message: str,
        *,
        code: ErrorCode = ErrorCode.UNKNOWN,
        script_name: str = "",
        log: str = "",
    ) -> None:
        super().__init__(message)
        self.error_id = error_id
        self.code = code
        self.script_name = script_name
        self.log = log

    def add(self, sentence: str) -> None:
        """Append what only a caller knows to the message."""
        self.message = f"{self.message} {sentence}"
        self.args = (self.message,)


class HostNotReady(CommandFailure):
    """Something on the host must be put right first; the same revision may be deployed then.

    `error_id` says what: a user or group, the records of the last Install, the space on a disk.
    """


class InstallNotCompleted(CommandFailure):
    """An Install has taken effect, but not all that belongs to it could be written."""

    def __init__(self, message: str) -> None:
        super().__init__("install-not-completed", message)


class AppSpecMissing(CommandFailure):
    """A deployment archive without an AppSpec file: one that never had it, or has lost it since."""

    def __init__(self, message: str) -> None:
        super().__init__("appspec-missing", message)


class AppSpecInvalid(CommandFailure):
    """An AppSpec file that can't be used; `problems` lists what is wrong in it: everything, unless `is_all` is False."""

    def __init__(self, path: str, problems: Sequence[Problem], *, is_all: bool = True) -> None:
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        if not is_all:
            count += ", after which it was read no further"
        listed = "; ".join(str(problem) for problem in problems)
        super().__init__("appspec-invalid", f"The AppSpec file {path} has {count}: {listed}.")
        self.path = path
        self.problems = tuple(problems)

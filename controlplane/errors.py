"""The error tree of the control endpoint.

::

    ControlPlaneError
    ├── ServiceError     answered to the caller of one request; nothing was changed
    └── OperatorError    the endpoint or a command cannot do what its operator asked; exit code 1
"""

from __future__ import annotations

from http import HTTPStatus


class ControlPlaneError(Exception):
    """Anything this program raises on purpose."""


class ServiceError(ControlPlaneError):
    """A request is refused; the transaction it ran in is rolled back and the caller reads `code` and `message`.

    `code` is the exception name of the service model where the model has one for the case, so that
    `client.exceptions.<code>` of an SDK catches it.
    """

    def __init__(self, code: str, message: str, *, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class OperatorError(ControlPlaneError):
    """The operator has to change something: the message says what, where and why."""

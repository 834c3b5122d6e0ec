"""One call of a public operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from controlplane.errors import ServiceError

if TYPE_CHECKING:
    from controlplane.dispatch.transactions import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicCall:
    """Checked parameters by member name, and the transaction the operation runs in."""

    operation: str
    parameters: Mapping[str, Any]
    transaction: Transaction


PublicOperation: TypeAlias = Callable[[PublicCall], dict[str, Any]]
"""Returns the members of the answer: times as seconds since 1970, None for what is absent."""


def refuse_unsupported(parameters: Mapping[str, Any], members: Mapping[str, str]) -> None:
    """Raises ServiceError when one of these members asks for something; the value is its error code."""
    for member, code in members.items():
        if parameters.get(member):
            raise ServiceError(code, f"{member} is not available at this endpoint yet; leave it out.")

"""The client side of the host command protocol: connection, operations, backoff, throttling."""

from agent.endpoint.backoff import Setbacks, wait_after_failures
from agent.endpoint.client import HostCommandClient, SpecificationAnswer
from agent.endpoint.connection import Connection, tls_context
from agent.endpoint.persistence import FOR_QUESTIONS, FOR_REPORTS, RequestPatience, ask_until_answered
from agent.endpoint.throttle import SharedThrottle
from agent.endpoint.waiting import wait_readable

__all__ = [
    "FOR_QUESTIONS",
    "FOR_REPORTS",
    "Connection",
    "HostCommandClient",
    "RequestPatience",
    "Setbacks",
    "SharedThrottle",
    "SpecificationAnswer",
    "ask_until_answered",
    "tls_context",
    "wait_after_failures",
    "wait_readable",
]

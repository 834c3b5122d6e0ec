"""What S3 answers instead of an object."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.bundle.answers import retry_after_s
from agent.bundle.session import translated_errors

if TYPE_CHECKING:
    import requests

_MAX_ERROR_BYTES = 64 * 1024
_ELEMENT = re.compile(r"<(Code|Message|RequestId|Region|StorageClass|AccessTier)>([^<]{0,1000})</\1>")
_THROTTLED_CODES = frozenset(
    [
        "BandwidthLimitExceeded",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
    ]
)
_PASSING_CODES = frozenset(
    ["InternalError", "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable"]
)
_NEVER_PASSING_STATUSES = frozenset([501, 505])  # not implemented, nor this version of HTTP


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What S3 answers instead of the object; texts are empty where it says nothing.

    Attributes:
        storage_class: of an object that can't be read as it is.
        retry_after_s: how long S3 wants to be left alone.
    """

    status: int
    code: str
    message: str
    request_id: str
    region: str
    storage_class: str
    retry_after_s: float

    def __str__(self) -> str:
        code = f" {self.code}" if self.code else ""
        message = f" ({self.message.rstrip('.')})" if self.message not in {"", self.code} else ""
        request = f" [request id {self.request_id}]" if self.request_id else ""
        return f"{self.status}{code}{message}{request}"

    @property
    def is_throttling(self) -> bool:
        """Whether S3 wants fewer requests."""
        return self.status == 429 or self.code in _THROTTLED_CODES

    @property
    def is_passing(self) -> bool:
        """Whether the fault is the server's, and may pass."""
        is_server_error = self.status >= 500 and self.status not in _NEVER_PASSING_STATUSES
        return is_server_error or self.status == 408 or self.code in _PASSING_CODES

    @property
    def is_of_s3(self) -> bool:
        """Whether it looks like an answer of S3 itself, and not of a proxy or portal in between."""
        return bool(self.code or self.request_id)


def read_refusal(response: requests.Response) -> Refusal:
    """What S3 says in an error's body: a little XML, of which a few elements count."""
    with translated_errors("S3"):
        body = response.raw.read(_MAX_ERROR_BYTES, decode_content=True)
    elements = dict(_ELEMENT.findall(body.decode("utf-8", "replace")))
    headers = response.headers
    return Refusal(
        status=response.status_code,
        code=elements.get("Code", ""),
        message=html.unescape(elements.get("Message", "")),
        request_id=elements.get("RequestId") or headers.get("x-amz-request-id", ""),
        region=elements.get("Region") or headers.get("x-amz-bucket-region", ""),
        storage_class=elements.get("AccessTier") or elements.get("StorageClass") or "",
        retry_after_s=retry_after_s(headers.get("Retry-After")),
    )

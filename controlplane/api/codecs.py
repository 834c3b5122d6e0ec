"""The two ways a request and its answer are written: JSON 1.1, and RPC v2 with CBOR."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cbor2
from starlette.responses import Response

from controlplane.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.api.shapes import EncodeTimestamp

MAX_NESTING = 32
"""Deeper than any shape of the model; a deeper body is refused before it can exhaust the stack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """One wire protocol."""

    content_type: str
    headers: dict[str, str]
    parse: Callable[[bytes], Any]
    serialise: Callable[[Any], bytes]
    timestamp: EncodeTimestamp

    def decode(self, body: bytes) -> Any:
        """The document in the body, an empty one for an empty body; raises SerializationException."""
        if not body:
            return {}
        try:
            return self.parse(body)
        except (ValueError, RecursionError, cbor2.CBORDecodeError) as error:
            raise ServiceError(
                "SerializationException", f"The body is no {self.content_type} document: {error}."
            ) from error

    def answer(self, document: Any, request_id: str) -> Response:
        """HTTP 200 with this document."""
        return self._response(document, {}, request_id, 200)

    def refuse(self, error: ServiceError, request_id: str) -> Response:
        """The error as SDKs read it."""
        document = {"__type": error.code, "message": error.message}
        return self._response(document, {"x-amzn-ErrorType": error.code}, request_id, int(error.status))

    def _response(self, document: Any, headers: dict[str, str], request_id: str, status: int) -> Response:
        return Response(
            self.serialise(document),
            status_code=status,
            headers={**self.headers, **headers, "x-amzn-RequestId": request_id},
            media_type=self.content_type,
        )


def _parse_cbor(body: bytes) -> Any:
    return cbor2.loads(body, max_depth=MAX_NESTING, strict_hashable_types=True)


JSON_1_1 = Codec(
    content_type="application/x-amz-json-1.1",
    headers={},
    parse=json.loads,
    serialise=lambda document: json.dumps(document).encode(),
    timestamp=lambda seconds: seconds,
)
RPC_V2_CBOR = Codec(
    content_type="application/cbor",
    headers={"smithy-protocol": "rpc-v2-cbor"},
    parse=_parse_cbor,
    serialise=cbor2.dumps,
    timestamp=lambda seconds: cbor2.CBORTag(1, seconds),
)

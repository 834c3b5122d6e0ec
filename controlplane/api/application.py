"""The ASGI application: one port, two wire protocols, two services."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from controlplane.api.codecs import JSON_1_1, RPC_V2_CBOR, Codec
from controlplane.api.host_commands import HostCommandService, HostConnection
from controlplane.api.host_model import STACKS
from controlplane.api.public.operations import call_operation, unknown_operation
from controlplane.authentication import HttpRequest, SignatureClaim, parse_claim, verify_signature
from controlplane.errors import ServiceError
from controlplane.settings import MAX_BODY_BYTES
from controlplane.store.identities import Identity, find_access_key
from controlplane.store.kinds import IdentityKind

if TYPE_CHECKING:
    from controlplane.dispatch.transactions import Transactions

log = structlog.get_logger()

PUBLIC_TARGET: Final = "CodeDeploy_20141006"
PUBLIC_SIGNING_NAME: Final = "codedeploy"
AGENT_VERSION_HEADER: Final = "x-amz-codedeploy-agent-version"
_WORD: Final = re.compile(r"[A-Za-z0-9_]{1,100}")

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a request asks for: a target prefix, and an operation under it."""

    prefix: str
    operation: str

    @property
    def signing_name(self) -> str | None:
        """The name the signature must be made for; None for an unknown prefix."""
        return PUBLIC_SIGNING_NAME if self.prefix == PUBLIC_TARGET else STACKS.get(self.prefix)


class Endpoint:
    """Answers requests of both services."""

    def __init__(
        self, transactions: Transactions, hosts: HostCommandService, clock: Callable[[], float]
    ) -> None:
        self._transactions = transactions
        self._hosts = hosts
        self._clock = clock

    def application(self, lifespan: Lifespan) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/", self._json, methods=["POST"]),
            Route("/service/{service}/operation/{operation}", self._cbor, methods=["POST"]),
            Route("/health", _health, methods=["GET"]),
        ]
        return Starlette(routes=routes, lifespan=lifespan)

    async def _json(self, request: Request) -> Response:
        prefix, _, operation = request.headers.get("x-amz-target", "").rpartition(".")
        return await self._answer(request, JSON_1_1, Target(prefix=prefix, operation=operation))

    async def _cbor(self, request: Request) -> Response:
        target = Target(prefix=request.path_params["service"], operation=request.path_params["operation"])
        return await self._answer(request, RPC_V2_CBOR, target)

    async def _answer(self, request: Request, codec: Codec, target: Target) -> Response:
        """The edge: whatever happens, the caller gets an answer in its own protocol."""
        request_id = str(uuid.uuid4())
        try:
            document = await self._serve(request, codec, target)
        except ServiceError as error:
            level = log.info if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else log.error
            level(
                "request_refused",
                request_id=request_id,
                target=f"{target.prefix}.{target.operation}"[:200],
                code=error.code,
                message=error.message,
            )
            return codec.refuse(error, request_id)
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except Exception:
            log.exception("request_failed", request_id=request_id, operation=target.operation[:100])
            code = "ServerException" if target.prefix in STACKS else "InternalFailure"
            failure = ServiceError(
                code,
                f"The endpoint failed to answer; its log tells why under request id {request_id}.",
                status=HTTPStatus.INTERNAL_SERVER_ERROR,
            )
            return codec.refuse(failure, request_id)
        return codec.answer(document, request_id)

    async def _serve(self, request: Request, codec: Codec, target: Target) -> Any:
        arrived = HttpRequest(
            method=request.method,
            path=request.scope["raw_path"].decode("ascii", "replace"),
            headers=_joined_headers(request),
            body=await _read_body(request),
        )
        claim = parse_claim(arrived)
        caller = await self._authenticate(arrived, claim)
        _check_target(target, claim)
        if target.prefix == PUBLIC_TARGET:
            _require_kind(caller, IdentityKind.USER, "the public API is for users")
            return await call_operation(
                self._transactions,
                name=target.operation,
                document=codec.decode(arrived.body),
                timestamp=codec.timestamp,
            )
        _require_kind(caller, IdentityKind.HOST, "host commands are for hosts")
        connection = HostConnection(
            identity=caller,
            agent_version=arrived.headers.get(AGENT_VERSION_HEADER, "")[:64] or None,
            hung_up=_hung_up(request),
        )
        return await self._hosts.call(
            target.operation,
            codec.decode(arrived.body),
            connection=connection,
            timestamp=codec.timestamp,
        )

    async def _authenticate(self, request: HttpRequest, claim: SignatureClaim) -> Identity:
        key = await self._transactions.run(
            lambda transaction: find_access_key(transaction.session, claim.access_key_id)
        )
        if key is None:
            raise ServiceError(
                "UnrecognizedClientException",
                f"This endpoint has no access key {claim.access_key_id}; make one with codedeploy-control.",
            )
        verify_signature(request, claim, key.secret_access_key, now=self._clock())
        return key.identity


async def _health(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _check_target(target: Target, claim: SignatureClaim) -> None:
    """Prefix and signing name belong together, and the operation is a word that may be shown again."""
    if target.signing_name is None or target.signing_name != claim.service:
        raise unknown_operation(f"{target.prefix}.{target.operation}"[:200])
    if _WORD.fullmatch(target.operation) is None:
        raise unknown_operation(target.operation[:100])


def _require_kind(caller: Identity, kind: IdentityKind, rule: str) -> None:
    if caller.kind is not kind:
        raise ServiceError("AccessDeniedException", f"{caller.arn} is a {caller.kind.value}; {rule}.")


def _joined_headers(request: Request) -> dict[str, str]:
    """Header names are lower case; a header sent several times counts as one with commas, as when signing."""
    joined: dict[str, str] = {}
    for name, value in request.headers.items():
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ServiceError(
                "RequestEntityTooLargeException",
                f"The request is larger than {MAX_BODY_BYTES} bytes.",
                status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )
    return bytes(body)


def _hung_up(request: Request) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return wait

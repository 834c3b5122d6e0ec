"""Who may call what, and that nobody can pretend."""

from __future__ import annotations

import http.client
import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.exceptions import ClientError

from controlplane.authentication import HttpRequest, parse_claim, verify_signature
from controlplane.errors import ServiceError
from controlplane.secret import Secret
from controlplane.settings import MAX_BODY_BYTES, MAX_CLOCK_SKEW_S
from tests.controlplane.scripted_host import HostRefusedError, post, sign

if TYPE_CHECKING:
    from tests.controlplane.endpoint_process import ControlEndpoint, Shop
    from tests.controlplane.scripted_host import Answer

TARGET = "CodeDeploy_20141006.ListApplications"
SECRET = Secret("s3cret")
BODY = b'{"nextToken": null}'
NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def call(endpoint: ControlEndpoint, headers: dict[str, str], body: bytes = b"{}") -> Answer:
    return post(endpoint.url, "/", headers, body)


def signed(endpoint: ControlEndpoint, service: str = "codedeploy", target: str = TARGET) -> dict[str, str]:
    return sign(endpoint.url, target, b"{}", credentials=endpoint.user, service=service)


def code_of(answer: Answer) -> str:
    assert answer.status in {400, 413}
    assert answer.headers["x-amzn-requestid"]
    code: str = answer.document["__type"]
    assert answer.headers["x-amzn-errortype"] == code
    return code


@pytest.mark.server
class TestServed:
    """Refusals as callers see them."""

    def test_a_good_signature_is_accepted(self, endpoint: ControlEndpoint) -> None:
        """The base line of the refusals below."""
        answer = call(endpoint, signed(endpoint))
        assert answer.status == 200
        assert answer.headers["x-amzn-requestid"]

    def test_an_unsigned_request_is_refused(self, endpoint: ControlEndpoint) -> None:
        """The port may be open to a whole network."""
        assert code_of(call(endpoint, {"X-Amz-Target": TARGET})) == "MissingAuthenticationTokenException"

    def test_an_unknown_key_is_refused(self, endpoint: ControlEndpoint) -> None:
        """A key of the cloud account, for example."""
        headers = sign(endpoint.url, TARGET, b"{}", credentials=("AKIAUNKNOWN", "x"), service="codedeploy")
        assert code_of(call(endpoint, headers)) == "UnrecognizedClientException"

    def test_a_wrong_secret_is_refused(self, endpoint: ControlEndpoint) -> None:
        """Knowing an access key id, which is no secret, opens nothing."""
        credentials = (endpoint.user[0], "wrong")
        headers = sign(endpoint.url, TARGET, b"{}", credentials=credentials, service="codedeploy")
        assert code_of(call(endpoint, headers)) == "InvalidSignatureException"

    def test_a_changed_body_is_refused(self, endpoint: ControlEndpoint) -> None:
        """Plain HTTP on a shared network: nobody on the way may change a request."""
        answer = call(endpoint, signed(endpoint), b'{"nextToken": "x"}')
        assert code_of(answer) == "InvalidSignatureException"

    def test_a_changed_operation_is_refused(self, endpoint: ControlEndpoint) -> None:
        """Nor turn a list into a stop."""
        headers = signed(endpoint) | {"X-Amz-Target": "CodeDeploy_20141006.ListDeployments"}
        assert code_of(call(endpoint, headers)) == "InvalidSignatureException"

    def test_a_signature_for_another_service_is_unknown(self, endpoint: ControlEndpoint) -> None:
        """A request signed for S3 can't be replayed here."""
        assert code_of(call(endpoint, signed(endpoint, service="s3"))) == "UnknownOperationException"

    def test_a_host_may_not_call_the_public_api(self, shop: Shop) -> None:
        """A broken-into host must not deploy to the others."""
        host = shop.host("web-1")
        with pytest.raises(ClientError, match="AccessDeniedException"):
            shop.endpoint.client(host.credentials).list_applications()

    def test_a_user_may_not_poll(self, shop: Shop) -> None:
        """The pipeline's key must not take commands away from hosts."""
        host = shop.host("web-1")
        host.credentials = shop.endpoint.user
        with pytest.raises(HostRefusedError, match="AccessDeniedException"):
            host.poll()

    def test_a_body_beyond_the_limit_is_refused(self, endpoint: ControlEndpoint) -> None:
        """One caller can't fill the memory of the endpoint."""
        place = urlsplit(endpoint.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
        connection.putrequest("POST", "/")
        connection.putheader("Content-Length", str(MAX_BODY_BYTES + 2))
        connection.putheader("X-Amz-Target", TARGET)
        connection.endheaders(b"x" * (MAX_BODY_BYTES + 1))
        response = connection.getresponse()
        assert response.status == 413
        assert json.loads(response.read())["__type"] == "RequestEntityTooLargeException"
        connection.close()

    def test_health_needs_no_signature(self, endpoint: ControlEndpoint) -> None:
        """Load balancers and monitoring have no keys."""
        place = urlsplit(endpoint.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
        connection.request("GET", "/health")
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, {"status": "ok"})
        connection.close()

    def test_no_secret_reaches_the_log(self, endpoint: ControlEndpoint, shop: Shop) -> None:
        """Logs are shipped to places where keys must not be."""
        host = shop.host("web-1")
        host.poll()
        assert host.credentials[1] not in endpoint.log()
        assert endpoint.user[1] not in endpoint.log()


def request_signed_at(moment: datetime, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> HttpRequest:
    """A request signed by botocore at this moment."""
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: moment.replace(tzinfo=None))
    headers = sign(
        "http://endpoint", TARGET, BODY, credentials=("AKIA1", SECRET.reveal()), service="codedeploy"
    )
    lower = {name.lower(): value for name, value in headers.items()} | {"host": "endpoint"}
    return HttpRequest(
        **{
            "method": "POST",
            "path": "/",
            "headers": lower | changes.pop("headers", {}),
            "body": BODY,
            **changes,
        }
    )


def check(request: HttpRequest) -> None:
    verify_signature(request, parse_claim(request), SECRET, now=NOW.timestamp())


@pytest.mark.parametrize("skew_s", [-MAX_CLOCK_SKEW_S, 0, MAX_CLOCK_SKEW_S])
def test_a_clock_within_fifteen_minutes_is_accepted(monkeypatch: pytest.MonkeyPatch, skew_s: float) -> None:
    """Hosts without NTP drift."""
    check(request_signed_at(NOW + timedelta(seconds=skew_s), monkeypatch))


@pytest.mark.parametrize("skew_s", [-MAX_CLOCK_SKEW_S - 1, MAX_CLOCK_SKEW_S + 1])
def test_a_request_recorded_earlier_is_refused_with_the_difference(
    monkeypatch: pytest.MonkeyPatch, skew_s: float
) -> None:
    """A replay is refused, and an administrator learns that it is the clock."""
    request = request_signed_at(NOW + timedelta(seconds=skew_s), monkeypatch)
    with pytest.raises(ServiceError, match="901 s (before|after)") as caught:
        check(request)
    assert caught.value.code == "InvalidSignatureException"


def test_a_claimed_body_hash_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """X-Amz-Content-SHA256 says what the body should be; what counts is what came."""
    real = SigV4Auth.payload
    monkeypatch.setattr(SigV4Auth, "payload", lambda *_: "UNSIGNED-PAYLOAD")
    request = request_signed_at(NOW, monkeypatch, headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    monkeypatch.setattr(SigV4Auth, "payload", real)
    with pytest.raises(ServiceError, match="signature does not fit"):
        check(request)


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic dXNlcjpwYXNz",
        "AWS4-HMAC-SHA256 nonsense",
        "AWS4-HMAC-SHA256 Credential=A/20261122/r/s/aws4_request, SignedHeaders=host, Signature=" + "0" * 64,
    ],
)
def test_a_malformed_signature_is_incomplete(monkeypatch: pytest.MonkeyPatch, authorization: str) -> None:
    """Also one whose day is not the day of its date."""
    request = request_signed_at(NOW, monkeypatch, headers={"authorization": authorization})
    with pytest.raises(ServiceError) as caught:
        check(request)
    assert caught.value.code == "IncompleteSignatureException"


@pytest.mark.parametrize("header", ["x-amz-target", "host", "x-amz-security-token"])
def test_headers_that_decide_must_be_signed(monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    """An unsigned target could be exchanged on the way."""
    request = request_signed_at(NOW, monkeypatch, headers={header: "x"})
    authorization = request.headers["authorization"]
    for name in (f"{header};", f";{header}"):
        authorization = authorization.replace(name, "", 1) if name in authorization else authorization
    request = request_signed_at(NOW, monkeypatch, headers={header: "x", "authorization": authorization})
    with pytest.raises(ServiceError, match="SignedHeaders must name"):
        check(request)


def test_a_secret_never_prints() -> None:
    """Tracebacks and logs show values by repr and str."""
    assert {repr(SECRET), str(SECRET), f"{SECRET}"} == {"***", "Secret(***)"}

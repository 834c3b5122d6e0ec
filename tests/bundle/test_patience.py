"""How long a download is tried, when it is not, and what is said in the end."""

from __future__ import annotations

import dataclasses
import socket
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from agent.bundle import FetchedBundle, TransferPatience
from agent.bundle.fetch import fetch_bundle
from agent.bundle.session import without_secrets
from agent.errors import CommandFailure, CredentialsUnavailable
from agent.identity.credentials import Credentials
from tests.bundle.servers import Answer, Request, Server, s3_error
from tests.bundle.transfers import BODY, CREDENTIALS, REVISION, MovedClock, failed, fetch, sources, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bundle.conftest import Deployment

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def failure_of(deployment: Deployment, endpoint: str, **more: Any) -> tuple[CommandFailure, MovedClock]:
    clock = MovedClock()
    with pytest.raises(CommandFailure) as failure:
        fetch_bundle(REVISION, sources(endpoint, clock=clock, **more), deployment.bundle)
    assert [] == deployment.left()
    return failure.value, clock


def test_a_server_in_trouble_is_asked_for_five_minutes_and_then_named(deployment: Deployment) -> None:
    """A deployment must survive a bad minute of S3; and whoever reads the report must not look for a fault here."""
    clock = MovedClock()
    error = s3_error(500, "InternalError", "We encountered an error.")

    outcome, requests = fetch(deployment, lambda _: error, clock=clock)

    failure = failed(outcome, deployment)
    assert "bundle-server-error" == failure.error_id
    assert "S3 at http://127.0.0.1:" in failure.message
    assert "500 InternalError (We encountered an error) [request id REQ1]" in failure.message
    assert f"{len(requests)} times in 300 s" in failure.message
    assert "The fault is on its side" in failure.message
    assert not {"proxy", "DNS", "route"} & {*failure.message.split()}
    assert 300 == round(clock.now)
    assert len(requests) > 10


def test_the_patience_is_the_administrators(deployment: Deployment) -> None:
    """Zero: one attempt, and the deployment fails at once."""
    outcome, requests = fetch(
        deployment,
        lambda _: s3_error(503, "ServiceUnavailable"),
        patience=TransferPatience(give_up_after_s=0),
    )

    assert "tried once" in failed(outcome, deployment).message
    assert 1 == len(requests)


def test_a_server_that_recovers_is_used_whatever_came_before(deployment: Deployment) -> None:
    """Every kind of passing trouble in one download."""
    answers: dict[int, Answer] = {
        1: s3_error(500, "InternalError"),
        2: s3_error(503, "SlowDown"),
        3: dataclasses.replace(whole(Request(3, "", {})), cut_at=100_000),
        4: s3_error(429, "TooManyRequests"),
        5: Answer(504, b"<html>gateway"),
        6: Answer(200, BODY, {"Content-Length": None}, cut_at=0),
    }
    with capture_logs() as logs:
        outcome, _ = fetch(deployment, lambda request: answers.get(request.number) or whole(request))

    assert isinstance(outcome, FetchedBundle)
    assert BODY == deployment.bundle.read_bytes()
    troubles = [line["trouble"] for line in logs if "bundle_download_interrupted" == line["event"]]
    assert ["server in trouble", "throttled", "transfer interrupted"] == troubles[:3]


def test_lasting_trouble_is_one_line_in_the_log(deployment: Deployment) -> None:
    """Five minutes of attempts must not hide what else the log says."""
    with capture_logs() as logs:
        fetch(deployment, lambda _: s3_error(503, "ServiceUnavailable"))

    assert 1 == len([line for line in logs if "bundle_download_interrupted" == line["event"]])

    with capture_logs() as logs:
        fetch(
            deployment,
            lambda request: s3_error(503, "SlowDown") if request.number < 8 else whole(request),
        )
    assert 1 == len([line for line in logs if "bundle_download_interrupted" == line["event"]])


def test_throttling_is_called_by_its_name(deployment: Deployment) -> None:
    """Too many hosts at a time: no route and no proxy is at fault."""
    outcome, _ = fetch(deployment, lambda _: s3_error(503, "SlowDown", "Please reduce your request rate."))

    failure = failed(outcome, deployment)
    assert "bundle-throttled" == failure.error_id
    assert "asks for fewer requests: 503 SlowDown (Please reduce your request rate)" in failure.message
    assert "fewer hosts at a time" in failure.message


def test_a_server_that_wants_to_be_left_alone_is(deployment: Deployment) -> None:
    """Retry-After, as far as there is patience; beyond that, nothing is gained by waiting."""
    clock = MovedClock()
    outcome, requests = fetch(
        deployment,
        lambda request: (
            s3_error(503, "SlowDown", Retry_After="77") if request.number == 1 else whole(request)
        ),
        clock=clock,
    )
    assert isinstance(outcome, FetchedBundle)
    assert 77 == round(clock.now)

    clock = MovedClock()
    outcome, requests = fetch(
        deployment, lambda _: s3_error(503, "SlowDown", Retry_After="3600"), clock=clock
    )
    assert isinstance(outcome, CommandFailure)
    assert "left alone for 3600 s" in outcome.message
    assert 1 == len(requests)
    assert 0 == clock.now


def test_a_name_that_is_not_resolved_is_tried_and_named(deployment: Deployment) -> None:
    """A name server that restarts must not fail a deployment; a name that does not exist is said to be none."""
    failure, clock = failure_of(deployment, "http://no-such-host.invalid:9000")

    assert "bundle-download-failed" == failure.error_id
    assert "the name no-such-host.invalid:9000 can't be resolved" in failure.message
    assert "/etc/resolv.conf" in failure.message
    assert 300 == round(clock.now)


def test_a_refused_connection_is_tried_and_named(deployment: Deployment) -> None:
    """A server that restarts."""
    port = closed_port()

    failure, clock = failure_of(deployment, f"http://127.0.0.1:{port}")

    assert "bundle-download-failed" == failure.error_id
    assert f"no connection to 127.0.0.1:{port}" in failure.message
    assert "refused" in failure.message
    assert 300 == round(clock.now)


def test_a_stalled_transfer_is_given_up_and_tried_again(deployment: Deployment) -> None:
    """A connection that a firewall has forgotten never ends by itself."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        patience = TransferPatience(stall_timeout_s=0.01, give_up_after_s=0)
        failure, _ = failure_of(deployment, endpoint, patience=patience)

    assert "no data came from 127.0.0.1" in failure.message
    assert "bundle-download-failed" == failure.error_id


@pytest.mark.parametrize(
    "answer",
    [
        s3_error(403, "AccessDenied"),
        s3_error(404, "NoSuchKey"),
        s3_error(400, "InvalidRequest"),
        s3_error(501, "NotImplemented"),
        Answer(200, BODY, {"ETag": '"another"'}),
    ],
    ids=["403", "404", "400", "501", "wrong ETag"],
)
def test_what_cannot_get_better_fails_at_once(deployment: Deployment, answer: Answer) -> None:
    """Five minutes of waiting for nothing would be five minutes of a deployment that hangs."""
    clock = MovedClock()

    outcome, requests = fetch(
        deployment, lambda _: answer, dataclasses.replace(REVISION, etag="registered"), clock=clock
    )

    failed(outcome, deployment)
    assert 1 == len(requests)
    assert 0 == clock.now


def rotating(count: int) -> tuple[Callable[[], Credentials], Callable[[], None]]:
    """Credentials, and what renews them; the first `count` keys are AKIA0, AKIA1 and so on."""
    at = [0]

    def current() -> Credentials:
        return Credentials(access_key_id=f"AKIA{at[0]}", secret_access_key=CREDENTIALS.secret_access_key)

    def renew() -> None:
        at[0] = min(at[0] + 1, count - 1)

    return current, renew


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"])
def test_expired_credentials_are_renewed_and_used(deployment: Deployment, code: str) -> None:
    """The metadata service has new ones before the old ones end; ours may be a memory."""
    current, renew = rotating(2)

    outcome, requests = fetch(
        deployment,
        lambda request: (
            s3_error(400, code) if "AKIA0" in request.headers["authorization"] else whole(request)
        ),
        credentials=current,
        renew_credentials=renew,
    )

    assert isinstance(outcome, FetchedBundle)
    assert 2 == len(requests)


def test_credentials_that_stay_expired_are_named(deployment: Deployment) -> None:
    """Which ones, that they were renewed, and who has to renew them."""
    current, renew = rotating(2)
    clock = MovedClock()

    outcome, requests = fetch(
        deployment,
        lambda _: s3_error(400, "ExpiredToken", "The provided token has expired."),
        credentials=current,
        renew_credentials=renew,
        credentials_source="profile default in /etc/rotated",
        clock=clock,
    )

    failure = failed(outcome, deployment)
    assert "bundle-credentials-expired" == failure.error_id
    for words in (
        "AKIA1",
        "profile default in /etc/rotated",
        "asked for anew once",
        "400 ExpiredToken",
        "REQ1",
    ):
        assert words in failure.message
    assert 2 == len(requests)
    assert 0 == clock.now


def test_credentials_that_expire_again_in_a_long_transfer_are_renewed_again(deployment: Deployment) -> None:
    """A large bundle over a bad line takes longer than a token lives."""
    current, renew = rotating(9)

    def answer(request: Request) -> Answer:
        if request.number % 2:
            return s3_error(400, "ExpiredToken")
        return dataclasses.replace(whole(request), cut_at=100_000 if request.number < 6 else None)

    outcome, _ = fetch(deployment, answer, credentials=current, renew_credentials=renew)

    assert isinstance(outcome, FetchedBundle)
    assert BODY == deployment.bundle.read_bytes()


@pytest.mark.parametrize("is_back", [True, False])
def test_credentials_that_are_lost_in_the_middle_of_a_transfer_are_waited_for(
    deployment: Deployment, *, is_back: bool
) -> None:
    """They expire just while the metadata service does not answer; a host that never had any fails at once."""
    asked = []

    def current() -> Credentials:
        asked.append(1)
        if len(asked) == 1 or (is_back and len(asked) > 4):
            return CREDENTIALS
        raise CredentialsUnavailable("The metadata service does not answer.")

    clock = MovedClock()
    outcome, requests = fetch(
        deployment,
        lambda request: dataclasses.replace(whole(request), cut_at=100_000 if request.number == 1 else None),
        credentials=current,
        clock=clock,
    )

    if is_back:
        assert isinstance(outcome, FetchedBundle)
        assert BODY == deployment.bundle.read_bytes()
        assert 2 == len(requests)
        return
    failure = failed(outcome, deployment)
    assert "bundle-credentials-missing" == failure.error_id
    assert "no credentials any more: The metadata service does not answer. It was tried" in failure.message
    assert clock.now >= 300


def test_an_archived_object_says_how_to_get_it_back(deployment: Deployment) -> None:
    """No permission is missing: it lies in Glacier."""
    refusal = s3_error(
        403,
        "InvalidObjectState",
        "The operation is not valid for the object's storage class",
        more="<StorageClass>GLACIER</StorageClass>",
    )

    outcome, requests = fetch(deployment, lambda _: refusal)

    failure = failed(outcome, deployment)
    assert "bundle-archived" == failure.error_id
    assert "storage class GLACIER" in failure.message
    assert "restore-object --bucket releases --key 'web app/v1.tgz'" in failure.message
    assert "s3:GetObject" not in failure.message
    assert 1 == len(requests)


def test_a_deployment_that_is_stopped_ends_its_download(deployment: Deployment) -> None:
    """StopDeployment must not wait for the end of a patience of minutes."""
    clock = MovedClock()

    outcome, _ = fetch(
        deployment,
        lambda _: s3_error(503, "ServiceUnavailable"),
        clock=clock,
        is_cancelled=lambda: clock.now > 20,
    )

    failure = failed(outcome, deployment)
    assert "bundle-download-cancelled" == failure.error_id
    assert clock.now < 21


def test_a_deployment_that_is_stopped_ends_a_transfer_that_is_under_way(deployment: Deployment) -> None:
    """A large bundle over a slow line is no reason to go on either."""
    outcome, _ = fetch(deployment, whole, is_cancelled=lambda: True)

    assert "bundle-download-cancelled" == failed(outcome, deployment).error_id


def test_a_proxy_that_cannot_be_reached_is_named_without_its_password(deployment: Deployment) -> None:
    """S3 is not at fault, and neither is the route to it."""
    port = closed_port()

    for endpoint in ("http://s3.example", "https://s3.example"):
        failure, _ = failure_of(deployment, endpoint, proxy_uri=f"http://me:hidden@127.0.0.1:{port}")

        assert "bundle-proxy-failed" == failure.error_id
        assert f"the proxy http://***@127.0.0.1:{port} (proxy_uri in the agent's settings)" in failure.message
        assert "hidden" not in failure.message
        assert "refused" in failure.message


def test_a_proxy_whose_name_is_not_resolved_is_named_with_where_it_is_from(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A left-over variable in the unit's environment is hard to find otherwise."""
    monkeypatch.setenv("https_proxy", "http://no-such-proxy.invalid:3128")

    failure, _ = failure_of(deployment, "https://s3.example")

    assert "bundle-proxy-failed" == failure.error_id
    assert "the name of the proxy http://no-such-proxy.invalid:3128" in failure.message
    assert "https_proxy in the agent's environment" in failure.message


@pytest.mark.parametrize(("status", "words"), [(407, "user and a password"), (403, "it answers 403")])
def test_a_proxy_that_refuses_is_named_at_once(deployment: Deployment, status: int, words: str) -> None:
    """Its password or its rules have to change; no attempt will."""
    refusing = _ConnectProxy(status)
    with refusing.running():
        failure, clock = failure_of(deployment, "https://s3.example", proxy_uri=refusing.url)

    assert "bundle-proxy-refused" == failure.error_id
    assert words in failure.message
    assert refusing.url in failure.message
    assert 0 == clock.now


def test_a_proxy_that_asks_for_a_password_on_plain_http_is_named(deployment: Deployment) -> None:
    """The same refusal comes as an answer, where it looks like one of S3."""
    with Server(lambda _: Answer(407)).running() as proxy:
        failure, _ = failure_of(deployment, "http://s3.example", proxy_uri=proxy.url)

    assert "bundle-proxy-refused" == failure.error_id


def test_the_proxy_is_named_when_what_is_behind_it_fails(deployment: Deployment) -> None:
    """Whoever looks for the fault has to know that there are two servers."""
    with Server(lambda _: s3_error(403, "AccessDenied")).running() as proxy:
        failure, _ = failure_of(deployment, "http://s3.example", proxy_uri=proxy.url)
    assert f"S3 at http://s3.example, through the proxy {proxy.url}" in failure.message

    with Server(lambda _: Answer(403, b"<html>Blocked by policy")).running() as proxy:
        failure, _ = failure_of(deployment, "http://s3.example", proxy_uri=proxy.url)
    assert "does not answer as S3 does: a proxy or firewall" in failure.message

    with Server(lambda _: Answer(502, b"<html>")).running() as proxy:
        failure, _ = failure_of(deployment, "http://s3.example", proxy_uri=proxy.url)
    assert f"through the proxy {proxy.url}" in failure.message
    assert "answers 502, and not in the words of S3" in failure.message


def test_what_answers_in_plain_text_is_said_to_speak_no_tls(deployment: Deployment) -> None:
    """A port of plain http, or a portal on the way. `[SSL: WRONG_VERSION_NUMBER] (_ssl.c:1006)` tells nobody."""
    with Server(lambda _: Answer(200)).running() as server:
        failure, _ = failure_of(deployment, server.url.replace("http:", "https:"))

    assert "bundle-download-failed" == failure.error_id
    assert f"what answers at 127.0.0.1:{server.port} does not speak TLS" in failure.message
    assert "meant to be asked with https" in failure.message
    assert "_ssl.c" not in failure.message


def test_reasons_of_the_system_come_without_their_numbers(deployment: Deployment) -> None:
    """`[Errno 111]` is for programmers."""
    port = closed_port()
    refused, _ = failure_of(deployment, f"http://127.0.0.1:{port}")
    unresolved, _ = failure_of(deployment, "http://no-such-name.invalid")

    assert f"no connection to 127.0.0.1:{port} (Connection refused)" in refused.message
    assert "the name no-such-name.invalid can't be resolved (" in unresolved.message
    assert "Errno" not in refused.message + unresolved.message


def test_a_proxy_that_cannot_reach_the_server_is_tried_again(deployment: Deployment) -> None:
    """A gateway's 503 passes; its words would be taken for the proxy's refusal."""
    refusing = _ConnectProxy(503)
    with refusing.running():
        failure, clock = failure_of(deployment, "https://s3.example", proxy_uri=refusing.url)

    assert "bundle-proxy-failed" == failure.error_id
    assert "answers 503 when asked for s3.example" in failure.message
    assert 300 == round(clock.now)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:pa:ss@proxy:3128", "http://***@proxy:3128"),
        ("user:pass@proxy:3128", "***@proxy:3128"),
        ("http://proxy:3128", "http://proxy:3128"),
    ],
)
def test_secrets_of_a_proxy_are_not_shown(uri: str, shown: str) -> None:
    """Reports are read by many."""
    assert shown == without_secrets(uri)


class _ConnectProxy(Server):
    """Answers every CONNECT with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(lambda _: Answer(status))

# Which method of the protocol answers a path, with which parameters, and how results are written.
from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from brokerd.core.errors import Code, Failure
from brokerd.edge.http.requests import HttpReader, HttpRequest
from brokerd.server.http.messages import STATUS, Refused, failure_body, final_answer, retry_header
from brokerd.server.http.routes import ROUTES, event_of, route_of

TOKEN = {"grant": "app", "value": "abc", "token_type": "Bearer", "expires_at": None}


def asked(target: str, method: str = "GET", body: bytes = b"", **headers: str) -> HttpRequest:
    lines = {"Host": "brokerd", "Content-Length": str(len(body)), **headers}
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {text}\r\n" for name, text in lines.items())
    reader = HttpReader()
    reader.feed(head.encode() + b"\r\n" + body)
    (request,) = reader
    return request


@pytest.mark.parametrize(
    ("request_", "call", "params"),
    [
        (asked("/v1/token/app"), "get", {"grant": "app"}),
        (asked("/v1/token/a%2Db?scope=x+y&min_ttl=5"), "get", {"grant": "a-b", "scope": ["x", "y"], "min_ttl": 5.0}),
        (asked("/v1/header/app?audience=a&resource=r"), "get", {"grant": "app", "audience": "a", "resource": "r"}),
        (asked("/v1/refused/app", "POST", b"tok\n"), "get", {"grant": "app", "refused": "tok"}),
        (asked("/v1/events?grant=a&grant=b"), "watch", {"grants": ["a", "b"]}),
        (asked("/v1/status"), "status", {}),
        (asked("/v1/status?grant=a"), "status", {"grants": ["a"]}),
    ],
)
def test_a_path_is_a_request_for_a_method(request_: HttpRequest, call: str, params: dict[str, object]) -> None:
    route, found = route_of(request_)
    assert (route.call, found) == (call, params)


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS"])
def test_another_method_is_told_which_one_is_right(method: str) -> None:
    with pytest.raises(Refused) as caught:
        route_of(asked("/v1/token/app", method))
    assert (caught.value.status, caught.value.headers) == (HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET"})


def test_a_page_in_a_browser_gets_nothing() -> None:
    with pytest.raises(Refused) as caught:
        route_of(asked("/v1/token/app", Origin="null"))
    assert caught.value.status == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/v1/events", "expected at least one grant"),
        ("/v1/token/app?wait=soon", "expected a number of seconds"),
        ("/v1/header/app?as=body", "expected as=header, found as='body'"),
        ("/v1/header/app?as=header&as=header", "expected as=header"),
        ("/v1/token/app?as=header", "unknown parameter 'as'"),
        ("/v1/token/app?waits=5", "unknown parameter 'waits'; known: min_ttl, wait, scope, audience, resource"),
    ],
)
def test_a_wrong_parameter_is_named(target: str, words: str) -> None:
    with pytest.raises(Failure, match=words) as caught:
        route_of(asked(target))
    assert caught.value.code == Code.BAD_REQUEST


@pytest.mark.parametrize("body", [b"", b"\n", b"a\nb", b"\xff", b"a\x00"])
def test_a_body_that_is_no_token_is_refused(body: bytes) -> None:
    with pytest.raises(Failure, match="expected the token that the API refused"):
        route_of(asked("/v1/refused/app", "POST", body))


def test_a_token_is_written_with_its_header_and_its_rest() -> None:
    found = {**TOKEN, "present": "X-Key: {access_token}", "scope": ["a", "b"], "fields": {"url": "https://a"}}
    written = ROUTES[0].write(found)
    assert (written.content_type, json.loads(written.body)) == (
        "application/json",
        {
            "grant": "app",
            "access_token": "abc",
            "token_type": "Bearer",
            "expires_at": None,
            "expires_in": None,
            "header": "X-Key: abc",
            "scope": "a b",
            "fields": {"url": "https://a"},
        },
    )
    assert ROUTES[1].write(TOKEN) == ("text/plain; charset=utf-8", b"Authorization: Bearer abc\n", {}, 200)


def test_a_token_stands_in_a_header_of_the_answer_only_if_that_is_asked_for() -> None:
    route, params = route_of(asked("/v1/header/app?as=header&min_ttl=5"))
    assert params == {"grant": "app", "min_ttl": 5.0}
    assert route.write(TOKEN) == ("text/plain; charset=utf-8", b"", {"Brokerd_Header_Value": "Bearer abc"}, 200)
    assert route.write({**TOKEN, "present": "X-Key: {access_token}"}).headers == {"Brokerd_Header_Value": "abc"}
    assert all(row.write(TOKEN).headers == {} for row in ROUTES if row.call == "get")


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\x00", "ä", "a\x7f"])
def test_a_token_that_no_header_can_carry_stands_in_none(value: str) -> None:
    route, _ = route_of(asked("/v1/header/app?as=header"))
    with pytest.raises(Failure, match="expected a token that a header can carry") as caught:
        route.write({**TOKEN, "value": value})
    assert value not in caught.value.message


def test_an_event_is_one_line_of_data() -> None:
    assert event_of("token", TOKEN).count(b"\n") == 3
    gone = event_of("gone", {"grant": "app", "code": "revoked", "message": "a\nb"})
    assert gone == b'event: gone\ndata: {"grant":"app","error":"revoked","message":"a\\nb"}\n\n'


def test_every_code_of_the_protocol_has_a_status_and_unknown_looks_like_denied() -> None:
    assert set(STATUS) == set(Code)
    assert STATUS[Code.DENIED] == STATUS[Code.UNKNOWN_GRANT]


def test_a_failure_is_written_with_its_code_and_when_to_try_again() -> None:
    failure = Failure(Code.UNAVAILABLE, "the provider is down", retry_after=1.2)
    assert json.loads(failure_body(failure))["error"] == "unavailable"
    assert retry_header(failure) == {"Retry-After": "2"}
    answer = final_answer(failure)
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert b"\r\nRetry-After: 2\r\n" in answer

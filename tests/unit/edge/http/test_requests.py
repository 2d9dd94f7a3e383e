# Requests out of bytes, and bytes of answers: however the bytes come, and by h11 or by the short way.
from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.edge.http.requests import PLAIN, BadHttp, HttpReader, HttpRequest

GET = (
    b"GET /v1/token/app?scope=a%20b&scope=c HTTP/1.1\r\nHost: brokerd\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
)
POST = b"POST /v1/refused/app HTTP/1.1\r\nHost: brokerd\r\nContent-Length: 5\r\n\r\ntoken"
CHUNKED = b"POST /v1/refused/app HTTP/1.1\r\nHost: brokerd\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ntoken\r\n0\r\n\r\n"
STREAM = [GET, POST, GET, GET, CHUNKED, GET]


def answered(chunks: list[bytes], *, short: bool = True) -> tuple[list[HttpRequest], bytes]:
    """All requests, each answered with its number, and the bytes of the answers."""
    reader, found, answers = HttpReader(short=short), list[HttpRequest](), b""
    for chunk in chunks:
        reader.feed(chunk)
        for request in reader:
            found.append(request)
            data, again = reader.answer(200, "text/plain", str(len(found)).encode())
            answers += data
            assert again
    assert not reader.partial
    return found, answers


def test_a_request_is_read_with_its_query_and_body() -> None:
    (get, post), _ = answered([GET, POST])
    assert (get.method, get.parts, get.query) == ("GET", ("v1", "token", "app"), {"scope": ["a b", "c"]})
    assert (post.method, post.parts, post.body, post.origin) == ("POST", ("v1", "refused", "app"), b"token", None)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a?b=c", "/a", {"b": "c"}),
        (b"http://brokerd/a?b=c", "/a", {"b": "c"}),
        (b"HTTPS://brokerd:80/a", "/a", {}),
        (b"http://brokerd?b=c", "/", {"b": "c"}),
        (b"http://user@brokerd/a", "", {}),
        (b"http:/a", "", {}),
        (b"*", "", {}),
    ],
)
@pytest.mark.parametrize("short", [True, False])
def test_a_whole_url_is_its_path_and_query(target: bytes, path: str, query: dict[str, str], short: bool) -> None:
    [found], _ = answered([b"GET " + target + b" HTTP/1.1\r\nHost: brokerd\r\n\r\n"], short=short)
    assert (found.path, found.query) == (path, query)


@given(st.lists(st.integers(0, len(b"".join(STREAM)))))
def test_however_the_bytes_are_cut_the_requests_and_answers_are_the_same(cuts: list[int]) -> None:
    stream = b"".join(STREAM)
    edges = [0, *sorted(cuts), len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(edges) if a < b]
    assert answered(chunks) == answered(STREAM, short=False)


def test_the_short_way_is_taken_by_what_common_clients_send() -> None:
    heads = [
        GET,
        b"GET /a HTTP/1.1\r\nHost: brokerd\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n",
        b"GET /v1/token/app HTTP/1.1\r\nHost: brokerd\r\nConnection: keep-alive\r\n\r\n",
        b"GET /v1/token/app HTTP/1.1\r\nAccept-Encoding: identity\r\nhost: localhost:80\r\n\r\n",
    ]
    assert all(PLAIN.fullmatch(each) for each in heads)


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 1",
        b"content-LENGTH: 1",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b"Connection: keep-alive, close",
        b"Expect: 100-continue",
        b"Upgrade: h2c",
        b"Origin: https://evil.example",
        b"Host: other",
        b" folded",
        b"X : a",
        b"X: a\nY: b",
        b"X: a\x00",
    ],
)
def test_what_decides_something_goes_the_long_way(line: bytes) -> None:
    assert not PLAIN.fullmatch(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n")
    assert not PLAIN.fullmatch(b"GET / HTTP/1.1\r\n" + line + b"\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"secret-token\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nsecret-token\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: secret-token\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: secret-token\r\n\r\n",
        b"POST /v1/refused/app HTTP/1.1\r\nHost: a\r\n\r\nsecret-token\r\n\r\n",
        b"GET /?" + b"secret-token=1&" * 70 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/?" + b"secret-token=1&" * 70 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
@pytest.mark.parametrize("short", [True, False])
def test_a_refusal_repeats_nothing_that_may_be_a_secret(data: bytes, short: bool) -> None:
    """A client may have put its token in the wrong place, and the words are logged (law 11)."""
    reader = HttpReader(short=short)
    reader.feed(data)

    def answer_all() -> None:
        for _ in reader:
            reader.answer(200, "text/plain", b"")

    with pytest.raises(BadHttp) as caught:
        answer_all()
    assert "secret" not in str(caught.value)


def test_a_client_that_waits_before_its_body_is_told_to_go_on_once() -> None:
    reader = HttpReader()
    reader.feed(b"POST /v1/refused/app HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert list(reader) == []
    assert reader.wants_body
    assert reader.proceed() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not reader.wants_body
    reader.feed(b"token")
    assert [each.body for each in reader] == [b"token"]


def test_an_answer_to_head_has_no_body() -> None:
    reader = HttpReader()
    reader.feed(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [each.method for each in reader] == ["HEAD"]
    data, again = reader.answer(405, "application/json", b"body", Allow="GET")
    assert (data.endswith(b"\r\n\r\n"), b"Allow: GET\r\n" in data, again) == (True, True, True)


@pytest.mark.parametrize("short", [True, False])
def test_an_answer_without_a_length_comes_in_chunks(short: bool) -> None:
    reader = HttpReader(short=short)
    reader.feed(GET)
    assert len(list(reader)) == 1
    data = reader.begin(200, "text/event-stream") + reader.piece(b"x" * 17) + reader.end()
    assert data.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n")
    assert data.endswith(b"Transfer-Encoding: chunked\r\n\r\n11\r\n" + b"x" * 17 + b"\r\n0\r\n\r\n")


def test_what_comes_while_a_request_is_answered_is_kept_and_bounded() -> None:
    reader = HttpReader()
    reader.feed(GET)
    assert len(list(reader)) == 1
    while not reader.is_full:
        reader.feed(GET)
    assert reader.has_more
    assert list(reader) == []
    assert reader.answer(200, "text/plain", b"1")[1]
    assert len(list(reader)) == 1

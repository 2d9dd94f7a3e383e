# Which heads are read, and how their bodies are framed. What two readers could understand in two ways is
# refused. That h11 reads all others in the same way is for tests/stress/fuzz/proxied.py.
import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerd.core.http import heads
from brokerd.core.http.heads import BadHead, read_request, read_response
from tests.unit.core.http import plain_heads

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
OK = b"HTTP/1.1 200 OK\r\n"

REFUSED = {
    "two lengths": GET + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "two equal lengths": GET + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
    "a list of lengths": GET + b"Content-Length: 3, 3\r\n\r\n",
    "a length with a sign": GET + b"Content-Length: +3\r\n\r\n",
    "a negative length": GET + b"Content-Length: -3\r\n\r\n",
    "a length in hexadecimal": GET + b"Content-Length: 0x3\r\n\r\n",
    "an empty length": GET + b"Content-Length: \r\n\r\n",
    "a length in other digits": GET + "Content-Length: ٣\r\n\r\n".encode(),
    "a length beyond everything": GET + b"Content-Length: 9999999999999999999\r\n\r\n",
    "length and coding": GET + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding and length": GET + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    "another coding": GET + b"Transfer-Encoding: gzip\r\n\r\n",
    "two codings": GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked twice": GET + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
    "two lines of codings": GET + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
    "a quoted coding": GET + b'Transfer-Encoding: "chunked"\r\n\r\n',
    "a coding with a parameter": GET + b"Transfer-Encoding: chunked;q=1\r\n\r\n",
    "a coding with a vertical tab": GET + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "a coding in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a folded line": GET + b"X: a\r\n b\r\n\r\n",
    "a folded coding": GET + b"Transfer-Encoding:\r\n chunked\r\n\r\n",
    "a first line that is folded": b"GET / HTTP/1.1\r\n X: a\r\nHost: x\r\n\r\n",
    "a bare LF": GET + b"X: a\nY: b\r\n\r\n",
    "a bare LF at the end": GET + b"X: a\r\n\n\r\n\r\n",
    "a bare CR": GET + b"X: a\rY: b\r\n\r\n",
    "a NUL": GET + b"X: a\0b\r\n\r\n",
    "a DEL": GET + b"X: a\x7fb\r\n\r\n",
    "a blank before the colon": GET + b"Content-Length : 3\r\n\r\n",
    "a name that is no token": GET + b"Content Length: 3\r\n\r\n",
    "no name": GET + b": a\r\n\r\n",
    "no colon": GET + b"Content-Length\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "an empty Host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "two Hosts": GET + b"Host: y\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "http in small letters": b"GET / http/1.1\r\nHost: x\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab": b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a blank in the target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a letter beyond ASCII in the target": "GET /ä HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "a blank behind the version": b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
    "an empty line before": b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
}
REFUSED_ANSWERS = {
    "length and coding": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "another coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "a coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a folded line": OK + b"X: a\r\n b\r\n\r\n",
    "a bare LF": OK + b"X: a\nContent-Length: 3\r\n\r\n",
    "a bare CR in the reason": b"HTTP/1.1 200 O\rK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "another protocol": b"ICY 200 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
}


@pytest.mark.parametrize("head", REFUSED.values(), ids=REFUSED)
def test_a_request_that_can_be_read_in_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(BadHead) as caught:
        read_request(head)
    assert str(caught.value).startswith("expected ")


@pytest.mark.parametrize("head", REFUSED_ANSWERS.values(), ids=REFUSED_ANSWERS)
def test_an_answer_that_can_be_read_in_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(BadHead):
        read_response(head)


def test_a_head_says_how_its_body_is_framed_and_how_the_connection_goes_on() -> None:
    plain = read_request(GET + b"\r\n")
    assert (plain.has_body, plain.keeps_alive, plain.framing.host) == (False, True, b"x")
    counted = read_request(GET + b"CONTENT-LENGTH: 3 \r\nConnection: Close\r\nExpect: 100-Continue\r\n\r\n")
    assert (counted.framing.length, counted.keeps_alive, counted.framing.expects) == (3, False, True)
    assert read_request(GET + b"Transfer-Encoding: Chunked\r\n\r\n").framing.chunked
    old = read_request(b"GET / HTTP/1.0\r\n\r\n")
    assert (old.keeps_alive, old.framing.expects) == (False, False)
    assert read_request(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keeps_alive
    lists = read_request(GET + b"Connection: a, Upgrade\r\nConnection: B\r\nUpgrade: websocket\r\n\r\n")
    assert lists.framing.options >= {b"a", b"b", b"upgrade"}


@pytest.mark.parametrize(
    ("method", "status", "ends"),
    [(b"GET", 200, False), (b"HEAD", 200, True), (b"GET", 204, True), (b"GET", 304, True), (b"GET", 101, True)],
)
def test_some_answers_have_no_body_whatever_their_head_says(method: bytes, status: int, *, ends: bool) -> None:
    assert read_response(b"HTTP/1.1 %d X\r\nContent-Length: 3\r\n\r\n" % status).ends_at_head(method) is ends


NAMES = st.from_regex(rb"X-[A-Za-z0-9]{1,8}", fullmatch=True)
VALUES = st.from_regex(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]{0,12}[!-~\x80-\xff])?)?", fullmatch=True)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    method=st.from_regex(rb"[A-Z]{1,10}", fullmatch=True),
    target=st.from_regex(rb"/[!-~]{0,20}", fullmatch=True),
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=5),
)
def test_what_h11_builds_is_read_as_it_was_meant(
    method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    request = h11.Request(method=method, target=target, headers=[("Host", "x"), *headers])
    data = h11.Connection(h11.CLIENT).send(request)
    assert data is not None
    head = read_request(data)
    assert (head.method, head.target) == (method, target)
    assert [line for _, line, _ in head.headers][1:] == [b"%b: %b\r\n" % each for each in headers]


# What is remembered of lines changes no decision: the plain reader, which remembers nothing, agrees.

KNOWN_LINES = [
    *(b"Host: x", b"host:y", b"Content-Length: 3", b"content-length:3", b"Content-Length: +3", b"Content-Length: "),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Connection: close", b"Connection: a, Keep-Alive"),
    *(b"Expect: 100-continue", b"Upgrade: h2c", b"X: \t a \t", b"X:a\rb", b"X:a\nb", b" X: a", b"X : a", b"X", b": a"),
    *(b"X: a\0", b"X: \xff", b"\xff: a", b"", b"Set-Cookie: a=b", b"X: " + b"a" * 5_000),
]
STARTS = [
    *(b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"GET  / HTTP/1.1", b"G\xff / HTTP/1.1", b"GET /\x80 HTTP/1.1", b""),
    *(b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1 200 ", b"HTTP/1.1 099 X", b"HTTP/1.1 200 a\rb"),
    *(b"HTTP/2 200 OK", b"HTTP/1.1 2000", b"HTTP/1.1 200\tOK", b"HTTP/1.1 200 " + b"a" * 5_000),
]
LINE_OF_A_HEAD = st.one_of(st.sampled_from(KNOWN_LINES), st.binary(max_size=12))


@settings(max_examples=500, deadline=None)
@given(
    start=st.one_of(st.sampled_from(STARTS), st.binary(max_size=16)),
    lines=st.lists(LINE_OF_A_HEAD, max_size=5),
    end=st.sampled_from([b"\r\n\r\n", b"\r\n\r\n", b"\r\n", b"\n\n", b"", b"\r\n\r\n\r\n"]),
)
def test_a_head_is_read_as_by_a_reader_that_remembers_nothing(start: bytes, lines: list[bytes], end: bytes) -> None:
    data = b"\r\n".join((start, *lines)) + end
    for reads, plain in ((read_request, plain_heads.read_request), (read_response, plain_heads.read_response)):
        try:
            expected: object = plain(data)
        except BadHead as error:
            expected = str(error)
        for _ in range(2):  # the second time from what is remembered
            try:
                found: object = reads(data)
            except BadHead as error:
                found = str(error)
            assert found == expected


def test_what_is_remembered_of_lines_is_little_and_nothing_private() -> None:
    for number in range(3 * heads.REMEMBERED):
        read_response(OK + b"X: %d\r\nSet-Cookie: id=%d\r\nY: %b\r\n\r\n" % (number, number, b"y" * 200))
    read_request(GET + b"Authorization: Bearer s3cret\r\nCookie: s3cret\r\n\r\n")
    assert 0 < len(heads._known) <= heads.REMEMBERED
    assert not [line for line in heads._known if b"Cookie" in line or b"s3cret" in line or b"yy" in line]

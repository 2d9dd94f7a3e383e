# Where a body ends, whatever pieces it comes in.
import pytest

from brokerd.core.http.bodies import LINES, LONGEST_LINE, ChunkedBody, CountedBody, EndlessBody
from brokerd.core.http.heads import BadHead

TRICKS = {
    "lines that end in LF": b"1\na\n0\n\n",
    "an extension that ends in LF": b"1;x=\n5\r\na\r\n0\r\n\r\n",
    "a size with 0x": b"0x1\r\na\r\n0\r\n\r\n",
    "a negative size": b"-1\r\na\r\n",
    "a size with a sign": b"+1\r\na\r\n",
    "a size with an underscore": b"1_0\r\n",
    "no size": b"\r\n",
    "a blank before the size": b" 1\r\na\r\n",
    "a size beyond everything": b"ffffffffffffffffffff\r\n",
    "more than its size": b"1\r\nab\r\n0\r\n\r\n",
    "less than its size": b"3\r\nab\r\n0\r\n\r\n",
    "CR alone behind a chunk": b"1\r\na\rb0\r\n\r\n",
    "a NUL in an extension": b"1;\0\r\na\r\n",
    "a trailer that is folded": b"0\r\nX: a\r\n b\r\n\r\n",
    "a trailer without a colon": b"0\r\nX\r\n\r\n",
    "a line without an end": b"0" * LONGEST_LINE,
    "an extension without an end": b"1;" + b"x" * LONGEST_LINE,
    "trailers without an end": b"0\r\n" + b"X: y\r\n" * 5_000,
}


def read(body: ChunkedBody, data: bytes) -> tuple[bytes, bytes]:
    """The body's contents and what is behind it."""
    found = b""
    while data and not body.ended:
        piece, used = body.take(memoryview(data))
        found, data = found + piece, data[used:]
    return found, data


def read_in_steps(data: bytes, step: int) -> None:
    body = ChunkedBody()
    for at in range(0, len(data), step):
        read(body, data[at : at + step])


@pytest.mark.parametrize("data", TRICKS.values(), ids=TRICKS)
@pytest.mark.parametrize("step", [1, 10_000])
def test_chunks_that_can_be_read_in_two_ways_are_refused(data: bytes, step: int) -> None:
    with pytest.raises(BadHead):
        read_in_steps(data, step)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1_000])
def test_chunks_extensions_and_trailers_are_cut_off(step: int) -> None:
    data, body, found = b'5;a="b"\r\nhello\r\n1 ; c\r\n!\r\n000\r\nX: y\r\n\r\nGET', ChunkedBody(), b""
    for at in range(0, len(data), step):
        assert body.truncated
        piece, rest = read(body, data[at : at + step])
        found += piece
        if body.ended:
            break
    assert found == b"hello!"
    assert b"GET".startswith(rest)


def test_chunks_of_one_byte_are_read_in_turns() -> None:
    body = ChunkedBody()
    piece, used = body.take(memoryview(b"1\r\na\r\n" * LINES))
    assert len(piece) == LINES // 2
    assert used == len(piece) * 6


def test_a_counted_body_ends_by_its_length_and_another_with_its_connection() -> None:
    body = CountedBody(3)
    assert body.take(memoryview(b"ab")) == (b"ab", 2)
    assert body.truncated
    assert body.take(memoryview(b"cGET")) == (b"c", 1)
    assert body.ended
    assert not body.truncated
    assert CountedBody(0).ended
    endless = EndlessBody()
    assert endless.take(memoryview(b"abc")) == (b"abc", 3)
    assert not endless.truncated

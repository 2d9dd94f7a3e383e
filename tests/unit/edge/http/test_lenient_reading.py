# Heads and bodies that break the rules, as bytes: the repair always ends, keeps the framing, and needs little memory.
from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.edge.http.lenient_reading import decompressed, repaired

LINES = st.lists(
    st.binary(max_size=20).map(lambda line: line.replace(b"\n", b""))
    | st.sampled_from(
        [b"A: b", b"A : b", b" more", b"No colon", b"X\x00: y", b"Transfer-Encoding: identity", b"A:\x07"]
    )
)
FRAMING = (b"Content-Length: 5", b"Content-Length : 6", b"content-length", b"Transfer-Encoding: chunked")


@given(LINES, st.sampled_from(FRAMING))
def test_no_line_about_where_the_body_ends_is_lost(lines: list[bytes], framing: bytes) -> None:
    found = repaired(b"\r\n".join([b"HTTP/1.1 200 OK", framing, *lines]) + b"\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert found.endswith(b"\r\n\r\n")
    assert framing.replace(b" :", b":") in found
    assert repaired(found) == found


@given(st.binary(max_size=200), st.sampled_from(["", "gzip", "deflate", "br", "identity", "GZIP "]))
def test_no_body_raises_and_none_grows_beyond_the_limit(body: bytes, coding: str) -> None:
    for each in (body, b"\x1f\x8b" + body, gzip.compress(body)[: len(body)]):
        found = decompressed(each, coding, 100)
        assert found is None or len(found[0]) <= 100


@pytest.mark.parametrize("squeeze", [gzip.compress, zlib.compress])
def test_what_is_as_long_as_the_limit_is_read_and_a_byte_more_is_not(squeeze: object) -> None:
    assert callable(squeeze)
    coding = "gzip" if squeeze is gzip.compress else "deflate"
    assert decompressed(squeeze(b"x" * 1000), coding, 1000) == (b"x" * 1000, True)
    assert decompressed(squeeze(b"x" * 1001), coding, 1000) is None


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_body_that_breaks_off_anywhere_is_never_a_whole_one(coding: str) -> None:
    """Else a form that ends in the middle of its refresh token would be believed."""
    body = b"access_token=test-only-access&refresh_token=test-only-refresh"
    squeezed = (gzip if coding == "gzip" else zlib).compress(body)
    assert decompressed(squeezed, coding, 1000) == (body, True)
    for end in range(len(squeezed)):
        found = decompressed(squeezed[:end], coding, 1000)
        assert found is None or found[1] is False
    if coding == "gzip":
        parts = gzip.compress(body[:-9]) + gzip.compress(body[-9:])
        assert decompressed(parts, coding, 1000) == (body[:-9], False)
        assert decompressed(squeezed + bytes(9), coding, 1000) == (body, True), "NULs fill up a block"

# Reads answers that break HTTP's rules in ways that are safe to accept, though h11 refuses them (law 3): invalid lines
# in the head, and bodies that are compressed although the request forbade it. Pure functions on bytes.
from __future__ import annotations

import re
import zlib

NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
FRAMING = (b"content-length", b"transfer-encoding")  # never repaired: where the body ends is not guessed
CODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's wbits
RAW_DEFLATE = -15
GZIP = b"\x1f\x8b"


def repaired(head: bytes) -> bytes:
    """A complete head without blanks before a colon, `Transfer-Encoding: identity` (invalid since RFC 7230), and lines
    that are no header. The status line is not changed."""
    first, *lines = head.rstrip(b"\r\n").split(b"\n")
    kept, follows = [first.rstrip(b"\r")], False
    for line in (each.rstrip(b"\r") for each in lines):
        if line[:1] in (b" ", b"\t"):  # it continues the line before
            kept += [line] if follows else []
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        frames = name.lower().startswith(FRAMING)
        identity = name.lower() == b"transfer-encoding" and value.strip().lower() == b"identity"
        follows = not identity and (frames or bool(colon and NAME.fullmatch(name) and VALUE.fullmatch(value)))
        if follows:
            kept.append(name + colon + value)
    return b"\r\n".join(kept) + b"\r\n\r\n"


def decompressed(body: bytes, coding: str, limit: int) -> tuple[bytes, bool] | None:
    """The decompressed body, and whether it is complete. None: it has no known coding, is broken, or would be longer
    than `limit`: no answer can take more memory than that."""
    coding = coding.strip().lower()
    if body.startswith(GZIP):  # whatever the header says
        coding = "gzip"
    if coding not in CODINGS:
        return None
    found = _inflated(body, CODINGS[coding], limit)
    return _inflated(body, RAW_DEFLATE, limit) if found is None and coding == "deflate" else found


def _inflated(body: bytes, wbits: int, limit: int) -> tuple[bytes, bool] | None:
    stream = zlib.decompressobj(wbits)
    try:
        found = stream.decompress(body, limit + 1)
    except zlib.error:
        return None
    is_whole = stream.eof and not stream.unused_data.startswith(GZIP)  # another part may follow (RFC 1952 §2.2)
    return (found, is_whole) if found and len(found) <= limit else None

# The heads and bodies of brokerd-proxy against any bytes: what it accepts, h11 reads in the same way. A body is the
# same however the stream is cut. What it forwards carries the token, once. The first byte says how to cut.
from __future__ import annotations

import h11

from brokerd.core.http import bodies
from brokerd.core.http.forwarding import Allowed, NotForwarded, Upstream, request_lines
from brokerd.core.http.heads import END, BadHead, RequestHead, read_request
from tests.stress.fuzz.shown_text import fit_for_people

UPSTREAM = Upstream("https://api.example", "api.example", "/api")
TOKEN = ("Authorization", "Bearer qxtestonlytokenxq")


def check(data: bytes) -> None:
    if not data:
        return
    step, stream = 1 + data[0] % 64, data[1:]
    head_bytes, end, rest = stream.partition(END)
    try:
        head = read_request(head_bytes + end)
        contents = contents_of(head, [rest])
    except BadHead as error:
        fit_for_people(str(error))
        return
    pieces = [rest[at : at + step] for at in range(0, len(rest), step)]
    assert contents_of(head, pieces) == contents, f"in pieces of {step} bytes"
    theirs = read_by_h11(stream)
    assert theirs is not None, "h11 refuses it"
    assert theirs == (head.method, head.target, *contents), "h11 reads it in another way"
    forwarded(head)


def contents_of(head: RequestHead, pieces: list[bytes]) -> tuple[bytes, bytes | None]:
    """The body, and what is behind it; None: the body has not ended."""
    body, found, ahead = bodies.of_request(head), b"", b""
    for piece in pieces:
        ahead += piece
        while ahead and not body.ended:
            more, used = body.take(memoryview(ahead))
            found += more
            ahead = ahead[used:]
    return found, ahead if body.ended else None


def read_by_h11(stream: bytes) -> tuple[bytes, bytes, bytes, bytes | None] | None:
    """Method, target, body, and what is behind it. None: h11 refuses the bytes."""
    reader, method, target, body = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20), b"", b"", b""
    reader.receive_data(stream)
    try:
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Request):
                method, target = event.method, event.target
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return method, target, body, reader.trailing_data[0]
            else:
                return (method, target, body, None) if method else None
    except h11.RemoteProtocolError:
        return None


def forwarded(head: RequestHead) -> None:
    """What is sent on is one request with one token."""
    try:
        path = Allowed(None, ("/v2/*",)).check(head)
    except NotForwarded as refused:
        fit_for_people(str(refused))
        return
    assert path.startswith(b"/v2/")
    again = read_request(request_lines(head, UPSTREAM, TOKEN) + b"\r\n")
    named = [value for lower, _, value in again.headers if lower == b"authorization"]
    assert named == [TOKEN[1].encode()], "not exactly the token"
    assert again.target == b"/api" + head.target
    assert (again.framing.length, again.framing.chunked, again.framing.host) == (None, False, b"api.example")

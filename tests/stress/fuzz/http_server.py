# The HTTP socket's reader against any bytes (law 13): the same requests, answers and end however the stream is cut, and
# whether h11 reads it or the short way; a refusal repeats none of the bytes. The first byte says how to cut.
from __future__ import annotations

from collections.abc import Iterable

from brokerd.edge.http.requests import BODY, BadHttp, HttpReader, HttpRequest
from tests.stress.fuzz.shown_text import fit_for_people

Read = tuple[list[HttpRequest], bytes, str]
TOKEN = b"qxtestonlytokenxq"  # what stands for a token that a client put in the wrong place


def check(data: bytes) -> None:
    if not data:
        return
    step, stream = 1 + data[0] % 64, data[1:]
    whole = read([stream], short=False)
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    assert read(pieces, short=False) == whole, f"in pieces of {step} bytes"
    assert read([stream], short=True) == whole, "the short way reads it in another way"
    heads = [each + b"\r\n\r\n" for each in stream.split(b"\r\n\r\n")[:-1]]
    heads.append(stream[sum(map(len, heads)) :])
    assert read(heads, short=True) == whole, "the short way reads it in another way, head by head"


def read(chunks: Iterable[bytes], *, short: bool) -> Read:
    """The requests, the bytes of their answers, and how the stream ended."""
    reader, found, answers = HttpReader(short=short), list[HttpRequest](), b""
    try:
        for chunk in filter(None, chunks):
            reader.feed(chunk)
            for request in reader:
                assert len(request.body) <= BODY
                found.append(request)
                data, again = reader.answer(200, "text/plain", f"{len(found)}".encode())
                answers += data
                if not again:
                    return found, answers, "closed"
            if reader.wants_body:
                answers += reader.proceed()
    except BadHttp as error:
        fit_for_people(str(error))
        assert TOKEN.decode() not in str(error)  # noqa: PT017 - a property, and no test
        return found, answers.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""), "refused"
    return found, answers.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""), "partial" if reader.partial else "whole"

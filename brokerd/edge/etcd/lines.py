# A stream of JSON lines over HTTP/1.1: one request, and an answer that does not end. h11 reads the chunks.
from __future__ import annotations

from collections import deque

import h11
import trio

from brokerd.edge.http.answer import READ_SIZE, AnswerLimits, AnswerReader, BadAnswer
from brokerd.edge.http.connection import Attempt, HttpConnection, Stage
from brokerd.edge.http.tls import broken_reason

PIECE = 64 << 10  # bytes for one read
LINE = 32 << 20  # bytes; etcd's messages have 2 MiB unless its --max-request-bytes was raised


class StreamBroken(Exception):
    """The stream has ended. The text says how."""


class Lines:
    """`begin` once, then `next` until it raises StreamBroken. `close` also ends a `next` that waits in another task."""

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self._found: deque[bytes] = deque()
        self._part = bytearray()

    async def begin(self, message: h11.Request, body: bytes, attempt: Attempt, limits: AnswerLimits) -> int:
        """Send the request. Returns the status of the answer. Raises TransportError."""
        protocol, tcp = self._connection.protocol, self._connection.tcp
        events = (message, h11.Data(data=body), h11.EndOfMessage())
        data = b"".join(protocol.send(event) or b"" for event in events)
        attempt.tcp, attempt.taken_before = tcp, tcp.taken
        attempt.begins(Stage.REQUEST, "waiting for an answer")
        try:
            await self._connection.stream.send_all(data)
            head = await AnswerReader(protocol, self._connection.stream, limits).head()
        except trio.BrokenResourceError as error:
            raise attempt.failed(f"{broken_reason(error)} while the request was sent") from None
        except BadAnswer as error:
            raise attempt.failed(str(error)) from None
        return head.status_code

    async def next(self) -> bytes:
        """The next line that is not empty; the last one need not end. Raises StreamBroken."""
        while not self._found:
            data = await self._data()
            if data is None and not self._part.strip():
                raise StreamBroken("the server ended the answer")
            self._take(b"\n" if data is None else data)
        return self._found.popleft()

    def close(self) -> None:
        self._connection.tcp.close()

    def _take(self, data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        for each in whole:
            self._part += each
            if self._part.strip():
                self._found.append(bytes(self._part))
            self._part.clear()
        self._part += rest
        if len(self._part) > LINE:
            raise StreamBroken(f"a message larger than {LINE >> 20} MiB")

    async def _data(self) -> bytes | None:
        """The next piece of the body; None: it is whole."""
        protocol = self._connection.protocol
        while True:
            try:
                event = protocol.next_event()
            except h11.RemoteProtocolError:  # its text quotes what came
                raise StreamBroken("the answer breaks off, or breaks HTTP's rules") from None
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if event is not h11.NEED_DATA:
                return None
            if len(protocol.trailing_data[0]) > READ_SIZE:
                raise StreamBroken("a chunk header or trailer is too long")
            try:
                protocol.receive_data(bytes(await self._connection.stream.receive_some(PIECE)))
            except trio.ClosedResourceError:
                raise StreamBroken("connection closed") from None
            except trio.BrokenResourceError as error:
                raise StreamBroken(broken_reason(error)) from None

# The client's side of a connection, without I/O. It numbers requests, matches answers to them, and keeps the newest
# event of each grant. The three clients share it, and the rules for timeouts, repeated requests and lost connections.
from __future__ import annotations

from brokerd_client.errors import BadRequest, BrokerError, NoDaemon, ProtocolError, Unavailable, from_map
from brokerd_client.messages import read_event
from brokerd_client.request import REPEATABLE
from brokerd_client.wire import (
    MAX_ANSWER,
    MAX_ID,
    MAX_MESSAGE,
    Notification,
    Reader,
    load_msgpack,
    read_reply,
)

TYPE_CHECKING = False  # typing's own would cost a fetch from a shell some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from brokerd_client.messages import Gone, Token
    from brokerd_client.request import ClientRequest
    from brokerd_client.wire import Response

READ_SIZE = 64 * 1024  # bytes to read from the socket at once
GETS = 3  # gets of a grant over the socket, after which a shared token is asked for


class Lost(Exception):
    """The connection ended before the answer came. Callers of this package never see it."""


class ClientProtocol:
    """The state of one connection. `waiter`: any object of the client's, returned with the answer to its request."""

    def __init__(self) -> None:
        self._reader = Reader(MAX_ANSWER)
        self._waiting: dict[int, tuple[ClientRequest, Any]] = {}
        self._id = 0
        self.events: dict[str, Token | Gone] = {}  # by grant: only the newest is kept
        self.steps: list[dict[str, Any]] = []  # of a renewal that is followed, the newest last

    def request(self, request: ClientRequest, waiter: object = None) -> bytes:
        """Its bytes with a new id. Raises BadRequest if the daemon would close the connection because of them."""
        if self._id == 1:  # whoever asks twice asks often
            load_msgpack()
        while self._id in self._waiting:
            self._id = (self._id + 1) & MAX_ID
        data = request.with_id(self._id)
        if len(data) > MAX_MESSAGE:
            raise BadRequest(f"expected {request.method} with at most {MAX_MESSAGE} bytes, found {len(data)}")
        self._waiting[self._id] = request, waiter
        self._id = (self._id + 1) & MAX_ID
        return data

    def receive(self, data: bytes) -> Iterator[tuple[Any, Response]]:
        """The answers in these bytes, each with its waiter; events go to `events`.

        Raises Lost at the end of the stream, ProtocolError, and the error with which the daemon closes the connection.
        """
        if not data:
            raise Lost
        if (again := self._answered_again(data)) is not None:
            yield again
            return
        alone = not self._reader.partial
        self._reader.feed(data)
        for message in self._reader:
            reply = read_reply(message)
            if isinstance(reply, Notification):
                load_msgpack()  # more will come
                if reply.method == "trace":
                    self.steps.append(reply.params)
                elif event := read_event(reply.method, reply.params):
                    self.events.pop(event.grant, None)  # the newest goes to the end
                    self.events[event.grant] = event
            elif reply.id is None:
                raise from_map(reply.error)
            elif reply.id in self._waiting:
                request, waiter = self._waiting.pop(reply.id)
                if alone and not self._reader.partial:
                    request.remember(reply, data)
                yield waiter, reply
            else:
                raise ProtocolError(f"expected the answer to a request, found one to {reply.id}, which was never asked")
            alone = False

    def _answered_again(self, data: bytes) -> tuple[Any, Response] | None:
        """The waiter and the answer, if one request is waiting, and these bytes are its last answer."""
        if len(self._waiting) != 1 or self._reader.partial:
            return None
        for msgid, (request, waiter) in self._waiting.items():
            if (response := request.same_answer(msgid, data)) is not None:
                del self._waiting[msgid]
                return waiter, response
        return None

    @property
    def is_idle(self) -> bool:
        """Whether no request is waiting."""
        return not self._waiting

    def next_event(self) -> Token | Gone | None:
        """Removes and returns the oldest event, or None."""
        for grant in self.events:
            return self.events.pop(grant)
        return None

    def abandon(self) -> list[Any]:
        """The waiters whose answers will never come."""
        waiters = [waiter for _, waiter in self._waiting.values()]
        self._waiting.clear()
        return waiters


def unanswered(seconds: float) -> BrokerError:
    """The error after waiting so long without an answer."""
    return Unavailable(f"brokerd did not answer within {seconds:g} s: it is stopped or overloaded; try again")


def lost(method: str) -> BrokerError:
    """The error if the connection ended before the answer, and the request may not be sent again."""
    if method in REPEATABLE:
        return NoDaemon("brokerd closed the connection before it answered, because it stops or restarts; try again")
    return NoDaemon(f"brokerd stopped before it answered: whether {method} was done is unknown; see brokerctl status")

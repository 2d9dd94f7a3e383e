# The client's side of a connection, without I/O. It numbers requests, matches answers to them, and keeps the newest
# event of each grant. The three clients share it, and the rules for timeouts, repeated requests and lost connections.
from __future__ import annotations

from brokerd_client.errors import BadRequest, BrokerError, NoDaemon, ProtocolError, Unavailable, from_map
from brokerd_client.messages import read_event
from brokerd_client.wire import (
    MAX_ANSWER,
    MAX_ID,
    MAX_MESSAGE,
    Notification,
    Reader,
    load_msgpack,
    pack_request,
    read_reply,
)

TYPE_CHECKING = False  # typing's own would cost a fetch from a shell some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from brokerd_client.messages import Gone, Token
    from brokerd_client.wire import Response

READ_SIZE = 64 * 1024  # bytes to read from the socket at once
WAIT, MAX_WAIT = 10.0, 60.0  # seconds: how long the daemon waits for a provider by default, and at most
GETS = 3  # gets of a grant over the socket, after which a shared token is asked for
TIMEOUT = 5.0  # seconds longer than that until a call fails because the daemon does not answer

# Methods that may be sent again after a restart of the daemon, because doing them twice changes nothing. Not `import`:
# the token may have been replaced meanwhile. Not methods whose answer says what they changed.
REPEATABLE = frozenset({"hello", "get", "get_many", "proof", "watch", "unwatch", "status", "refresh", "login_wait"})

# A refused token of at most so many characters is sent as it is, as older daemons expect it. Of a longer one only the
# SHA-256 is sent, because a request has at most 64 KiB.
LONGEST_REFUSED = 60_000


class Lost(Exception):
    """The connection ended before the answer came. Callers of this package never see it."""


class ClientProtocol:
    """The state of one connection. `waiter`: any object of the client's, returned with the answer to its request."""

    def __init__(self) -> None:
        self._reader = Reader(MAX_ANSWER)
        self._waiting: dict[int, Any] = {}
        self._id = 0
        self.events: dict[str, Token | Gone] = {}  # by grant: only the newest is kept
        self.steps: list[dict[str, Any]] = []  # of a renewal that is followed, the newest last

    def request(self, method: str, params: dict[str, Any], waiter: object = None) -> bytes:
        """The bytes of a new request. Raises BadRequest if the daemon would close the connection because of them."""
        if self._id == 1:  # whoever asks twice asks often
            load_msgpack()
        while self._id in self._waiting:
            self._id = (self._id + 1) & MAX_ID
        try:
            data = pack_request(self._id, method, params)
        except (UnicodeError, OverflowError):
            raise BadRequest(f"expected {method} with text in UTF-8 and numbers of at most 64 bits") from None
        if len(data) > MAX_MESSAGE:
            raise BadRequest(f"expected {method} with at most {MAX_MESSAGE} bytes, found {len(data)}")
        self._waiting[self._id] = waiter
        self._id = (self._id + 1) & MAX_ID
        return data

    def receive(self, data: bytes) -> Iterator[tuple[Any, Response]]:
        """The answers in these bytes, each with its waiter; events go to `events`.

        Raises Lost at the end of the stream, ProtocolError, and the error with which the daemon closes the connection.
        """
        if not data:
            raise Lost
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
                yield self._waiting.pop(reply.id), reply
            else:
                raise ProtocolError(f"expected the answer to a request, found one to {reply.id}, which was never asked")

    def next_event(self) -> Token | Gone | None:
        """Removes and returns the oldest event, or None."""
        for grant in self.events:
            return self.events.pop(grant)
        return None

    def abandon(self) -> list[Any]:
        """The waiters whose answers will never come."""
        waiters = list(self._waiting.values())
        self._waiting.clear()
        return waiters


def read_result(response: Response) -> Any:
    """The result in an answer. Raises the BrokerError in it."""
    if response.error is not None:
        raise from_map(response.error)
    return response.result


def get_params(
    grant: str,
    min_ttl: float,
    wait: float,
    refused: str | None,
    scope: Iterable[str] | None,
    audience: str | None,
    resource: str | None,
    request_id: str | None,
) -> dict[str, Any]:
    """The parameters of `get`, without defaults: the daemon is fastest if only the grant is given."""
    params: dict[str, Any] = {"grant": grant}
    if wait != WAIT:
        params["wait"] = wait
    if min_ttl:
        params["min_ttl"] = min_ttl
    if refused is not None:
        params |= refused_params(refused)
    if scope is not None:
        params["scope"] = scope.split() if isinstance(scope, str) else list(scope)
    if audience is not None:
        params["audience"] = audience
    if resource is not None:
        params["resource"] = resource
    return params if request_id is None else {**params, "request_id": request_id}


def refused_params(token: str) -> dict[str, Any]:
    """The parameter of `get` that says which token an API refused."""
    if len(token) <= LONGEST_REFUSED:
        return {"refused": token}
    from hashlib import sha256  # seldom needed, and slow to import

    return {"refused_sha256": sha256(token.encode()).hexdigest()}


def patience(params: dict[str, Any], timeout: float) -> float:
    """Seconds to wait for an answer: as long as the daemon may wait for a provider, plus `timeout`."""
    wait = params.get("wait", WAIT)
    return timeout + (wait if 0 <= wait <= MAX_WAIT else MAX_WAIT)


def unanswered(seconds: float) -> BrokerError:
    """The error after waiting so long without an answer."""
    return Unavailable(f"brokerd did not answer within {seconds:g} s: it is stopped or overloaded; try again")


def lost(method: str) -> BrokerError:
    """The error if the connection ended before the answer, and the request may not be sent again."""
    if method in REPEATABLE:
        return NoDaemon("brokerd closed the connection before it answered, because it stops or restarts; try again")
    return NoDaemon(f"brokerd stopped before it answered: whether {method} was done is unknown; see brokerctl status")

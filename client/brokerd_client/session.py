# The client's half of a connection without its I/O, shared by the three clients: numbers requests, matches answers,
# keeps the newest event of each grant; and what all three decide alike: patience, what may be repeated, last words.
from __future__ import annotations

from brokerd_client.errors import BadRequest, BrokerError, NoDaemon, ProtocolError, Unavailable, from_map
from brokerd_client.messages import read_event
from brokerd_client.wire import MAX_ANSWER, MAX_ID, MAX_MESSAGE, Notification, Reader, pack_request, read_reply

TYPE_CHECKING = False  # typing's own would cost a fetch from a shell some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from brokerd_client.messages import Gone, Token
    from brokerd_client.wire import Response

READ_SIZE = 64 * 1024  # bytes asked of the socket at once
WAIT, MAX_WAIT = 10.0, 60.0  # seconds: how long the daemon waits for a provider by default, and at most
TIMEOUT = 5.0  # seconds beyond that until a daemon that does not answer is given up

# What a request that met a restarting daemon may be sent again for, because having it done twice changes nothing.
# Not `import`: the token may have been replaced since, and would be put back. Nor what answers with what it changed.
REPEATABLE = frozenset({"hello", "get", "get_many", "proof", "watch", "unwatch", "status", "refresh", "login_wait"})


# Characters of a refused token that are sent as they are: older daemons know nothing else. Of a longer one its SHA-256
# is sent, for a request has 64 KiB at most.
LONGEST_REFUSED = 60_000


class Lost(Exception):
    """The connection ended before the answer came. Never leaves this package."""


class Session:
    """One connection. A waiter is whatever the client wants handed back together with the answer to its request."""

    def __init__(self) -> None:
        self._reader = Reader(MAX_ANSWER)
        self._waiting: dict[int, Any] = {}
        self._id = 0
        self.events: dict[str, Token | Gone] = {}  # by grant: of several the last is enough

    def request(self, method: str, params: dict[str, Any], waiter: object = None) -> bytes:
        """The bytes of a new request. Raises BadRequest where they would only end the connection."""
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

        Raises Lost at the end of the stream, ProtocolError, and the error that the daemon closes a connection with.
        """
        if not data:
            raise Lost
        self._reader.feed(data)
        for message in self._reader:
            reply = read_reply(message)
            if isinstance(reply, Notification):
                if event := read_event(reply.method, reply.params):
                    self.events.pop(event.grant, None)  # the newest goes to the end
                    self.events[event.grant] = event
            elif reply.id is None:
                raise from_map(reply.error)
            elif reply.id in self._waiting:
                yield self._waiting.pop(reply.id), reply
            else:
                raise ProtocolError(f"expected the answer to a request, found one to {reply.id}, which was never asked")

    def next_event(self) -> Token | Gone | None:
        """Takes the event that came first, or None."""
        for grant in self.events:
            return self.events.pop(grant)
        return None

    def abandon(self) -> list[Any]:
        """The waiters that no answer will come for any more."""
        waiters = list(self._waiting.values())
        self._waiting.clear()
        return waiters


def read_result(response: Response) -> Any:
    """The result of an answer. Raises the BrokerError that it holds."""
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
) -> dict[str, Any]:
    """The parameters of `get`; what is the default stays away, because the daemon answers the plain get fastest."""
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
    return params


def refused_params(token: str) -> dict[str, Any]:
    """The parameter of `get` that names a token which an API refused."""
    if len(token) <= LONGEST_REFUSED:
        return {"refused": token}
    from hashlib import sha256  # a get from a shell seldom needs it

    return {"refused_sha256": sha256(token.encode()).hexdigest()}


def patience(params: dict[str, Any], timeout: float) -> float:
    """Seconds to wait for an answer: as long as the daemon may wait for a provider, and `timeout`."""
    wait = params.get("wait", WAIT)
    return timeout + (wait if 0 <= wait <= MAX_WAIT else MAX_WAIT)


def unanswered(seconds: float) -> BrokerError:
    """The error where patience came to its end."""
    return Unavailable(f"brokerd did not answer within {seconds:g} s: it is stopped or overloaded; try again")


def lost(method: str) -> BrokerError:
    """The error where the connection ended before the answer, for good."""
    if method in REPEATABLE:
        return NoDaemon("brokerd closed the connection before it answered: it is stopping or restarting; try again")
    return NoDaemon(f"brokerd stopped before it answered: whether {method} was done is unknown; see brokerctl status")

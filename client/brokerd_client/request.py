# What a client asks: a request as bytes, how long to wait for its answer, and the gets that a program repeats. Such a
# get is packed once, and an answer whose bytes are the last one's is not read again. The daemon is asked each time.
from __future__ import annotations

from brokerd_client.errors import BadRequest
from brokerd_client.messages import copied, read_token
from brokerd_client.wire import answer_start, pack_request, read_result, request_start

TYPE_CHECKING = False  # typing's own would cost a fetch from a shell some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from brokerd_client.messages import Token
    from brokerd_client.wire import Response

WAIT, MAX_WAIT = 10.0, 60.0  # seconds: how long the daemon waits for a provider by default, and at most
TIMEOUT = 5.0  # seconds longer than that until a call fails because the daemon does not answer
MOST_GETS = 64  # remembered by one Broker

# Methods that may be sent again after a restart of the daemon, because doing them twice changes nothing. Not `import`:
# the token may have been replaced meanwhile. Not methods whose answer says what they changed.
REPEATABLE = frozenset({"hello", "get", "get_many", "proof", "watch", "unwatch", "status", "refresh", "login_wait"})

# A refused token of at most so many characters is sent as it is, as older daemons expect it. Of a longer one only the
# SHA-256 is sent, because a request has at most 64 KiB.
LONGEST_REFUSED = 60_000


class ClientRequest:
    """A call of a method. It may be sent any number of times, by many threads at once, each time with another id."""

    __slots__ = ("_behind_id", "_last", "method", "params")

    def __init__(self, method: str, params: dict[str, Any]) -> None:
        try:
            self._behind_id = pack_request(0, method, params)[len(request_start(0)) :]
        except (UnicodeError, OverflowError):
            raise BadRequest(f"expected {method} with text in UTF-8 and numbers of at most 64 bits") from None
        self.method = method
        self.params = params
        self._last: tuple[bytes, Response] | None = None  # what was behind the id of its last answer, and the answer

    def with_id(self, msgid: int) -> bytes:
        """The whole request."""
        return request_start(msgid) + self._behind_id

    def remember(self, response: Response, data: bytes) -> None:
        """It was answered by these bytes."""
        if data.startswith(start := answer_start(response.id)):
            self._last = data[len(start) :], response

    def same_answer(self, msgid: int, data: bytes) -> Response | None:
        """What these bytes mean, if they are the last answer with that id."""
        last = self._last
        return last[1] if last is not None and data == answer_start(msgid) + last[0] else None


class Get(ClientRequest):
    """A get that a program may repeat."""

    __slots__ = ("_read",)

    def __init__(self, params: dict[str, Any]) -> None:
        super().__init__("get", params)
        self._read: tuple[Response, Token] | None = None  # the last answer that had a token

    def token(self, response: Response) -> Token:
        """The token in an answer, for one caller. Raises the BrokerError in it, and ProtocolError."""
        last = self._read
        if last is None or last[0] is not response:
            self._read = last = response, read_token(read_result(response), self.params["grant"])
        return copied(last[1])


class Gets:
    """The last get of each grant, so that a program's next one need not be packed again if it is the same."""

    def __init__(self) -> None:
        self._gets: dict[str, Get] = {}

    def find(self, params: dict[str, Any]) -> Get:
        """Raises BadRequest."""
        grant = params["grant"]
        known = self._gets.get(grant)
        if known is None or known.params != params:
            known = Get(params)
            if len(self._gets) >= MOST_GETS:
                self._gets.clear()
            self._gets[grant] = known
        return known

    def clear(self) -> None:
        self._gets.clear()


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

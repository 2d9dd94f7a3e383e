# The errors of docs/protocol.md as classes, one for each code, and those that a client raises without an answer. Their
# texts are for people: one line, never a secret.
from __future__ import annotations

TYPE_CHECKING = False  # typing's own would cost a fetch from a shell some milliseconds
if TYPE_CHECKING:
    from typing import Any, TypeGuard


LONGEST = 2000  # characters of a message from the socket; the rest is cut off


class BrokerError(Exception):
    """brokerd answered with an error. There is a subclass for each code of docs/protocol.md.

    `code` is for programs. `message` is one line for people. `grant` is the grant's name, or None. `retry_after` is
    the number of seconds after which trying again may help, or None. `request_id` is the id of the exchange with the
    provider that failed, or None: the log of brokerd has it, and the provider got it in a header.
    """

    code = "internal"

    def __init__(
        self,
        message: str,
        *,
        grant: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.grant = grant
        self.retry_after = retry_after
        self.request_id = request_id

    def as_map(self) -> dict[str, Any]:
        """The error as the protocol's map."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.grant is not None:
            error["grant"] = self.grant
        if self.retry_after is not None:
            error["retry_after"] = self.retry_after
        if self.request_id is not None:
            error["request_id"] = self.request_id
        return error


class UnknownGrant(BrokerError):
    """There is no such grant, or this caller may not know that there is."""

    code = "unknown_grant"


class Denied(BrokerError):
    """The caller may see the grant, but may not do this with it."""

    code = "denied"


class Unavailable(BrokerError):
    """There is no valid token now, or the daemon did not answer in time. Try again after `retry_after` seconds."""

    code = "unavailable"


class NeedsLogin(BrokerError):
    """There is no refresh token, or the provider refuses it. A person must log in or import one."""

    code = "needs_login"


class Revoked(BrokerError):
    """The grant was revoked. To use it again, a person must log in or import a refresh token."""

    code = "revoked"


class Misconfigured(BrokerError):
    """The provider refuses the configuration. An operator must change it."""

    code = "misconfigured"


class Locked(BrokerError):
    """The daemon's keys are locked."""

    code = "locked"


class BadRequest(BrokerError):
    """The request is not as docs/protocol.md says."""

    code = "bad_request"


class Limit(BrokerError):
    """Too many requests from this caller. Try again after `retry_after` seconds."""

    code = "limit"


class Internal(BrokerError):
    """An internal error of brokerd. Its log says more."""

    code = "internal"


class NoDaemon(BrokerError):
    """Nothing answers at the socket. The client raises this; brokerd never sends it."""

    code = "no_daemon"


class NotPermitted(NoDaemon):
    """The socket exists, but this user may not connect to it."""


class ProtocolError(BrokerError):
    """A message does not follow the protocol. `id`: the id of the request, if it could be read.

    The daemon answers with `as_map()`, and closes the connection unless `id` is known. If a client raises this, the
    program at the socket is not brokerd.
    """

    code = "bad_request"

    def __init__(self, message: str, *, id: int | None = None) -> None:  # noqa: A002 - the protocol's word
        super().__init__(message)
        self.id = id


def from_map(error: object) -> BrokerError:
    """The error that a map of the protocol describes. Raises ProtocolError if it is not such a map.

    A code that this version does not know gives a plain BrokerError with that code.
    """
    if not isinstance(error, dict):
        raise ProtocolError("expected an error to be a map")
    code, message = error.get("code"), error.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        raise ProtocolError("expected an error with the texts code and message")
    grant, retry_after = error.get("grant"), error.get("retry_after")
    grant = grant if isinstance(grant, str) else None
    retry_after = max(0, retry_after) if is_number(retry_after) else None
    request_id = error.get("request_id")
    request_id = _plain(request_id) if isinstance(request_id, str) else None
    kind = _CLASSES.get(code, BrokerError)
    made = kind(_plain(message), grant=grant, retry_after=retry_after, request_id=request_id)
    made.code = code
    return made


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a usable number. With nan, for example, a token would never expire."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_HUGE < value < _HUGE


def _plain(text: str) -> str:
    """One line of limited length: the program at the socket must not be able to forge lines of a log."""
    text = text[:LONGEST]
    return text if text.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in text)


_HUGE = 1e15


_CLASSES: dict[str, type[BrokerError]] = {
    error.code: error
    for error in (
        UnknownGrant,
        Denied,
        Unavailable,
        NeedsLogin,
        Revoked,
        Misconfigured,
        Locked,
        BadRequest,
        Limit,
        Internal,
    )
}

# The errors of docs/protocol.md as classes, one per code, and the two that a client can meet without an answer.
# Texts are fit for people: one line, never a secret.
from __future__ import annotations

TYPE_CHECKING = False  # typing's own would cost a fetch from a shell some milliseconds
if TYPE_CHECKING:
    from typing import Any, TypeGuard


LONGEST = 2000  # characters of a message that is passed on


class BrokerError(Exception):
    """What brokerd answers in the place of a result; its subclasses are named after the codes of docs/protocol.md.

    `code` is for programs, `message` one line for people, `grant` the grant's name or None, `retry_after` the
    seconds after which asking again may help or None.
    """

    code = "internal"

    def __init__(self, message: str, *, grant: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.grant = grant
        self.retry_after = retry_after

    def as_map(self) -> dict[str, Any]:
        """The error as it goes over the wire."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.grant is not None:
            error["grant"] = self.grant
        if self.retry_after is not None:
            error["retry_after"] = self.retry_after
        return error


class UnknownGrant(BrokerError):
    """No such grant, or none that this caller may know of."""

    code = "unknown_grant"


class Denied(BrokerError):
    """The caller may see the grant, and may not do this with it."""

    code = "denied"


class Unavailable(BrokerError):
    """No living token now, or no answer from the daemon in time: ask again after `retry_after` seconds."""

    code = "unavailable"


class NeedsLogin(BrokerError):
    """The refresh token is dead or was never there; a person must log in or import one."""

    code = "needs_login"


class Revoked(BrokerError):
    """The grant was revoked; only a login or an import ends that."""

    code = "revoked"


class Misconfigured(BrokerError):
    """The provider refuses what is configured; an operator must change it."""

    code = "misconfigured"


class Locked(BrokerError):
    """The daemon's keys are locked."""

    code = "locked"


class BadRequest(BrokerError):
    """The request is not as docs/protocol.md says."""

    code = "bad_request"


class Limit(BrokerError):
    """Too many requests at once from this caller; ask again after `retry_after` seconds."""

    code = "limit"


class Internal(BrokerError):
    """A fault of brokerd's own; its log says more."""

    code = "internal"


class NoDaemon(BrokerError):
    """Nobody answers at the socket. Raised by the client; never on the wire."""

    code = "no_daemon"


class NotPermitted(NoDaemon):
    """The socket is there, and this user may not connect to it."""


class ProtocolError(BrokerError):
    """What came is not the protocol. `id`: of the request it stood in, where that could still be read.

    The daemon answers it with `as_map()` and closes the connection, unless `id` is known. A client that raises it
    met something at the socket that is not brokerd.
    """

    code = "bad_request"

    def __init__(self, message: str, *, id: int | None = None) -> None:  # noqa: A002 - the protocol's word
        super().__init__(message)
        self.id = id


def from_map(error: object) -> BrokerError:
    """The error that a map of the protocol describes. Raises ProtocolError where it is no such map.

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
    made = _CLASSES.get(code, BrokerError)(_plain(message), grant=grant, retry_after=retry_after)
    made.code = code
    return made


def is_number(value: object) -> TypeGuard[float]:
    """Whether it can be reckoned with: nan compares with nothing, so that a token would never expire."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_HUGE < value < _HUGE


def _plain(text: str) -> str:
    """One line, not without end: whoever sits at the socket does not write an application's log."""
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

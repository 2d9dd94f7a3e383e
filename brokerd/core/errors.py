# The error that a caller gets instead of an answer: a code for programs, one line for people (docs/protocol.md).
from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    UNKNOWN_GRANT = "unknown_grant"
    DENIED = "denied"
    UNAVAILABLE = "unavailable"
    NEEDS_LOGIN = "needs_login"
    REVOKED = "revoked"
    MISCONFIGURED = "misconfigured"
    LOCKED = "locked"
    BAD_REQUEST = "bad_request"
    LIMIT = "limit"
    INTERNAL = "internal"


class Failure(Exception):
    """A request that ends in an error. `retry_after` is in seconds. `request_id`: of the exchange
    that failed. The message holds no secret."""

    def __init__(self, code: Code, message: str, grant: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.grant = grant
        self.retry_after = retry_after
        self.request_id: str | None = None

    def as_map(self) -> dict[str, object]:
        """The error map of docs/protocol.md."""
        found: dict[str, object] = {"code": str(self.code), "message": self.message}
        if self.grant is not None:
            found["grant"] = self.grant
        if self.retry_after is not None:
            found["retry_after"] = round(self.retry_after, 2)
        if self.request_id is not None:
            found["request_id"] = self.request_id
        return found


def unknown(grant: str) -> Failure:
    """The same words if the grant does not exist and if the caller may not see it (law 9)."""
    return Failure(Code.UNKNOWN_GRANT, f"no grant {grant!r} that you may use; see the names in brokerctl status", grant)

# How results and failures are written in HTTP: status, headers, JSON.
from __future__ import annotations

import math
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from brokerd.core.errors import Code, Failure
from brokerd.edge.http.requests import FIXED

JSON, TEXT, EVENTS = "application/json", "text/plain; charset=utf-8", "text/event-stream"
STATUS = {
    Code.BAD_REQUEST: HTTPStatus.BAD_REQUEST,
    Code.UNKNOWN_GRANT: HTTPStatus.NOT_FOUND,
    Code.DENIED: HTTPStatus.NOT_FOUND,
    Code.NEEDS_LOGIN: HTTPStatus.CONFLICT,
    Code.REVOKED: HTTPStatus.GONE,
    Code.LOCKED: HTTPStatus.LOCKED,
    Code.LIMIT: HTTPStatus.TOO_MANY_REQUESTS,
    Code.MISCONFIGURED: HTTPStatus.BAD_GATEWAY,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class Written(NamedTuple):
    """A result in HTTP."""

    content_type: str
    body: bytes
    headers: Mapping[str, str] = {}
    status: int = HTTPStatus.OK


class Refused(Exception):
    """A request that HTTP itself answers: `status`, and a header that says what would be right."""

    def __init__(self, status: HTTPStatus, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def final_answer(failure: Failure) -> bytes:
    """The last answer on a connection, whatever its state."""
    body = failure_body(failure)
    status = STATUS[failure.code]
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {JSON}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in (*FIXED, *retry_header(failure).items())),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def failure_body(failure: Failure) -> bytes:
    found = failure.as_map()
    return as_json({"error": found.pop("code"), **found})


def retry_header(failure: Failure) -> dict[str, str]:
    return {} if failure.retry_after is None else {"Retry-After": str(math.ceil(failure.retry_after))}


def expires_in(expires_at: float | None) -> int | None:
    """The whole seconds until then."""
    return None if expires_at is None else max(0, int(expires_at - time.time()))


def as_json(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"

# What the proxy itself answers: errors as JSON, in the form of brokerd's HTTP socket (docs/http.md).
from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus

from brokerd_client import BrokerError

from brokerd.core.metadata.answers import MetadataAnswer

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def of_broker(failure: BrokerError, *, keep: bool, method: bytes) -> bytes:
    """There is no token: 503 with brokerd's reason."""
    after = {} if failure.retry_after is None else {"Retry-After": str(max(1, math.ceil(failure.retry_after)))}
    words = f"there is no token: {failure.message}"
    return error(HTTPStatus.SERVICE_UNAVAILABLE, failure.code, words, keep=keep, method=method, headers=after)


def whole(answer: MetadataAnswer, *, keep: bool, method: bytes) -> bytes:
    """The answer of a metadata endpoint."""
    lines = {"Content-Type": answer.content_type, "Cache-Control": "no-store", "Content-Length": str(len(answer.body))}
    return _message(answer.status, lines | {**answer.headers}, answer.body, keep=keep, method=method)


def error(
    status: int, code: str, words: str, *, keep: bool = False, method: bytes = b"", headers: Mapping[str, str] = {}
) -> bytes:
    """`keep`: the connection stays open. `method`: of the request; an answer to HEAD has no body."""
    body = json.dumps({"error": code, "message": f"brokerd-proxy: {words}"}).encode() + b"\n"
    lines = {"Content-Type": "application/json", "Cache-Control": "no-store", "Content-Length": str(len(body))}
    return _message(status, lines | {**headers}, body, keep=keep, method=method)


def _message(status: int, lines: Mapping[str, str], body: bytes, *, keep: bool, method: bytes) -> bytes:
    lines = {**lines} | ({} if keep else {"Connection": "close"})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    said = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode("latin-1", "replace")
    return said if method == b"HEAD" else said + body

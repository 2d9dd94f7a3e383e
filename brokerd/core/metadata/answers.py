# What a metadata endpoint is asked and answers, whatever its kind, and which requests every kind refuses. Pure.
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

JSON, TEXT = "application/json", "text/plain"
# A proxy or a page in a browser adds these. Neither has a reason to ask for credentials.
FORWARDED = ("x-forwarded-for", "forwarded", "via", "origin", "referer")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. `path`: decoded, without the query. `headers`: by name in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Given:
    """The token of the grant. `expires_at`: Unix seconds, None: the provider names no end."""

    value: str
    expires_at: float | None
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MetadataAnswer:
    """`body` may hold the token, so it is in no `repr`."""

    status: int
    body: bytes = field(repr=False)
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class NotGiven(Exception):
    """The request is not answered with credentials. `headers`: of the answer."""

    def __init__(self, status: int, words: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.headers = headers or {}


def as_json(found: Mapping[str, object], headers: Mapping[str, str] | None = None) -> MetadataAnswer:
    return MetadataAnswer(200, json.dumps(found).encode(), JSON, headers or {})


def as_text(found: str, headers: Mapping[str, str] | None = None) -> MetadataAnswer:
    return MetadataAnswer(200, found.encode(), TEXT, headers or {})


def refuse_forwarded(asked: Asked, headers: Mapping[str, str] | None = None) -> None:
    """Raises NotGiven for requests that did not come straight from a local program."""
    for name in FORWARDED:
        if name in asked.headers:
            words = f"expected a request straight from a local program, found the header {name}"
            raise NotGiven(403, words, headers)


def only(method: str, asked: Asked, headers: Mapping[str, str] | None = None) -> None:
    """Raises NotGiven for another method."""
    if asked.method != method:
        words = f"expected the method {method}"
        raise NotGiven(405, words, {**(headers or {}), "Allow": method})


def utc(seconds: float) -> str:
    """ISO 8601 in whole seconds, as AWS writes it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))).strftime("%Y-%m-%dT%H:%M:%SZ")

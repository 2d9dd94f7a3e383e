# Reads the metadata of a protected resource (RFC 9728), above all which authorization servers give tokens for it. The
# document is not trusted: it must be about the requested resource, and its URLs must be as safe as the resource's.
from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from brokerd.core.exchange.outcomes import Misconfigured, Outcome
from brokerd.core.exchange.redaction import reason
from brokerd.core.exchange.server_metadata import origin
from brokerd.core.exchange.steps import Answer, Request, Response, Step, answered
from brokerd.dialects import answer_body, answer_outcomes
from brokerd.dialects.oauth2.discovery import is_safe, names

WELL_KNOWN = "/.well-known/oauth-protected-resource"
# A challenge's parameter (RFC 9110 §11.2). A quoted value is taken whole, so that nothing in it counts as a parameter.
PARAMETER = re.compile(r'([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True)
class Resource:
    """A protected resource as its metadata has it: its identifier, its authorization servers, the scopes it names."""

    identifier: str
    servers: tuple[str, ...]
    scopes: tuple[str, ...]


Inquiry = Generator[Step, Answer, "Resource | Outcome"]
Look = Generator[Step, Answer, "Resource | Outcome | None"]


def learn(url: str) -> Inquiry:
    """The metadata of the resource at `url`: at the place of §3.1, else where its challenge says (§5.1), else the
    metadata of its whole origin."""
    parts = urlsplit(url)
    path, query = parts.path.rstrip("/"), f"?{parts.query}" if parts.query else ""
    whole = f"{parts.scheme}://{parts.netloc}"
    found = yield from _look(f"{whole}{WELL_KNOWN}{path}{query}", url)
    if found is None:
        found = yield from _challenged(url)
    if found is None and (path or query):
        found = yield from _look(f"{whole}{WELL_KNOWN}", whole)
    words = f"resource: {reason(url)} has no metadata (RFC 9728); name its authorization server: --issuer URL"
    return found or Misconfigured(words)


def _look(place: str, url: str) -> Look:
    """None if there is no such document: many servers answer any path with a page."""
    request = Request("GET", place, (("Accept", "application/json"),))
    response = yield from answered(request)
    if later := answer_outcomes.later(response, "resource", request):
        return later
    found = answer_body.json_object(response) if 200 <= response.status < 300 else None
    return None if found is None else _read(found, url)


def _challenged(url: str) -> Look:
    """The challenge to a request without a token names the document, which must be on the same origin."""
    response = yield from answered(Request("GET", url, (("Accept", "application/json, text/event-stream"),)))
    place = next(_named(response), None) if response.status == 401 else None
    if place is None:
        return None
    if not is_safe(url, place) or origin(place) != origin(url):
        return Misconfigured(f'resource: its challenge names metadata at "{reason(place)}", which is on another origin')
    return (yield from _look(place, url))


def _named(response: Response) -> Iterator[str]:
    for name, value in response.headers:
        if name == "www-authenticate":
            for found in PARAMETER.finditer(value):
                if found[1].lower() == "resource_metadata":
                    yield found[3] or re.sub(r"\\(.)", r"\1", found[2])


def _read(found: dict[str, object], url: str) -> Resource | Outcome:
    identifier, servers = found.get("resource"), names(found, "authorization_servers")
    if not isinstance(identifier, str) or _plain(identifier) != _plain(url):
        named = reason(str(identifier))
        return Misconfigured(
            f'resource: the metadata is about "{named}", expected "{reason(url)}" (RFC 9728 §3.3);'
            " if you mean that resource, name it with --resource"
        )
    for server in servers:
        if not is_safe(url, server) or urlsplit(server).query:
            words = f'expected the https:// URL of an issuer, found "{reason(server)}"'
            return Misconfigured(f"resource: authorization_servers: {words}")
    return Resource(identifier, servers, names(found, "scopes_supported"))


def _plain(url: str) -> str:
    """An empty path is the path / (RFC 3986 §6.2.3)."""
    return url.removesuffix("/") if url.count("/") == 3 else url

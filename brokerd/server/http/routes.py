# The paths of HTTP, one row each: the method of the protocol that answers it, its parameters, and how its result is
# written. Rules, charges and audit are that method's own.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

from brokerd.core.access.admission import DRAWN
from brokerd.core.errors import Code, Failure
from brokerd.dialects.dialect import DEFAULT_PRESENT
from brokerd.edge.http.requests import HttpRequest
from brokerd.server.http.messages import JSON, TEXT, Refused, Written, as_json, expires_in
from brokerd.server.methods.status_watch import CHANGED
from brokerd.server.page import answers
from brokerd.server.page.document import SCALES

GRANT = "GRANT"  # stands for a name in a path
Params = dict[str, Any]
Write = Callable[[Any], Written | Awaitable[Written]]


class Route(NamedTuple):
    """`path`: its parts, in which GRANT stands for a grant's name. `call`: the method of the protocol. `query`: the
    keys that may stand in the query, each with what makes a parameter of its text. `write`: the result in HTTP;
    `ways`: other ways to write it, by what `as` says in the query. `streams`: the result is followed by events.
    `ignored`: keys that may stand in the query and change nothing, because probes of others send them.
    `cost`: as how many requests the writing counts, if that takes time: `write` is then awaited. `repeats`: its answer
    may go the short way."""

    method: str
    path: tuple[str, ...]
    call: str
    query: Mapping[str, Callable[[str], object]]
    write: Write
    ways: Mapping[str, Write] = {}
    has_body: bool = False
    streams: bool = False
    ignored: frozenset[str] = frozenset()
    cost: Callable[[Any], float] | None = None
    repeats: bool = False


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Failure(Code.BAD_REQUEST, f"expected a number of seconds, found {text[:40]!r}") from None


def _texts(text: str) -> list[str]:
    return text.split()


def _token(found: dict[str, Any]) -> Written:
    return Written(JSON, as_json(token_map(found)))


def event_of(method: str, params: dict[str, Any]) -> bytes:
    """What became of a watched grant, as a server-sent event."""
    if method == "token":
        data = token_map(params)
    elif method == CHANGED:
        data = params
    else:
        data = {"grant": params["grant"], "error": params["code"], "message": params["message"]}
    return f"event: {method}\ndata: ".encode() + as_json(data) + b"\n"


def token_map(found: dict[str, Any]) -> dict[str, Any]:
    """A token as a JSON object."""
    expires_at = found["expires_at"]
    answer = {
        "grant": found["grant"],
        "access_token": found["value"],
        "token_type": found["token_type"],
        "expires_at": expires_at,
        "expires_in": expires_in(expires_at),
        "header": _header(found),
    }
    if "scope" in found:
        answer["scope"] = " ".join(found["scope"])
    if "fields" in found:
        answer["fields"] = found["fields"]
    return answer


def _header(found: dict[str, Any]) -> str:
    present: str = found.get("present", DEFAULT_PRESENT)
    return present.replace("{access_token}", found["value"])


def _header_lines(found: dict[str, Any]) -> Written:
    return Written(TEXT, f"{_header(found)}\n".encode())


def _header_value(found: dict[str, Any]) -> Written:
    """For proxies that read no body of a subrequest. Only who asks for it gets a token in a header, because proxies may
    log those of answers."""
    value = _header(found).partition(": ")[2]
    if not (value.isascii() and value.isprintable()):
        raise Failure(Code.MISCONFIGURED, f"{found['grant']}: expected a token that a header can carry")
    return Written(TEXT, b"", {"Brokerd_Header_Value": value})


def _metrics(found: dict[str, Any]) -> Written:
    return Written(found["content_type"], found["text"].encode())


def _alive(_found: object) -> Written:
    return Written(TEXT, b"live\n")


def _readiness(found: dict[str, Any]) -> Written:
    status = HTTPStatus.OK if found["ready"] else HTTPStatus.SERVICE_UNAVAILABLE
    return Written(TEXT, found["text"].encode(), status=status)


def _grant_readiness(_found: object) -> Written:
    return Written(TEXT, b"ready\n")


def _drawn(found: dict[str, Any]) -> float:
    return DRAWN * len(found["grants"])


def _json(found: object) -> Written:
    return Written(JSON, as_json(found))


TOKEN_QUERY: Mapping[str, Callable[[str], object]] = {
    "min_ttl": _number,
    "wait": _number,
    "scope": _texts,
    "audience": str,
    "resource": str,
}
VERBOSE = frozenset({"verbose"})  # kubectl and others ask for what is said in any case


def _scales(write: Callable[..., Awaitable[Written]]) -> Mapping[str, Write]:
    return {scale: partial(write, scale=scale) for scale in SCALES}


ROUTES = (
    Route("GET", ("v1", "token", GRANT), "get", TOKEN_QUERY, _token, repeats=True),
    Route("GET", ("v1", "header", GRANT), "get", TOKEN_QUERY, _header_lines, {"header": _header_value}),
    Route("POST", ("v1", "refused", GRANT), "get", TOKEN_QUERY, _token, has_body=True),
    Route("GET", ("v1", "events"), "watch", {"grant": str}, _json, streams=True),
    Route("GET", ("v1", "status"), "status", {"grant": str}, _json),
    Route("GET", ("metrics",), "metrics", {}, _metrics),
    Route("GET", ("livez",), "live", {}, _alive),
    Route("GET", ("readyz",), "ready", {}, _readiness, ignored=VERBOSE),
    Route("GET", ("readyz", GRANT), "grant_ready", {}, _grant_readiness, ignored=VERBOSE),
    Route("GET", ("",), "overview", {}, answers.page, _scales(answers.page), cost=_drawn),
    Route(
        "GET", ("page", "rows"), "overview", {"grant": str}, answers.fragment, _scales(answers.fragment), cost=_drawn
    ),
    Route("GET", ("page", "events"), "watch_status", {}, _json, streams=True),
    Route("GET", ("page", "style.css"), "hello", {}, answers.asset("style.css", "text/css; charset=utf-8")),
    Route("GET", ("page", "live.js"), "hello", {}, answers.asset("live.js", "text/javascript; charset=utf-8")),
    Route("GET", ("page", "icon.svg"), "hello", {}, answers.asset("icon.svg", "image/svg+xml")),
)


def route_of(request: HttpRequest) -> tuple[Route, Params]:
    """The row that answers it, and the parameters of its method. Raises Refused and Failure."""
    if request.origin is not None:
        words = "a request with Origin comes from a page in a browser, and pages get no tokens here"
        raise Refused(HTTPStatus.FORBIDDEN, words)
    rows = [row for row in ROUTES if _matches(row, request.parts)]
    if not rows:
        paths = ", ".join(f"{row.method} /{'/'.join(row.path)}" for row in ROUTES)
        raise Refused(HTTPStatus.NOT_FOUND, f"there is no such path; known: {paths}")
    row = next((row for row in rows if row.method == request.method), None)
    if row is None:
        allowed = ", ".join(row.method for row in rows)
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"expected the method {allowed}", Allow=allowed)
    query = dict(request.query)
    if row.ways and "as" in query:
        way = query.pop("as")
        if not isinstance(way, str) or way not in row.ways:
            raise Failure(Code.BAD_REQUEST, f"expected as={' or as='.join(row.ways)}, found as={str(way)[:40]!r}")
        row = row._replace(write=row.ways[way])
    params = _params(row, request.parts, query, request.body)
    return row, params if request.request_id is None else {**params, "request_id": request.request_id}


def _matches(row: Route, parts: tuple[str, ...]) -> bool:
    return len(parts) == len(row.path) and all(
        want in (GRANT, part) for want, part in zip(row.path, parts, strict=True)
    )


def _params(row: Route, parts: tuple[str, ...], query: Mapping[str, str | list[str]], body: bytes) -> Params:
    params: Params = {}
    many = row.call in ("watch", "status", "overview")
    if GRANT in row.path:
        params["grant"] = parts[row.path.index(GRANT)]
    for key, value in query.items():
        if key in row.ignored:
            continue
        if key not in row.query:
            known = ", ".join(row.query) or "none"
            raise Failure(Code.BAD_REQUEST, f"unknown parameter {key[:40]!r}; known: {known}")
        if many:
            params["grants"] = value if isinstance(value, list) else [value]
        elif isinstance(value, list):
            raise Failure(Code.BAD_REQUEST, f"the parameter {key} stands there {len(value)} times; expected it once")
        else:
            params[key] = row.query[key](value)
    if row.call == "watch" and not params:
        raise Failure(Code.BAD_REQUEST, "expected at least one grant in the query: ?grant=NAME")
    if row.has_body:
        params["refused"] = _refused(body)
    return params


def _refused(body: bytes) -> str:
    try:
        token = body.decode().removesuffix("\n")
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable():
        raise Failure(Code.BAD_REQUEST, "expected the token that the API refused as the body, one line of text")
    return token

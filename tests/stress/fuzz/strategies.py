# Structured inputs for hypothesis, one strategy for each subject: almost right, so that they come deep. What they are
# built of are the words that the subject understands, and values that it does not expect there.
from __future__ import annotations

import json

import msgpack
from brokerd_client.wire import pack_error, pack_notification, pack_request, pack_result
from hypothesis import strategies as st

from tests.stress.fuzz.answers import STARTS, STATUSES
from tests.stress.fuzz.shown_text import forms

Bytes = st.SearchStrategy[bytes]
texts = st.text(max_size=12)
leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=6)


def mutated(good: Bytes) -> Bytes:
    """The bytes, perhaps with some in the middle replaced."""

    def replace(data: bytes, at: int, noise: bytes) -> bytes:
        at %= len(data) + 1
        return data[:at] + noise + data[at + len(noise) :]

    return good | st.builds(replace, good, st.integers(0, 4096), st.binary(max_size=6))


def joined(part: Bytes, most: int = 6) -> Bytes:
    return st.lists(part, max_size=most).map(b"".join)


def _tables(keys: tuple[str, ...]) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(st.sampled_from(keys), values, max_size=6)


def _packed(value: object) -> bytes:
    return bytes(msgpack.packb(value))


_ids = st.integers(0, 2**32 - 1)
_params = st.dictionaries(texts, values, max_size=3)
_messages = (
    st.builds(pack_request, _ids, texts, _params)
    | st.builds(pack_result, _ids, values)
    | st.builds(pack_notification, texts, _params)
    | st.lists(values, max_size=5).map(_packed)
)
WIRE = st.tuples(st.binary(min_size=1, max_size=1), mutated(joined(_messages))).map(b"".join)

_token = st.fixed_dictionaries(
    {"value": texts, "token_type": texts, "grant": texts},
    optional={"expires_at": leaves, "present": st.just("X-Key: {access_token}") | texts},
) | _tables(("value", "token_type", "expires_at", "grant", "present"))
_error = st.fixed_dictionaries(
    {"code": st.sampled_from(["unavailable", "revoked", "new"]), "message": texts},
    optional={"grant": leaves, "retry_after": leaves},
)
_both = st.lists(_token.map(lambda token: {"token": token}) | _error.map(lambda error: {"error": error}), max_size=3)
_lies = (
    st.builds(pack_result, st.integers(0, 3), _token | _both | values)
    | st.builds(pack_error, st.none() | st.integers(0, 3), _error)
    | st.builds(pack_notification, st.sampled_from(["token", "gone", "x"]), _token | _error)
)
CLIENT = st.tuples(st.binary(min_size=1, max_size=1), mutated(joined(_lies))).map(b"".join)

_marks = st.sampled_from([f"<{each}>" for each in forms("")] + [f"<refresh {each}>" for each in forms("")])
_said = st.sampled_from(["abc", "invalid_grant", "3600", "2027-01-15T09:00:00Z", "1e308"]) | _marks | texts | leaves
_bodies = st.recursive(
    _said, lambda v: st.lists(v, max_size=2) | st.dictionaries(st.sampled_from(["msg", "message"]), v), max_leaves=4
)
_keys = st.sampled_from(
    [
        "access_token",
        "refresh_token",
        "expires_in",
        "expires_at",
        "token_type",
        "scope",
        "error",
        "error_description",
        "title",
        "detail",
        "errors",
        "message",
        "token_id",
        "token",
        "t",
    ]
)
_objects = st.dictionaries(_keys, _bodies, max_size=6).map(json.dumps)
_names = st.sampled_from(["content-type", "date", "retry-after", "x-token-id", "x-error"])
_fields = st.sampled_from(["text/html", "Fri, 15 Jan 2027 08:00:00 GMT", "120", "-1e9"]) | _marks | texts
_headers = st.lists(st.tuples(_names, _fields).map(": ".join), max_size=3).map("\n".join)
ANSWERS = mutated(
    st.tuples(
        st.sampled_from(sorted(STARTS)),
        st.sampled_from(STATUSES).map(str),
        texts,
        _headers,
        st.just(""),
        _objects | texts,
    ).map(lambda parts: "\n".join(parts).encode(errors="replace"))
)

_toml = st.sampled_from(
    [
        "5",
        "-1",
        "true",
        "nan",
        "inf",
        "1e300",
        "1979-05-27",
        "[]",
        "{}",
        '""',
        '"x"',
        '"{user}"',
        '"{refresh_token.id}"',
        '"POST /t/{user}"',
        '"GET /"',
        '"header:X-A"',
        '"a.²"',
        '["a", "header:B"]',
        '{ at = "t", id = "i" }',
        '"{scope?}"',
        '{ "[...]" = 5 }',
        '{ 404 = "done" }',
        '{ "²" = "done" }',
        '{ a = "{password}" }',
        '["user", "password"]',
        '"https://a.example/"',
        '"90s"',
        '{ file = "/x" }',
        '{ client_id = "c", client_secret = "test-only-1234" }',
        '"oauth2"',
        '"ix-api"',
        '"p"',
        '"g"',
        '["g"]',
        '["*"]',
        "{ uid = 5 }",
        '"client_credentials"',
        '["test-only-1234"]',
    ]
)


def _lines(heads: list[str], keys: list[str]) -> Bytes:
    pairs = st.tuples(st.sampled_from(keys), _toml).map(" = ".join)
    lines = st.lists(pairs, max_size=5, unique_by=lambda pair: pair.partition(" ")[0]).map("\n".join)
    blocks = st.tuples(st.sampled_from(heads), lines).map("\n".join)
    return st.lists(blocks, min_size=1, max_size=4, unique=True).map(lambda each: "\n".join(each).encode())


_recipe = _lines(
    [
        'credentials = ["user", "password"]',
        'present = "A: {access_token}"',
        "[[issue]]",
        '[[issue]]\nrequest = "GET /"',
        '[renew]\nrequest = "PUT /r"',
        "[answer]",
        '[answer]\naccess_token = "t"',
        "[errors]",
        "[revoke.access_token]",
    ],
    [
        "request",
        "jwt",
        "headers",
        "basic",
        "query",
        "json",
        "form",
        "multipart",
        "errors",
        "answer.access_token",
        "answer",
        "access_token",
        "refresh_token",
        "scope",
        "reason",
        '"a\\nb"',
    ],
)
RECIPES = mutated(st.tuples(_recipe, ANSWERS).map(b"\n====\n".join))
CONFIGURATION = mutated(
    _lines(
        [
            "[daemon]",
            "[providers.p]",
            '[providers.p]\ndialect = "oauth2"\ntoken_url = "https://a.example/t"',
            "[grants.g]",
            '[grants.g]\nprovider = "p"',
            "[[allow]]",
            "[[on_event]]",
            "#### conf.d/a.toml",
            "[grants]",
            '[grants."[...]"]',
            "# exposed",
        ],
        [
            "dialect",
            "base_url",
            "token_url",
            "reuse_grace",
            "concurrency",
            "ca_file",
            "settings",
            "provider",
            "grant_type",
            "credentials",
            "scope",
            "lifetime",
            "grants",
            "caller",
            "actions",
            "key",
            "socket",
            "socket_mode",
            "proxy",
        ],
    )
)

_head = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 401 \r\n",
        b"HTTP/1.0 400 Bad\r\n",
        b"HTTP/1.1 100 C\r\n\r\n",
        b"HTTP/1.1 204 \r\n",
    ]
)
_header = st.sampled_from(
    [
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"X: \xff\xe4\r\n",
        b"Y:\r\n z\r\n",
    ]
)
_content = (
    st.sampled_from([b"hello", b"5\r\nhello\r\n", b"0\r\n\r\n", b"ffffffff\r\n", b"1;x=y\r\na\r\n", b"\r\n"])
    | st.binary()
)
_streams = st.tuples(_head, joined(_header, 3), st.just(b"\r\n"), joined(_content, 4)).map(b"".join)
HTTP_CLIENT = st.tuples(st.binary(min_size=2, max_size=2), mutated(joined(_streams, 2))).map(b"".join)

_REQUEST_LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"GET /v1/token/a?b=c&b=%64 HTTP/1.1",
        b"POST /a HTTP/1.1",
        b"HEAD / HTTP/1.1",
        b"GET / HTTP/1.0",
    ]
) | st.builds(lambda path: b"GET /" + path + b" HTTP/1.1", st.binary(max_size=20))
_HEADER_LINES = st.sampled_from(
    [
        b"Host: a",
        b"host: a",
        b"HOST:a",
        b"Accept: */*",
        b"Connection: keep-alive",
        b"connection: keep-alive, close",
        b"Connection: close",
        b"Content-Length: 3",
        b"Content-Length: 0",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Upgrade: h2c",
        b"Origin: https://a",
        b"X: a b ",
        b"X: \xff",
        b" folded",
        b"X:",
        b"qxtestonlytokenxq",
    ]
)
_REQUESTS = st.builds(
    lambda line, host, lines, body: b"\r\n".join([line, *host, *lines, b"", b""]) + body,
    _REQUEST_LINES,
    st.sampled_from([(b"Host: a",), ()]),
    st.lists(_HEADER_LINES, max_size=4),
    st.sampled_from([b"", b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n"]),
)
HTTP_SERVER = st.builds(
    lambda first, parts: bytes([first]) + b"".join(parts), st.integers(0, 255), st.lists(_REQUESTS, max_size=4)
)

_header_lines = st.sampled_from(
    [
        b"Content-Length: 5",
        b"Content-Length: 05",
        b"content-length:3",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: Chunked",
        b"Connection: close",
        b"Connection: authorization, host",
        b"Connection: upgrade",
        b"Upgrade: websocket",
        b"Authorization: Bearer mine",
        b"Expect: 100-continue",
        b"X: a b",
        b"X:\t a \t",
        b"X-Empty:",
        b"Host: y",
        b"X: \x80\xff",
        b"X : a",
        b" folded",
        b"Trailer: X",
    ]
)
_targets = st.sampled_from(
    [b"/", b"/v2/a", b"/v2/../a", b"/v2/%2e%2e/a", b"//v2/a", b"/v2/a?b=../c", b"http://x/v2/a", b"*"]
)
_message_bodies = st.sampled_from(
    [
        b"",
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"0\r\n\r\nGET ",
        b"5\nhello\n0\n\n",
    ]
)
PROXIED = st.builds(
    lambda cut, method, target, minor, lines, end, body: (
        b"".join(
            (
                bytes([cut]),
                method,
                b" ",
                target,
                b" HTTP/1.",
                minor,
                b"\r\nHost: x\r\n",
                *(each + b"\r\n" for each in lines),
            )
        )
        + end
        + body
    ),
    st.integers(0, 255),
    st.sampled_from([b"GET", b"POST", b"CONNECT", b"TRACE", b"get", b"G{T"]),
    _targets,
    st.sampled_from([b"1", b"1", b"0", b"2"]),
    st.lists(_header_lines, max_size=4),
    st.sampled_from([b"\r\n", b"\r\n", b"\n", b""]),
    _message_bodies | st.binary(max_size=30),
)

_HEADER = {"cluster_id": "7", "member_id": "8", "revision": "5", "raft_term": "2"}
_numbers = st.sampled_from(["0", "1", "5", "-1", "x", "18446744073709551616"]) | values
_pairs = st.fixed_dictionaries(
    {"key": st.sampled_from(["azE=", "azI=", "", "?"]), "mod_revision": st.integers(1, 6).map(str) | _numbers},
    optional={"value": st.sampled_from(["djE=", "", "?"]) | values, "lease": _numbers},
)
_events = st.fixed_dictionaries({"kv": _pairs}, optional={"type": st.sampled_from(["PUT", "DELETE", "MOVE"])})
_ranges = st.fixed_dictionaries({"response_range": st.fixed_dictionaries({}, optional={"kvs": st.lists(_pairs)})})
_ends = {"canceled": st.booleans(), "cancel_reason": texts, "compact_revision": _numbers}
_results = st.fixed_dictionaries(
    {"header": st.just(_HEADER) | _tables(tuple(_HEADER))},
    optional={
        "created": st.booleans(),
        "fragment": st.booleans(),
        "events": st.lists(_events, max_size=4),
        "ID": _numbers,
        "TTL": _numbers,
        "token": texts,
        "kvs": st.lists(_pairs, max_size=3),
        "more": st.booleans(),
        "succeeded": st.booleans(),
        "responses": st.lists(_ranges, max_size=3),
    },
)
_said = st.sampled_from(["etcdserver: no leader", "etcdserver: permission denied", "hunter2"]) | texts
_errors = st.fixed_dictionaries(
    {}, optional={"error": _said | st.fixed_dictionaries({"message": _said}), "message": _said}
)
_ended = st.builds(lambda end: {"result": {"header": _HEADER, **end}}, st.fixed_dictionaries({}, optional=_ends))
ETCD = st.builds(
    lambda kind, lines: bytes([kind]) + b"\n".join(json.dumps(line).encode() for line in lines),
    st.integers(0, 7),
    st.lists(_results | _results.map(lambda result: {"result": result}) | _ended | _errors, min_size=1, max_size=4),
)

ALL = {
    "wire": WIRE,
    "client": CLIENT,
    "recipes": RECIPES,
    "answers": ANSWERS,
    "configuration": CONFIGURATION,
    "http_client": HTTP_CLIENT,
    "http_server": HTTP_SERVER,
    "proxied": mutated(PROXIED),
    "etcd": mutated(ETCD),
}

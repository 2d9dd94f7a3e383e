# What requests carry, read strictly: JSON objects, forms, multipart forms, query strings, Authorization headers.
# It knows formats and no provider; what is wrong it raises as Malformed, which every provider says in its own form.
from __future__ import annotations

import base64
import binascii
import email.message
import email.parser
import email.policy
import json
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar
from urllib.parse import parse_qsl, unquote_plus

from tests.servers.http import Request

FORM = "application/x-www-form-urlencoded"
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
FORM_TEXT = re.compile(r"[!-~]*")  # no spaces, controls or bytes beyond ASCII: they are escaped in a form
ENCODINGS = {"7bit", "8bit", "binary"}  # RFC 7578 §4.7 deprecates the others

Pairs = list[tuple[str, str]]
T = TypeVar("T")


class Malformed(Exception):
    """A request that is not what the document says. `where` is "body", "query" or "header", `field` a name in it."""

    def __init__(self, reason: str, *, kind: str = "value_error", field: str = "", where: str = "body") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.field = field
        self.where = where


def content_type(request: Request) -> email.message.Message:
    """The parsed Content-Type; text/plain where there is none."""
    parsed = email.message.Message()
    parsed["content-type"] = request.header("content-type") or "text/plain"
    return parsed


def expect_type(request: Request, expected: str) -> None:
    """Raises Malformed unless the content type is `expected`, in UTF-8 where it names a charset."""
    declared = content_type(request)
    if declared.get_content_type() != expected:
        found = request.header("content-type") or "none"
        raise Malformed(f"expected content type {expected}, found {found}", kind="content_type")
    if declared.get_content_charset("utf-8") != "utf-8":
        raise Malformed("expected the charset utf-8", kind="content_type")


def json_object(request: Request) -> dict[str, object]:
    """The JSON object in the body, each name once."""
    expect_type(request, "application/json")
    try:
        value = json.loads(request.body.decode(), object_pairs_hook=_each_once)
    except ValueError as error:
        raise Malformed("expected JSON", kind="json_invalid") from error
    if not isinstance(value, dict):
        raise Malformed("expected a JSON object", kind="json_type")
    return value


def form(request: Request) -> dict[str, str]:
    """The fields of an application/x-www-form-urlencoded body, each once."""
    return _each_once(form_pairs(request))


def form_pairs(request: Request) -> Pairs:
    """The same, repetitions kept (RFC 8707 §2 repeats `resource`)."""
    expect_type(request, FORM)
    return decode_pairs(request.body.decode("latin-1"), where="body")


def query(request: Request) -> dict[str, str]:
    """The fields of the query string, each once."""
    return _each_once(decode_pairs(request.query, where="query"), where="query")


def decode_pairs(text: str, *, where: str) -> Pairs:
    if not text:
        return []
    if BAD_ESCAPE.search(text) or not FORM_TEXT.fullmatch(text):
        raise Malformed("expected form-encoded text", kind="form_invalid", where=where)
    try:
        return parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError as error:
        raise Malformed("expected form-encoded UTF-8", kind="form_invalid", where=where) from error


def multipart(request: Request) -> dict[str, str]:
    """The fields of a multipart/form-data body (RFC 7578), each once; files are malformed here."""
    declared = content_type(request)
    if declared.get_content_type() != "multipart/form-data" or not declared.get_boundary():
        found = request.header("content-type") or "none"
        raise Malformed(f"expected multipart/form-data with a boundary, found {found}", kind="content_type")
    head = f"MIME-Version: 1.0\r\nContent-Type: {request.header('content-type')}\r\n\r\n".encode("latin-1")
    message = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(head + request.body)
    parts = message.get_payload()
    if message.defects or not isinstance(parts, list):
        raise Malformed("expected complete parts between the boundaries", kind="multipart_invalid")
    return _each_once([_part(part) for part in parts if isinstance(part, email.message.Message)])


def require(fields: Mapping[str, object], needed: Iterable[str], optional: Iterable[str] = ()) -> dict[str, str]:
    """The fields as text: all of `needed`, perhaps some of `optional`, nothing else, nothing empty."""
    needed = tuple(needed)
    for name in needed:
        if name not in fields:
            raise Malformed("Field required", kind="missing", field=name)
    values = {}
    for name, value in fields.items():
        if name not in (*needed, *optional):
            raise Malformed("Extra inputs are not permitted", kind="extra_forbidden", field=name)
        if not isinstance(value, str):
            raise Malformed("Input should be a valid string", kind="string_type", field=name)
        if not value:
            raise Malformed("Input should not be empty", kind="string_too_short", field=name)
        values[name] = value
    return values


def bearer(request: Request) -> str | None:
    """The token of `Authorization: Bearer` (RFC 6750 §2.1), or None."""
    scheme, _, token = (request.header("authorization") or "").partition(" ")
    return token if scheme.lower() == "bearer" and token else None


def basic(request: Request, *, encoded_first: bool = True) -> tuple[str, str] | None:
    """Client id and secret of `Authorization: Basic`, both form-decoded (RFC 6749 §2.3.1) unless `encoded_first` is
    false, or None if unreadable."""
    scheme, _, encoded = (request.header("authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(encoded, validate=True).decode("ascii")  # once form-encoded, it is ASCII
    except (binascii.Error, UnicodeDecodeError):
        return None
    name, colon, secret = pair.partition(":")
    if not encoded_first:
        return name, secret
    if not colon or not FORM_TEXT.fullmatch(pair) or ":" in secret or BAD_ESCAPE.search(pair):
        return None
    try:
        return unquote_plus(name, errors="strict"), unquote_plus(secret, errors="strict")
    except UnicodeDecodeError:
        return None


def _part(part: email.message.Message) -> tuple[str, str]:
    name = part.get_param("name", header="content-disposition")
    if part.get_content_disposition() != "form-data" or not isinstance(name, str) or part.defects:
        raise Malformed("expected a form-data part with a name", kind="multipart_invalid")
    if part.get_filename() is not None:
        raise Malformed("expected a field, found a file", kind="multipart_invalid", field=name)
    if part.get("content-transfer-encoding", "7bit").lower() not in ENCODINGS:
        raise Malformed("expected no Content-Transfer-Encoding", kind="multipart_invalid", field=name)
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        raise Malformed("expected a simple value", kind="multipart_invalid", field=name)
    try:
        return name, content.decode()
    except UnicodeDecodeError as error:
        raise Malformed("expected UTF-8", kind="multipart_invalid", field=name) from error


def _each_once(pairs: list[tuple[str, T]], where: str = "body") -> dict[str, T]:
    values = dict(pairs)
    if len(values) != len(pairs):
        repeated = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
        raise Malformed("Field repeated", kind="repeated", field=repeated, where=where)
    return values

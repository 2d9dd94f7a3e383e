# An endpoint that gives back what it was sent, secrets and all, in every place of an answer that a client may quote.
from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import parse_qs, quote

from tests.servers.http import Answer, Raw, Request, Response, Server, json_response

LONGEST = 2_000  # characters of a header


class Echo:
    """`POST /KIND/token` is answered in that kind's way (KINDS)."""

    down = False
    prefix = "/echo"

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []

    def mounted(self, _server: Server, url: str) -> None:
        self.url = url

    async def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        return KINDS.get(request.path.split("/")[1], _description)(request)


def _sent(request: Request) -> str:
    headers = "\n".join(f"{name}: {value}" for name, value in request.headers)
    return f"{request.method} {request.path}\n{headers}\n\n{request.body.decode()}"


def _secret(request: Request) -> str:
    """The secret that was sent: the client's, or a recipe's password; brokerctl doctor sends none."""
    text = request.body.decode()
    return str(json.loads(text)["password"]) if text.startswith("{") else parse_qs(text).get("client_secret", ["-"])[0]


def _line(text: str) -> str:
    """As a header's value can have it."""
    return quote(text, safe=" !#$&'()*+,/:;=?@[]~")[:LONGEST].strip()


def _description(request: Request) -> Answer:
    return json_response(400, {"error": "invalid_request", "error_description": _sent(request)})


def _base64(request: Request) -> Answer:
    text = b64encode(_secret(request).encode()).decode()
    return json_response(400, {"error": "invalid_request", "error_description": f"not understood: {text}"})


def _code(request: Request) -> Answer:
    return json_response(400, {"error": _secret(request), "error_uri": f"https://x.example/{_secret(request)}"})


def _challenge(request: Request) -> Answer:
    challenge = ("www-authenticate", f'Basic realm="{_line(_sent(request))}"')
    return json_response(401, {"error": "invalid_client", "error_description": _secret(request)}, (challenge,))


def _redirect(request: Request) -> Answer:
    return Response(302, (("location", f"http://127.0.0.1/?{_line(_sent(request))}"),), _sent(request).encode())


def _page(request: Request) -> Answer:
    page = f"<title>Whoops</title><pre>{html.escape(_sent(request))}</pre>"
    return Response(500, (("content-type", "text/html"),), page.encode())


def _plain(request: Request) -> Answer:
    return Response(200, (("content-type", "text/plain"),), _sent(request).encode())


def _later(request: Request) -> Answer:
    return Response(429, (("retry-after", _line(_secret(request))), ("date", _line(_secret(request)))))


def _expiry(request: Request) -> Answer:
    return json_response(200, {"access_token": "", "expires_in": _secret(request), "token_type": _secret(request)})


def _half(request: Request) -> Answer:
    body = json.dumps({"error_description": _sent(request)}, ensure_ascii=False)[:-3]
    return Response(400, (("content-type", "application/json"),), body.encode())


def _status_line(request: Request) -> Answer:
    return Raw(f"HTTP/1.1 400 {_secret(request)}\r\nContent-Length: 0\r\n\r\n".encode())


def _no_http(request: Request) -> Answer:
    return Raw(f"{_secret(request)}\r\n\r\n".encode())


def _header_name(request: Request) -> Answer:
    return Raw(f"HTTP/1.1 400 Bad\r\n{_secret(request)} x: y\r\nContent-Length: 0\r\n\r\n".encode())


KINDS: dict[str, Callable[[Request], Answer]] = {
    "description": _description,
    "base64": _base64,
    "code": _code,
    "challenge": _challenge,
    "redirect": _redirect,
    "page": _page,
    "plain": _plain,
    "later": _later,
    "expiry": _expiry,
    "half": _half,
    "status-line": _status_line,
    "no-http": _no_http,
    "header-name": _header_name,
}

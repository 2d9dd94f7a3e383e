# A reverse proxy in front of a real server: it sees what the server does with whose refresh token, and holds answers
# back where it is told to. It ends TLS with the server's own certificate, and knows nothing of brokerd.
from __future__ import annotations

import http.client
import json
import ssl
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import trio

from tests.servers.http import Answer, Request, Response, Server

TIMEOUT = 30.0  # seconds for a real server's answer; it comes in milliseconds
REFRESH_TOKENS = ("refresh_token", "refresh")  # what OAuth 2.0 and simplejwt call it
ACCESS_TOKENS = ("access_token", "access")
FRAMING = {"host", "connection", "content-length", "transfer-encoding", "keep-alive"}  # each hop's own


class Relay:
    """In front of the server at `upstream`, whose certificate `ca_file` vouches for. `issues_to`: the grant that logs
    in by itself there. `rotations` counts, for each grant, the refresh tokens that the server has replaced."""

    down = False

    def __init__(self, upstream: str, ca_file: Path | None = None, issues_to: str = "") -> None:
        self.rotations: Counter[str] = Counter()
        self.secrets: set[str] = set()
        self.slow = 0.0  # seconds for which answers to renewals are held from now on
        self.holding = 0
        self._upstream = urlsplit(upstream)
        self._tls = ssl.create_default_context(cafile=ca_file) if ca_file else None
        self._issues_to = issues_to
        self._holders: dict[str, str] = {}
        self._server: Server | None = None
        self.url = ""

    def mounted(self, server: Server, url: str) -> None:
        self._server, self.url = server, url

    def imports(self, grant: str, refresh_token: str) -> None:
        """This refresh token is that grant's from now on."""
        self._holders[refresh_token] = grant
        self.secrets.add(refresh_token)

    @property
    def is_settled(self) -> bool:
        """Whatever was under way with a daemon that is dead has come to its end at the server."""
        return self._server is None or self._server.open_connections <= self.holding

    async def answer(self, request: Request) -> Answer:
        status, headers, body = await trio.to_thread.run_sync(self._ask, request)
        sent = _first(_fields(request.body), REFRESH_TOKENS)
        came = _fields(body)
        self.secrets.update(filter(None, (sent, *(_first(came, names) for names in (REFRESH_TOKENS, ACCESS_TOKENS)))))
        grant = self._holders.get(sent) if sent else self._issues_to
        brought = _first(came, REFRESH_TOKENS)
        if status == 200 and grant and brought:
            self._holders[brought] = grant
            self.rotations[grant] += bool(sent)
        if self.slow and sent:
            self.holding += 1
            try:
                await trio.sleep(self.slow)
            finally:
                self.holding -= 1
        kept = tuple((name.lower(), value) for name, value in headers if name.lower() not in FRAMING)
        return Response(status, kept, body)

    def _ask(self, request: Request) -> tuple[int, list[tuple[str, str]], bytes]:
        """In a thread."""
        host, port = self._upstream.hostname or "", self._upstream.port
        connection = (
            http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=self._tls)
            if self._tls
            else http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        )
        try:
            headers = {name: value for name, value in request.headers if name not in FRAMING}
            target = self._upstream.path + request.path + (f"?{request.query}" if request.query else "")
            connection.request(request.method, target, request.body, {**headers, "connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


def _fields(body: bytes) -> Mapping[str, object]:
    """What a body says: JSON or a form."""
    try:
        found = json.loads(body)
    except ValueError:
        return dict(parse_qsl(body.decode("utf-8", "replace")))
    return found if isinstance(found, dict) else {}


def _first(fields: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    return next((str(fields[name]) for name in names if fields.get(name)), None)

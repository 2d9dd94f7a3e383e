# Shows one browser the page of brokerd (docs/page.md): forwards GET of its paths to the HTTP socket of brokerd, which
# attests brokerctl as it does any program. Nothing else is forwarded, so no token passes here.
from __future__ import annotations

import secrets
import socket
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from time import monotonic
from urllib.parse import SplitResult

from brokerd.ctl.browser import pages
from brokerd.ctl.browser.one_browser import OneBrowser, OneBrowserHandler

PATHS = ("", "page/rows", "page/events", "page/style.css", "page/live.js", "page/icon.svg")
OWN = (None, "same-origin", "none")  # Sec-Fetch-Site: our page asks, or a person typed the address
ANSWER_WITHIN = 60.0  # seconds of silence: a stream of events has a comment each 15 seconds
PIECE = 64 * 1024  # bytes that are forwarded at once
HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive")


class PageServer(OneBrowser):
    """`socket_path`: the HTTP socket of brokerd. `used_at`: when the browser had something last.

    Everything is below a random path, and so is the cookie: browsers send cookies of 127.0.0.1 to servers at every port
    of it, and another user may have one.

    Many attributes: those of its base."""

    purpose = "brokerctl page"

    def __init__(self, socket_path: str, port: int | None) -> None:
        super().__init__("127.0.0.1", port or 0, PageHandler, root=f"/{secrets.token_urlsafe(12)}/")
        self.socket_path = socket_path
        self.used_at = monotonic()

    def ask(self, target: str) -> HTTPResponse:
        """The answer of brokerd. Raises OSError and HTTPException."""
        connection = _UnixConnection("brokerd", timeout=ANSWER_WITHIN)
        connection.path = self.socket_path
        try:
            connection.request("GET", target, headers={"Connection": "close"})
            return connection.getresponse()
        except BaseException:
            connection.close()
            raise


class _UnixConnection(HTTPConnection):
    path: str

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class PageHandler(OneBrowserHandler):
    server: PageServer

    def begin(self) -> None:
        """Set the cookie, and go on to the page from here: browsers send a strict cookie only if the page before was
        ours, so a redirect would come without it."""
        self.send_response(200)
        self.send_cookie("Strict")
        self.body(pages.onward("The page of brokerd", self.server.root))
        self.server.wake()

    def page(self, target: SplitResult) -> None:
        server = self.server
        path = target.path.removeprefix(server.root)
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site")
        if not self.is_known():
            words = "This browser may not see the page: it works in the one that opened the address of brokerctl page."
            self.refuse(403, words)
        elif site not in OWN or origin not in (None, f"http://{server.host}"):
            self.refuse(403, "Another site asked for the page. That is not allowed.")
        elif path == target.path or path not in PATHS:
            self.refuse(404, "There is nothing here.")
        else:
            server.keep(self.connection)
            server.used_at = monotonic()
            self._forward(f"/{path}?{target.query}" if target.query else f"/{path}")

    def _forward(self, target: str) -> None:
        try:
            answer = self.server.ask(target)
        except (OSError, HTTPException):
            return self.refuse(502, "brokerd does not answer. Is it running?", "To look: brokerctl doctor")
        with closing(answer), suppress(OSError, HTTPException):  # one of the two has gone away
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.close_connection = True
            self.end_headers()
            while piece := answer.read1(PIECE):
                self.wfile.write(piece)
                self.server.used_at = monotonic()
        return None

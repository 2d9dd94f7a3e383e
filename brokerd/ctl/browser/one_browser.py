# A loopback port of brokerctl for one browser of one person. Other users of the machine can reach the port too, but
# only the right browser has the cookie that the one-time start page sets. If a second browser opens the start page,
# somebody else knows its secret address, and an alarm is raised.
from __future__ import annotations

import errno
import io
import os
import secrets
import socket
import threading
from contextlib import suppress
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from time import monotonic
from typing import Any
from urllib.parse import SplitResult, urlsplit

from brokerd.ctl.browser import pages

REQUEST_WITHIN = 2.0  # seconds for a whole request; a browser that connects early and waits will connect again
LONGEST = 64 * 1024  # bytes of a request: browsers send the cookies of every server on this machine
CONNECTIONS = 256  # open connections that have not shown the cookie; each has a thread and a descriptor
BACKLOG = 1024  # connections that wait to be accepted
NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class OneBrowser(ThreadingHTTPServer):
    """Listens at once, and answers requests once it is told to `serve`. `is_over`: a second browser has opened the
    one-time page, so nothing counts any more; `alarmed`: that browser has its answer, and brokerctl can end. `root`:
    the path below which everything is, and the cookie is sent.

    Many attributes: the address, what the one browser knows, and what the threads share."""

    purpose: str  # in words
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = False
    request_queue_size = BACKLOG

    def __init__(self, name: str, port: int, handler: type[OneBrowserHandler], root: str = "/") -> None:
        """`name`: 127.0.0.1, ::1 or localhost."""
        address = name.replace("localhost", "127.0.0.1")
        if ":" in name:
            self.address_family, address = socket.AF_INET6, "::1"
        super().__init__((address, port), handler)
        self.port: int = self.server_address[1]
        try:
            self._reserved = _reserve(self.port) if name == "localhost" else None
        except OSError:
            self.server_close()
            raise
        self.host = f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"
        self.root = root
        self.start = f"{root}start/{secrets.token_urlsafe(24)}"
        self.cookie = f"brokerctl_{self.port}", secrets.token_urlsafe(32)
        self.started = self.is_over = self.alarmed = False
        self._is_served = self._is_closed = False
        self.woken, self._wake = os.pipe()  # readable when there is something to look at, such as an alarm
        self.lock = threading.Lock()
        self._strangers: dict[Any, float] = {}  # connections without the cookie, oldest first, with their deadlines
        self._connections = threading.Lock()  # protects _strangers, whose connections are open

    @property
    def start_url(self) -> str:
        """The one-time page, a secret."""
        return f"http://{self.host}{self.start}"

    def serve(self) -> None:
        self._is_served = True
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def wake(self) -> None:
        """Make `woken` readable."""
        with self.lock:
            if not self._is_closed:
                os.write(self._wake, b"\n")

    def close(self) -> None:
        if self._is_served:
            self.shutdown()
        self.server_close()
        if self._reserved is not None:
            self._reserved.close()
        with self.lock:
            self._is_closed = True
            os.close(self.woken)
            os.close(self._wake)

    def server_bind(self) -> None:
        """Without HTTPServer's DNS lookup."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """If there are too many connections, the oldest is closed: a browser needs its own for milliseconds only."""
        with self._connections:
            if len(self._strangers) >= CONNECTIONS:
                self._drop(next(iter(self._strangers)))
            self._strangers[request] = monotonic() + REQUEST_WITHIN
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Close the connections whose deadline has passed."""
        with self._connections:
            now = monotonic()
            for request in [each for each, end in self._strangers.items() if end < now]:
                self._drop(request)

    def keep(self, request: Any) -> None:
        """This connection has shown the cookie and may wait for its page."""
        with self._connections:
            self._strangers.pop(request, None)

    def shutdown_request(self, request: Any) -> None:
        self.keep(request)
        super().shutdown_request(request)

    def _drop(self, request: Any) -> None:
        """Wake the connection's thread, which closes it."""
        del self._strangers[request]
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client has gone away: there is nothing to do."""


def _reserve(port: int) -> socket.socket | None:
    """Reserves the same port at ::1. Browsers look for `localhost` there first, so a program that listened there would
    get the one-time address. Raises OSError."""
    found = socket.socket(socket.AF_INET6) if socket.has_ipv6 else None
    try:
        if found is not None:
            found.bind(("::1", port))
    except OSError as error:
        assert found is not None
        found.close()
        if error.errno in NO_IPV6:
            return None
        raise
    return found


class OneBrowserHandler(BaseHTTPRequestHandler):
    """What a kind of server answers is in `begin` and `page`."""

    server: OneBrowser
    protocol_version = "HTTP/1.1"

    def begin(self) -> None:
        """Answer at the start page, for the one browser."""
        raise NotImplementedError

    def page(self, target: SplitResult) -> None:
        """Answer anywhere else. Whoever asks may be a stranger."""
        raise NotImplementedError

    def handle(self) -> None:
        """One request. LONGEST limits its length, the server limits its time."""
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.connection.recv(LONGEST - len(head))
            if not data:
                return
            head += data
        self.rfile = io.BytesIO(head)
        self.handle_one_request()

    def do_GET(self) -> None:
        server, target = self.server, urlsplit(self.path)
        if self.headers.get_all("Host") != [server.host]:
            self.refuse(403, "This is not the address that brokerctl printed.")
        elif compare_digest(target.path.encode(), server.start.encode()):
            self._start()
        else:
            self.page(target)

    def _start(self) -> None:
        """For the first browser only."""
        server = self.server
        with server.lock:
            is_second = server.started and not self.is_known()
            server.started = True
            server.is_over = server.is_over or is_second
        if not is_second:
            return self.begin()
        ended = f"It works in one only, so {server.purpose} was ended."
        words = f"Another browser has opened this address before. {ended}"
        try:
            self.refuse(410, words, "If that was not you, somebody else knew it. Go back to your terminal.")
        finally:
            server.alarmed = True
            server.wake()

    def send_cookie(self, same_site: str) -> None:
        (name, value), root = self.server.cookie, self.server.root
        self.send_header("Set-Cookie", f"{name}={value}; Path={root}; HttpOnly; SameSite={same_site}")

    def is_known(self) -> bool:
        """Whether the browser has the cookie."""
        name, value = self.server.cookie
        pairs = [each.strip().partition("=") for line in self.headers.get_all("Cookie", []) for each in line.split(";")]
        return any(n == name and compare_digest(v.encode(), value.encode()) for n, _, v in pairs)

    def refuse(self, status: int, words: str, then: str = "Nothing has changed.") -> None:
        self.send_response(status)
        if status == 405:
            self.send_header("Allow", "GET")
        self.body(pages.page("This does not work", words, then))

    def body(self, body: bytes) -> None:
        for name, value in pages.HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.close_connection = True
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)
            self.wfile.flush()

    def send_error(self, code: int, _message: str | None = None, _explain: str | None = None) -> None:
        """http.server calls this for an unknown method or a malformed request."""
        self.refuse(405 if code == 501 else code, "No browser sends such a request here.")

    def version_string(self) -> str:
        return "brokerctl"

    def log_message(self, *_: object) -> None:
        """Nothing is logged: the terminal is for the person, and addresses contain secret codes."""

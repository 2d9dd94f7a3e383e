# Where a browser comes back to after a login (RFC 8252 §7.3): a loopback port for one person and one answer. Other
# users of the machine reach it too: what they lack is the cookie that the one-time page has set in the right browser.
# If a second browser asks for that page, somebody knows a secret that is not theirs, and the login ends.
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
from queue import Queue
from socketserver import TCPServer
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from brokerd.ctl import pages

REQUEST_WITHIN = 2.0  # seconds for a request to come whole; a browser that connects ahead of its request comes again
LONGEST = 64 * 1024  # bytes of a request: browsers send the cookies of every program that listens on this machine
SENT_WITHIN = 5.0  # seconds until the last page is with its browser, or is given up
CONNECTIONS = 256  # that have not shown the cookie; each has a thread and a descriptor
BACKLOG = 1024  # connections that wait to be accepted
NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
ANSWERS = ("code", "state", "iss", "error", "error_description")  # RFC 6749 §4.1.2, RFC 9207


class NotThisLogin(Exception):
    """What came back is not the answer to this login. The text says why."""


class Answer:
    """What came back, from a browser that waits for a page, or pasted. `page` is what the browser sees in the end."""

    def __init__(self, fields: dict[str, str], *, is_pasted: bool = False) -> None:
        self.fields = fields
        self.sent = threading.Event()
        if is_pasted:
            self.sent.set()
        self._page = b""
        self._known = threading.Event()

    def show(self, page: bytes) -> None:
        """Have the browser see it; the first page counts."""
        if not self._known.is_set():
            self._page = page
            self._known.set()

    def page(self) -> bytes:
        self._known.wait()
        return self._page


def read_answer(query: str, state: str) -> dict[str, str]:
    """The fields of an answer. Raises NotThisLogin."""
    pairs = parse_qsl(query, keep_blank_values=True)
    fields = {name: value for name, value in pairs if name in ANSWERS}
    if len(fields) != sum(name in ANSWERS for name, _ in pairs):  # RFC 6749 §3.1: none twice
        raise NotThisLogin("it says something twice")
    if not compare_digest(fields.get("state", "").encode(), state.encode()):
        raise NotThisLogin("it belongs to another login, or to none")
    return fields


class Loopback(ThreadingHTTPServer):
    """Listens on a loopback port from the beginning, answers once it is `ready`. `answers` gets the one that counts.
    `alarmed`: the one-time page was asked for by a second browser."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = False
    request_queue_size = BACKLOG

    def __init__(self, redirect_uri: str, port: int | None) -> None:
        parts = urlsplit(redirect_uri)
        self.callback = parts.path or "/"
        name = parts.hostname or "127.0.0.1"
        if ":" in name:
            self.address_family, name = socket.AF_INET6, "::1"
        super().__init__((name.replace("localhost", "127.0.0.1"), parts.port or port or 0), Handler)
        self.port: int = self.server_address[1]
        try:
            self._reserved = _reserve(self.port) if name == "localhost" else None
        except OSError:
            self.server_close()
            raise
        self.host = f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"
        self.start = f"/start/{secrets.token_urlsafe(24)}"
        self.cookie = f"brokerd_login_{self.port}", secrets.token_urlsafe(32)
        self.url = self.state = ""
        self.started = self.answered = self.alarmed = False
        self.answers: Queue[Answer] = Queue()
        self._is_closed = False
        self.woken, self._wake = os.pipe()  # readable when there is an answer, or an alarm
        self.lock = threading.Lock()
        self._strangers: dict[Any, float] = {}  # connections without the cookie, oldest first, and when each ends
        self._connections = threading.Lock()  # whoever is in _strangers is open

    @property
    def start_url(self) -> str:
        """The page that sends the browser on its way, once."""
        return f"http://{self.host}{self.start}"

    def ready(self, url: str, state: str) -> None:
        """`url` is where the browser is sent, `state` what has to come back."""
        self.url, self.state = url, state
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def alarm(self) -> None:
        self.alarmed = True
        self.wake()

    def wake(self) -> None:
        """Say that there is something new."""
        with self.lock:
            if not self._is_closed:
                os.write(self._wake, b"\n")

    def close(self) -> None:
        if self.url:
            self.shutdown()
        self.server_close()
        if self._reserved is not None:
            self._reserved.close()
        with self.lock:
            self._is_closed = True
            os.close(self.woken)
            os.close(self._wake)

    def server_bind(self) -> None:
        """Without HTTPServer's look into the DNS."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Where there are too many connections the oldest makes room: a browser needs its own for milliseconds."""
        with self._connections:
            if len(self._strangers) >= CONNECTIONS:
                self._drop(next(iter(self._strangers)))
            self._strangers[request] = monotonic() + REQUEST_WITHIN
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End the connections whose time is over."""
        with self._connections:
            now = monotonic()
            for request in [each for each, end in self._strangers.items() if end < now]:
                self._drop(request)

    def keep(self, request: Any) -> None:
        """This connection has shown the cookie, and may wait for its page."""
        with self._connections:
            self._strangers.pop(request, None)

    def shutdown_request(self, request: Any) -> None:
        self.keep(request)
        super().shutdown_request(request)

    def _drop(self, request: Any) -> None:
        """Wakes its thread, which closes it."""
        del self._strangers[request]
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away: nobody else notices."""


def _reserve(port: int) -> socket.socket | None:
    """The same port at ::1, where nobody may listen: browsers look for `localhost` there first, and would bring the
    one-time address to whoever does. Raises OSError."""
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


class Handler(BaseHTTPRequestHandler):
    server: Loopback
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        """One request of bounded length; the server bounds its time."""
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
            self._refuse(403, "This is not the address that brokerctl has given.")
        elif compare_digest(target.path.encode(), server.start.encode()):
            self._start()
        elif target.path == server.callback:
            self._callback(target.query)
        else:
            self._refuse(404, "There is nothing here.")

    def _start(self) -> None:
        """Set the cookie and go on to the provider: for the first browser that comes, and that one alone."""
        server = self.server
        with server.lock:
            is_second = server.started and not self._is_known()
            server.started = True
        if is_second:
            server.alarm()
            words = "This address was opened in another browser before. It works in one, so this login was ended."
            return self._refuse(410, words, "If it was not you, somebody else knew it. Go back to your terminal.")
        name, value = server.cookie
        self.send_response(302)
        self.send_header("Location", server.url)
        self.send_header("Set-Cookie", f"{name}={value}; Path=/; HttpOnly; SameSite=Lax")
        return self._body(b"")

    def _callback(self, query: str) -> None:
        server = self.server
        if not self._is_known():
            return self._refuse(
                403, "The login was not begun in this browser. Open the address from the terminal here."
            )
        try:
            fields = read_answer(query, server.state)
        except NotThisLogin as error:
            return self._refuse(403, f"This answer cannot be used: {error}.")
        with server.lock:
            if server.answered or server.alarmed:
                return self._refuse(410, "This login has ended, or has had its answer already.")
            server.answered = True
        server.keep(self.connection)
        answer = Answer(fields)
        server.answers.put(answer)
        server.wake()
        page = answer.page()
        self.send_response(200)
        self._body(page)
        answer.sent.set()
        return None

    def _is_known(self) -> bool:
        """Whether the browser has the cookie."""
        name, value = self.server.cookie
        pairs = [each.strip().partition("=") for line in self.headers.get_all("Cookie", []) for each in line.split(";")]
        return any(n == name and compare_digest(v.encode(), value.encode()) for n, _, v in pairs)

    def _refuse(self, status: int, words: str, then: str = "Nothing has changed.") -> None:
        self.send_response(status)
        if status == 405:
            self.send_header("Allow", "GET")
        self._body(pages.page("This does not work", words, then))

    def _body(self, body: bytes) -> None:
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
        """What http.server finds wrong by itself: a method that is not there, a request that is none."""
        self._refuse(405 if code == 501 else code, "This is not a request that a browser makes here.")

    def version_string(self) -> str:
        return "brokerctl"

    def log_message(self, *_: object) -> None:
        """The terminal is for the person; addresses hold codes."""

# The loopback port that a browser returns to after a login (RFC 8252 §7.3), for one person and one answer. If a second
# browser opens the one-time start page, the login ends. one_browser.py says which browser is the right one.
from __future__ import annotations

import threading
from dataclasses import dataclass, field
from hmac import compare_digest
from queue import Queue
from urllib.parse import SplitResult, parse_qsl, urlsplit

from brokerd.ctl.browser.one_browser import OneBrowser, OneBrowserHandler

SENT_WITHIN = 5.0  # seconds to send the last page to the browser
ANSWERS = ("code", "state", "iss", "error", "error_description")  # RFC 6749 §4.1.2, RFC 9207


class NotThisLogin(Exception):
    """This is not the answer to this login. The text says why."""


@dataclass(eq=False, repr=False)
class Answer:
    """The answer to a login, from a browser or pasted into the terminal. `page` is what the browser shows then, and
    `sent` whether it has that page."""

    fields: dict[str, str]
    sent: threading.Event = field(default_factory=threading.Event)
    _page: bytes = b""
    _known: threading.Event = field(default_factory=threading.Event)

    def show(self, page: bytes) -> None:
        """Set the page for the browser. Only the first call counts."""
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
        raise NotThisLogin("it has a parameter twice")
    if not compare_digest(fields.get("state", "").encode(), state.encode()):
        raise NotThisLogin("it belongs to another login")
    return fields


class Loopback(OneBrowser):
    """Answers requests once it is `ready`. `answers` gets the one answer that counts.

    Many attributes: those of its base, and the state of the login."""

    purpose = "this login"

    def __init__(self, redirect_uri: str, port: int | None) -> None:
        parts = urlsplit(redirect_uri)
        super().__init__(parts.hostname or "127.0.0.1", parts.port or port or 0, Handler)
        self.callback = parts.path or "/"
        self.url = self.state = ""
        self.answered = False
        self.answers: Queue[Answer] = Queue()

    def ready(self, url: str, state: str) -> None:
        """`url`: where the start page sends the browser. `state`: what the answer must contain."""
        self.url, self.state = url, state
        self.serve()


class Handler(OneBrowserHandler):
    server: Loopback

    def begin(self) -> None:
        """Set the cookie and redirect to the provider."""
        self.send_response(302)
        self.send_header("Location", self.server.url)
        self.send_cookie("Lax")
        self.body(b"")

    def page(self, target: SplitResult) -> None:
        if target.path == self.server.callback:
            self._callback(target.query)
        else:
            self.refuse(404, "There is nothing here.")

    def _callback(self, query: str) -> None:
        server = self.server
        if not self.is_known():
            return self.refuse(
                403, "The login was not started in this browser. Open the address from the terminal here."
            )
        try:
            fields = read_answer(query, server.state)
        except NotThisLogin as error:
            return self.refuse(403, f"This answer cannot be used: {error}.")
        with server.lock:
            if server.answered or server.is_over:
                return self.refuse(410, "This login has ended, or already has its answer.")
            server.answered = True
        server.keep(self.connection)
        answer = Answer(fields)
        server.answers.put(answer)
        server.wake()
        page = answer.page()
        self.send_response(200)
        self.body(page)
        answer.sent.set()
        return None

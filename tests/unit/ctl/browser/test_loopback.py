# The loopback port of a browser login by itself: who else on the machine takes its connections, or its address at the
# other kind of loopback, keeps nobody from their login.
from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from brokerd.ctl.browser.loopback import Loopback
from brokerd.ctl.browser.one_browser import CONNECTIONS, LONGEST, OneBrowserHandler
from tests.did_not_run import did_not_run
from tests.scenario.logins.test_browser import ask

ELSEWHERE = "https://op.example/auth"
Listen = Callable[..., Loopback]


@pytest.fixture
def listen() -> Iterator[Listen]:
    with ExitStack() as stack:

        def start(uri: str = "http://127.0.0.1/callback") -> Loopback:
            loopback = Loopback(uri, None)
            stack.callback(loopback.close)
            loopback.ready(ELSEWHERE, "test-only-state")
            return loopback

        yield start


def connected(loopback: Loopback) -> socket.socket:
    return socket.create_connection(("127.0.0.1", loopback.port), timeout=10)


def test_who_holds_every_connection_keeps_nobody_from_the_page(listen: Listen) -> None:
    loopback = listen()
    with ExitStack() as stack:
        held = [stack.enter_context(connected(loopback)) for _ in range(CONNECTIONS + 50)]
        assert ask(loopback.start_url)[0] == 302
        for each in held[:50]:
            assert each.recv(1) == b"", "the oldest made room"


def test_a_connection_that_says_nothing_or_too_much_or_too_slowly_ends(listen: Listen) -> None:
    loopback = listen()
    with connected(loopback) as silent, connected(loopback) as slow, connected(loopback) as endless:
        slow.sendall(b"GET / HTTP/1.1\r\n")
        endless.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * (LONGEST - 20))
        for each in (endless, silent, slow):
            assert each.recv(1) == b""


def test_who_waits_for_the_last_page_has_shown_the_cookie_and_makes_room_for_nobody(listen: Listen) -> None:
    loopback = listen()
    cookie = ask(loopback.start_url)[1].split(";")[0]
    with ExitStack() as stack:
        waiting = stack.enter_context(connected(loopback))
        lines = (f"GET /callback?code=c&state=test-only-state HTTP/1.1\r\nHost: {loopback.host}", f"Cookie: {cookie}")
        waiting.sendall("\r\n".join((*lines, "", "")).encode())
        answer = loopback.answers.get(timeout=10)
        held = [stack.enter_context(connected(loopback)) for _ in range(CONNECTIONS)]
        assert held[0].recv(1) == b"", "its time was over"
        answer.show(b"the last page")
        assert answer.sent.wait(10)
        assert b"the last page" in waiting.recv(65_536)


def test_nobody_listens_at_the_other_localhost(listen: Listen) -> None:
    if not has_ipv6():
        did_not_run("THE OTHER LOCALHOST", "it needs ::1")
    loopback = listen("http://localhost/callback")
    with socket.socket(socket.AF_INET6) as other, pytest.raises(OSError, match="in use"):
        other.bind(("::1", loopback.port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", loopback.port))
    assert ask(loopback.start_url.replace("localhost", "127.0.0.1"), Host=loopback.host)[0] == 302
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::1", 0))
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            Loopback(f"http://localhost:{port}/callback", None)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_second_browser_has_its_whole_page_before_brokerctl_ends(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """brokerctl ends when it is woken, and what was not sent then never is."""
    loopback, order = listen(), list[str]()
    wake, body = loopback.wake, OneBrowserHandler.body

    def noted_wake() -> None:
        order.append("woken")
        wake()

    def noted_body(handler: OneBrowserHandler, page: bytes) -> None:
        body(handler, page)
        order.append("page sent")
        assert loopback.is_over, "no answer counts any more"
        assert not loopback.alarmed, "brokerctl looks at that whenever it wakes, and ends"

    monkeypatch.setattr(loopback, "wake", noted_wake)
    ask(loopback.start_url)
    monkeypatch.setattr(OneBrowserHandler, "body", noted_body)
    assert ask(loopback.start_url)[0] == 410
    assert os.read(loopback.woken, 1)
    assert order == ["page sent", "woken"]

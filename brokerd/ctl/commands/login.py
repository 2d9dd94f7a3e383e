# The login command: shows brokerd's questions to a person, and sends the answers to brokerd. It never has a token, a
# verifier or a device code. A password passes through it and is never shown.
from __future__ import annotations

import io
import os
import select
import shutil
import sys
import time
from argparse import Namespace
from typing import Any
from urllib.parse import urlsplit

from brokerd_client import Broker, BrokerError

from brokerd.ctl.browser import pages
from brokerd.ctl.browser.handoff import Handoff, has_desktop
from brokerd.ctl.browser.loopback import SENT_WITHIN, Answer, Loopback, NotThisLogin, read_answer
from brokerd.ctl.terminal import Failed, ask, at_terminal, complain, plain, span, type_unseen, write, write_json

LONGEST_WAIT = 60  # seconds that brokerd may wait before it answers one call
TICK = 1.0  # seconds between two calls, and between two steps of the countdown
CONFIRMED, NOT_CONFIRMED = "yes", "no"
ALARM = {"alarm": "second_visitor"}
READ = 64 * 1024  # bytes of stdin at once


def login(broker: Broker, arguments: Namespace) -> int:
    """Log in for a grant."""
    talk = Talk(broker, arguments)
    try:
        while talk.done is None:
            talk.go_on()
    except BrokerError as error:
        talk.show_browser("failed", plain(error.message))
        raise
    finally:
        talk.close()
    return talk.end(talk.done)


class Talk:
    """One login, between brokerd, the terminal and sometimes a browser."""

    def __init__(self, broker: Broker, arguments: Namespace) -> None:
        self.grant: str = arguments.grant
        self._broker = broker
        self._arguments = arguments
        self._loopback: Loopback | None = None
        self._answer: Answer | None = None
        self._handoff: Handoff | None = None
        self._is_terminal = sys.stdout is not None and sys.stdout.isatty()
        self._at: dict[str, Any] = broker.call("login", grant=self.grant, account=True, wait=LONGEST_WAIT)

    @property
    def done(self) -> dict[str, Any] | None:
        done: dict[str, Any] | None = self._at["done"]
        return done

    def go_on(self) -> None:
        """Show brokerd's question, and send the answer."""
        prompt = self._at["prompt"]
        if prompt is None:
            self._wait(LONGEST_WAIT)
            return
        step, show = self._at["step"], getattr(self, f"_{prompt['kind']}", None)
        if show is None:
            raise Failed(f"brokerd asks for {plain(prompt['kind'])!r}, which this brokerctl does not know; update it")
        if prompt["kind"] != "account":  # not in the JSON: `done` says it too
            self._tell({"prompt": prompt})
        answer = show(prompt)
        if answer is not None:
            if self._loopback is not None and self._loopback.is_over:
                answer = ALARM
            params = {"login": self._at["login"], "step": step, "answer": answer, "wait": LONGEST_WAIT}
            self._at = self._broker.call("login_answer", **params)

    def end(self, done: dict[str, Any]) -> int:
        """Print how the login ended."""
        if not self._tell({"done": done}):
            who = f" as {plain(done['subject'])}" if done["subject"] else ""
            write(f"{self.grant}: logged in{who}")
        if done["note"]:
            complain(plain(done["note"]))
        if self._loopback is not None and self._loopback.is_over:
            words = "a second browser opened the one-time address just before the end; if this account is not yours"
            complain(f"{words}: brokerctl revoke {self.grant}")
        if not done["stored"]:
            words = "the tokens are in brokerd's memory only, because its store cannot be written"
            complain(f"{words}; see brokerctl status")
        return 0

    def close(self) -> None:
        """Send the browser its last page, and close the port."""
        if self.done is not None:
            self.show_browser("done", self.grant, self.done["subject"])
        if self._answer is not None:
            self.show_browser("failed", "brokerctl was stopped before the login ended.")
            self._answer.sent.wait(SENT_WITHIN)
        if self._loopback is not None:
            self._loopback.close()
        if self._handoff is not None:
            self._handoff.close()

    def show_browser(self, page: str, *words: str | None) -> None:
        """Set the page for the browser that waits for one, if any."""
        if self._answer is not None:
            self._answer.show(getattr(pages, page)(*words))

    # -- one method for each kind of question

    def _device(self, prompt: dict[str, Any]) -> None:
        """A code to enter in any browser. No answer is sent: the provider tells brokerd that it was entered."""
        ends = time.monotonic() + prompt["expires_in"]
        if not self._arguments.json:
            write(f"To log in for {self.grant}, open this address in any browser, on any device:\n")
            write(f"    {plain(prompt['verification_uri'])}\n")
            write(f"and enter this code:\n\n    {plain(prompt['user_code'])}\n")
            self._draw(plain(prompt.get("verification_uri_complete") or prompt["verification_uri"]))
        step = self._at["step"]
        try:
            while self._at["step"] == step:
                self._count_down(ends)
                self._wait(TICK)
        finally:
            self._count_down(None)

    def _listen(self, prompt: dict[str, Any]) -> dict[str, str]:
        """A port for the browser to return to."""
        port = self._arguments.port
        try:
            self._loopback = Loopback(prompt["redirect_uri"], port)
        except OSError as error:
            raise Failed(f"cannot listen for the browser: {error.strerror}; try another --port") from None
        return {"port": str(self._loopback.port)}

    def _browser(self, prompt: dict[str, Any]) -> dict[str, str]:
        """A page to open. The answer comes to the port, or is pasted."""
        url = prompt["url"]
        if self._loopback is not None:
            self._loopback.ready(url, prompt["state"])
            url = self._loopback.start_url
            self._tell({"open": url})
        if not self._arguments.json:
            self._explain(url)
        if self._opens_browser():
            self._open(url)
        self._answer = self._come_back(prompt["state"])
        return {} if self._answer is None else self._answer.fields

    def _password(self, prompt: dict[str, Any]) -> dict[str, str]:
        if at_terminal():
            words = f"Password of {plain(prompt['username'])} for {self.grant} (not shown, used once): "
            return {"password": type_unseen(words)}
        line = "" if sys.stdin is None else sys.stdin.readline()
        return {"password": line.removesuffix("\n").removesuffix("\r")}

    def _account(self, prompt: dict[str, Any]) -> dict[str, str]:
        """Which account this is, before brokerd stores anything."""
        if "now" in prompt and not self._arguments.json:
            write(f"{self.grant}: according to the provider, this is the account {plain(prompt['now'])}")
        return {"confirm": CONFIRMED}

    def _confirm(self, prompt: dict[str, Any]) -> dict[str, str]:
        """The account is not the one of the last login."""
        self.show_browser("asks", self.grant)
        words = f"{self.grant} was logged in as {plain(prompt['was'])}, and now as {plain(prompt['now'])}."
        if self._arguments.yes:
            return {"confirm": CONFIRMED}
        if not at_terminal():
            complain(f"{words} To accept that without a question: --yes")
            return {"confirm": NOT_CONFIRMED}
        return {"confirm": CONFIRMED if ask(f"{words} Change the account?") else NOT_CONFIRMED}

    # -- the terminal

    def _wait(self, seconds: float) -> None:
        params = {"login": self._at["login"], "step": self._at["step"], "wait": seconds}
        self._at = self._broker.call("login_wait", **params)

    def _tell(self, said: dict[str, Any]) -> bool:
        """Print one line of JSON, with --json. Returns whether it did."""
        if self._arguments.json:
            write_json(said)
        return bool(self._arguments.json)

    def _explain(self, url: str) -> None:
        opens = "your browser opens. If it does not, open this address in it"
        what = opens if self._opens_browser() else "open this address in your browser"
        write(f"To log in for {self.grant}, {what}:\n\n    {url}\n")
        if self._loopback is None:
            write("At the end, the browser may say that the last page does not exist. Paste its whole address here.")
            return
        if "SSH_CONNECTION" in os.environ:
            port = self._loopback.port
            write(f"If the browser is on another machine, first run there:  ssh -L {port}:127.0.0.1:{port} THIS-HOST")
            write("or open this address instead, and at the end paste the whole address of the last page here:\n")
            write(f"    {self._loopback.url}\n")
        write("waiting for the browser …")

    def _opens_browser(self) -> bool:
        """Whether to open a browser: with --browser, or if there is a desktop."""
        return bool(self._arguments.browser or (has_desktop() and self._is_terminal and not self._arguments.json))

    def _open(self, url: str) -> None:
        """Open the browser. Its command line has the name of a file, not the URL, which is a secret."""
        try:
            self._handoff = Handoff(pages.onward(f"The login for {self.grant}", url))
        except OSError as error:
            complain(f"cannot write a page for the browser ({error.strerror}); open the address yourself")
            return
        if not self._handoff.open():
            complain("cannot start a browser; open the address yourself")

    def _come_back(self, state: str) -> Answer | None:
        """The answer to this login, from the browser or pasted into the terminal. None: the alarm was raised."""
        loopback, pasted, typed = self._loopback, sys.stdin, b""
        while True:
            sources = ([loopback.woken] if loopback else []) + ([pasted] if pasted else [])
            if not sources:
                raise Failed("expected on stdin the address of the browser's last page, found nothing")
            ready, _, _ = select.select(sources, [], [], TICK)
            if loopback and loopback.woken in ready:
                return None if loopback.alarmed else loopback.answers.get()
            if pasted in ready and pasted is not None:
                data = os.read(pasted.fileno(), READ)  # not with sys.stdin, which would buffer what follows the line
                typed += data
                pasted = pasted if data else None
                *lines, typed = typed.split(b"\n") if data else [typed, b""]
                for line in lines:
                    if (answer := _pasted(line.decode(errors="replace").strip(), state)) is not None:
                        return answer
            if not ready:
                self._wait(0)  # the login may have ended meanwhile

    def _count_down(self, ends: float | None) -> None:
        """Show how long the code is still valid, in one line that is overwritten."""
        if not self._is_terminal or self._arguments.json:
            return
        left = "" if ends is None else span(max(0.0, ends - time.monotonic()))
        words = f"waiting for you; the code expires in {left} " if left else ""
        print(f"\r\x1b[K{words}", end="", flush=True)

    def _draw(self, url: str) -> None:
        """Draw the address as a QR code, if the terminal is wide enough and can show it."""
        if not self._is_terminal or self._arguments.no_qr or (sys.stdout.encoding or "").lower() != "utf-8":
            return

        import segno

        code = segno.make(url, error="l", micro=False)
        width, _ = code.symbol_size(border=2)
        if width <= shutil.get_terminal_size().columns:
            drawn = io.StringIO()
            code.terminal(out=drawn, border=2, compact=True)
            write(drawn.getvalue())


def _pasted(line: str, state: str) -> Answer | None:
    """The answer in a pasted address, if it belongs to this login."""
    if not line:
        return None
    try:
        answer = Answer(read_answer(urlsplit(line).query, state))
    except (NotThisLogin, ValueError) as error:
        complain(f"that is not the address at which this login ends: {plain(str(error))}; paste the whole address")
        return None
    answer.sent.set()  # no browser waits for a page
    return answer

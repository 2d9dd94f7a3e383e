# The login command: shows a person what brokerd asks, and brings it what he answers. Tokens, verifiers and device codes
# are never here; a password passes through, unseen.
from __future__ import annotations

import os
import select
import sys
import time

from brokerd_client import BrokerError

from brokerd.ctl.terminal import Failed, ask, complain, plain, span, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from brokerd_client import Broker

    from brokerd.ctl.handoff import Handoff
    from brokerd.ctl.loopback import Answer, Loopback

LONGEST_WAIT = 60  # seconds that brokerd may take for one answer
TICK = 1.0  # seconds between two looks, and two numbers of the countdown
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
    """One login, between brokerd, the terminal and perhaps a browser."""

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
        """Show what is asked, and bring the answer."""
        prompt = self._at["prompt"]
        if prompt is None:
            self._wait(LONGEST_WAIT)
            return
        step, show = self._at["step"], getattr(self, f"_{prompt['kind']}", None)
        if show is None:
            words = f"brokerd asks for {plain(prompt['kind'])!r}, which this brokerctl does not know; update it"
            raise Failed(words)
        if prompt["kind"] != "account":  # a person's to hear; `done` says it too
            self._tell({"prompt": prompt})
        answer = show(prompt)
        if answer is not None:
            if self._loopback is not None and self._loopback.alarmed:
                answer = ALARM
            params = {"login": self._at["login"], "step": step, "answer": answer, "wait": LONGEST_WAIT}
            self._at = self._broker.call("login_answer", **params)

    def end(self, done: dict[str, Any]) -> int:
        """Say how it ended."""
        if not self._tell({"done": done}):
            who = f" as {plain(done['subject'])}" if done["subject"] else ""
            write(f"{self.grant}: logged in{who}")
        if done["note"]:
            complain(plain(done["note"]))
        if self._loopback is not None and self._loopback.alarmed:
            words = "a second browser opened the one-time address while the login ended; if that account is not yours"
            complain(f"{words}: brokerctl revoke {self.grant}")
        if not done["stored"]:
            complain("the tokens are in brokerd's memory only: its store cannot be written; see brokerctl status")
        return 0

    def close(self) -> None:
        """Let the browser have its last page, and listen no more."""
        if self.done is not None:
            self.show_browser("done", self.grant, self.done["subject"])
        if self._answer is not None:
            from brokerd.ctl.loopback import SENT_WITHIN

            self.show_browser("failed", "brokerctl was stopped before the login ended.")
            self._answer.sent.wait(SENT_WITHIN)
        if self._loopback is not None:
            self._loopback.close()
        if self._handoff is not None:
            self._handoff.close()

    def show_browser(self, page: str, *words: str | None) -> None:
        """The page that the waiting browser gets, if one waits."""
        if self._answer is not None:
            from brokerd.ctl import pages

            self._answer.show(getattr(pages, page)(*words))

    # -- what brokerd asks, by its kind

    def _device(self, prompt: dict[str, Any]) -> None:
        """A code to type in elsewhere. There is nothing to answer: brokerd sees by itself that it was confirmed."""
        ends = time.monotonic() + prompt["expires_in"]
        if not self._arguments.json:
            write(f"To log in for {self.grant}, open this in any browser, on any device:\n")
            write(f"    {plain(prompt['verification_uri'])}\n")
            write(f"and type in the code\n\n    {plain(prompt['user_code'])}\n")
            self._draw(plain(prompt.get("verification_uri_complete") or prompt["verification_uri"]))
        step = self._at["step"]
        try:
            while self._at["step"] == step:
                self._count_down(ends)
                self._wait(TICK)
        finally:
            self._count_down(None)

    def _listen(self, prompt: dict[str, Any]) -> dict[str, str]:
        """A port for the browser to come back to."""
        from brokerd.ctl.loopback import Loopback

        port = self._arguments.port
        try:
            self._loopback = Loopback(prompt["redirect_uri"], port)
        except OSError as error:
            raise Failed(f"cannot listen for the browser: {error.strerror}; try another --port") from None
        return {"port": str(self._loopback.port)}

    def _browser(self, prompt: dict[str, Any]) -> dict[str, str]:
        """A page to open; what comes back, comes to the port or is pasted."""
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
        if sys.stdin is not None and sys.stdin.isatty():
            from getpass import getpass

            words = f"Password of {plain(prompt['username'])} for {self.grant} (not shown, used once): "
            try:
                return {"password": getpass(words)}
            except EOFError:
                return {"password": ""}
        line = "" if sys.stdin is None else sys.stdin.readline()
        return {"password": line.removesuffix("\n").removesuffix("\r")}

    def _account(self, prompt: dict[str, Any]) -> dict[str, str]:
        """Whose login it is, before anything is kept."""
        if "now" in prompt and not self._arguments.json:
            write(f"{self.grant}: the provider says that this is the account {plain(prompt['now'])}")
        return {"confirm": CONFIRMED}

    def _confirm(self, prompt: dict[str, Any]) -> dict[str, str]:
        """Somebody else than the last time."""
        self.show_browser("asks", self.grant)
        words = f"{self.grant} was logged in as {plain(prompt['was'])}; this login is {plain(prompt['now'])}'s."
        if self._arguments.yes:
            return {"confirm": CONFIRMED}
        if sys.stdin is None or not sys.stdin.isatty():
            complain(f"{words} To have that without being asked: --yes")
            return {"confirm": NOT_CONFIRMED}
        return {"confirm": CONFIRMED if ask(f"{words} Change it?") else NOT_CONFIRMED}

    # -- the terminal

    def _wait(self, seconds: float) -> None:
        params = {"login": self._at["login"], "step": self._at["step"], "wait": seconds}
        self._at = self._broker.call("login_wait", **params)

    def _tell(self, said: dict[str, Any]) -> bool:
        """One line of JSON, if that is wanted."""
        if self._arguments.json:
            import json

            write(json.dumps(said))
        return bool(self._arguments.json)

    def _explain(self, url: str) -> None:
        opens = (
            "your browser opens. If it does not, open this in it"
            if self._opens_browser()
            else "open this in your browser"
        )
        write(f"To log in for {self.grant}, {opens}:\n\n    {url}\n")
        if self._loopback is None:
            write("The page that it ends at need not be there: paste its whole address here.")
            return
        if "SSH_CONNECTION" in os.environ:
            port = self._loopback.port
            write(f"If that browser is on another machine, first run there:  ssh -L {port}:127.0.0.1:{port} THIS-HOST")
            write("or open this instead, and paste the whole address that it ends at here:\n")
            write(f"    {self._loopback.url}\n")
        write("waiting for the browser …")

    def _opens_browser(self) -> bool:
        """Where it was asked for, or where there is a desktop to do it on."""
        has_desktop = bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()) and "SSH_CONNECTION" not in os.environ
        return bool(self._arguments.browser or (has_desktop and self._is_terminal and not self._arguments.json))

    def _open(self, url: str) -> None:
        """Open the browser. Its command line names a file, not the URL, which is a secret."""
        from brokerd.ctl import pages
        from brokerd.ctl.handoff import Handoff

        try:
            self._handoff = Handoff(pages.onward(self.grant, url))
        except OSError as error:
            complain(f"no page for the browser could be written ({error.strerror}); open the address yourself")
            return
        if not self._handoff.open():
            complain("no browser could be started; open the address yourself")

    def _come_back(self, state: str) -> Answer | None:
        """The answer to this login, from the browser at our port or pasted into the terminal. None: an alarm."""
        loopback, pasted, typed = self._loopback, sys.stdin, b""
        while True:
            sources = ([loopback.woken] if loopback else []) + ([pasted] if pasted else [])
            if not sources:
                raise Failed("expected on stdin the address where the browser came to, found nothing")
            ready, _, _ = select.select(sources, [], [], TICK)
            if loopback and loopback.woken in ready:
                return None if loopback.alarmed else loopback.answers.get()
            if pasted in ready and pasted is not None:
                data = os.read(pasted.fileno(), READ)  # not by sys.stdin, which would keep what comes after a line
                typed += data
                pasted = pasted if data else None
                *lines, typed = typed.split(b"\n") if data else [typed, b""]
                for line in lines:
                    if (answer := _pasted(line.decode(errors="replace").strip(), state)) is not None:
                        return answer
            if not ready:
                self._wait(0)  # it may have ended meanwhile

    def _count_down(self, ends: float | None) -> None:
        """How long the code is still good for, in one line that is written over."""
        if not self._is_terminal or self._arguments.json:
            return
        words = "" if ends is None else f"waiting for you; the code ends in {span(max(0.0, ends - time.monotonic()))} "
        print(f"\r\x1b[K{words}", end="", flush=True)

    def _draw(self, url: str) -> None:
        """The address as a QR code, where there is room for it and a terminal that can show it."""
        if not self._is_terminal or self._arguments.no_qr or (sys.stdout.encoding or "").lower() != "utf-8":
            return
        import io
        import shutil

        import segno

        code = segno.make(url, error="l", micro=False)
        width, _ = code.symbol_size(border=2)
        if width <= shutil.get_terminal_size().columns:
            drawn = io.StringIO()
            code.terminal(out=drawn, border=2, compact=True)
            write(drawn.getvalue())


def _pasted(line: str, state: str) -> Answer | None:
    """The answer in an address from the terminal, if it is one to this login."""
    from urllib.parse import urlsplit

    from brokerd.ctl.loopback import Answer, NotThisLogin, read_answer

    if not line:
        return None
    try:
        return Answer(read_answer(urlsplit(line).query, state), is_pasted=True)
    except (NotThisLogin, ValueError) as error:
        complain(f"that is not the address where this login ends: {plain(str(error))}; paste it whole")
        return None

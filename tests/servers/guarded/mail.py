# Mail servers that take an access token of a provider as SASL's OAUTHBEARER (RFC 7628) or XOAUTH2, over TLS: SMTP
# (RFC 5321) as far as sending one message needs it, IMAP (RFC 3501) as far as fetching one does.
from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from tests.servers.provider import Provider

MECHANISMS = ("OAUTHBEARER", "XOAUTH2")
MAIL = b"From: a@mail.example\r\nTo: me@mail.example\r\nSubject: hello\r\n\r\nHello.\r\n"
REFUSED = base64.b64encode(b'{"status":"401","schemes":"bearer","scope":"mail"}').decode()


class Lines:
    """A conversation in lines."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream, self._read = stream, bytearray()

    async def say(self, *lines: str | bytes) -> None:
        await self._stream.send_all(
            b"".join((line if isinstance(line, bytes) else line.encode()) + b"\r\n" for line in lines)
        )

    async def hear(self) -> str:
        """Raises EOFError."""
        while b"\r\n" not in self._read:
            data = await self._stream.receive_some()
            if not data:
                raise EOFError
            self._read += data
        line, _, self._read = self._read.partition(b"\r\n")
        return line.decode()


class MailServer:
    """`sent`: messages, each with the user that sent it. `shown`: mechanism, user and token of each try."""

    def __init__(self, provider: Provider[Any]) -> None:
        self.provider = provider
        self.shown: list[tuple[str, str, str]] = []
        self.sent: list[tuple[str, str]] = []

    async def listen(self, nursery: trio.Nursery, tls: ssl.SSLContext, protocol: str) -> int:
        """The port at which it speaks "smtp" or "imap", with TLS from the first byte."""
        converse = {"smtp": self._smtp, "imap": self._imap}[protocol]
        serve = partial(trio.serve_ssl_over_tcp, partial(self._serve, converse), 0, tls, host="127.0.0.1")
        listeners = await nursery.start(serve)
        port: int = listeners[0].transport_listener.socket.getsockname()[1]
        return port

    async def _serve(
        self, converse: Callable[[Lines], Awaitable[None]], stream: trio.SSLStream[trio.SocketStream]
    ) -> None:
        try:
            await converse(Lines(stream))
        except (EOFError, trio.BrokenResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    def _user(self, mechanism: str, text: str) -> str | None:
        """The user of an initial response whose token lives."""
        try:
            said = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        pattern = {
            "XOAUTH2": "user=([^\x01]+)\x01auth=Bearer ([^\x01]+)\x01\x01",
            "OAUTHBEARER": "n,a=([^,\x01]+),\x01(?:(?:host|port)=[^\x01]*\x01)*auth=Bearer ([^\x01]+)\x01\x01",
        }[mechanism]
        found = re.fullmatch(pattern, said)
        if found is None:
            return None
        user, secret = found.groups()
        self.shown.append((mechanism, user, secret))
        token = self.provider.ledger.find(secret, "access")
        return user if token and token.alive(self.provider.settings.now()) else None

    async def _smtp(self, lines: Lines) -> None:
        user = None
        await lines.say("220 mail.example ESMTP")
        while True:
            command = await lines.hear()
            match command.split():
                case [verb, _] if verb.upper() == "EHLO":
                    await lines.say("250-mail.example", f"250 AUTH {' '.join(MECHANISMS)}")
                case [verb, mechanism, *initial] if verb.upper() == "AUTH" and mechanism in MECHANISMS:
                    if not initial:
                        await lines.say("334 ")
                        initial = [await lines.hear()]
                    user = self._user(mechanism, initial[0])
                    if user is None:
                        await lines.say(f"334 {REFUSED}")
                        await lines.hear()
                    await lines.say("535 5.7.8 the token is not accepted" if user is None else "235 2.7.0 welcome")
                case [verb, *_] if verb.upper() == "QUIT":
                    return await lines.say("221 bye")
                case _ if user is None:
                    await lines.say("530 5.7.0 authentication required")
                case ["DATA"]:
                    await lines.say("354 go on")
                    message = []
                    while (line := await lines.hear()) != ".":
                        message.append(line)
                    self.sent.append((user, "\n".join(message)))
                    await lines.say("250 2.0.0 taken")
                case _:
                    await lines.say("250 2.1.0 fine")

    async def _imap(self, lines: Lines) -> None:
        user = None
        capability = "CAPABILITY IMAP4rev1 SASL-IR " + " ".join(f"AUTH={each}" for each in MECHANISMS)
        await lines.say("* OK mail.example")
        while True:
            tag, command, *words = (await lines.hear()).split()
            match [command.upper(), *words]:
                case ["CAPABILITY"]:
                    await lines.say(f"* {capability}", f"{tag} OK done")
                case ["AUTHENTICATE", mechanism, *initial] if mechanism in MECHANISMS:
                    if not initial:
                        await lines.say("+ ")
                        initial = [await lines.hear()]
                    user = self._user(mechanism, initial[0])
                    if user is None:
                        await lines.say(f"+ {REFUSED}")
                        await lines.hear()
                    await lines.say(f"{tag} NO the token is not accepted" if user is None else f"{tag} OK done")
                case ["LOGOUT"]:
                    return await lines.say("* BYE", f"{tag} OK done")
                case _ if user is None:
                    await lines.say(f"{tag} BAD authentication required")
                case ["SELECT" | "EXAMINE", *_]:
                    await lines.say(
                        "* 1 EXISTS", "* OK [UIDVALIDITY 1]", "* FLAGS (\\Seen)", f"{tag} OK [READ-ONLY] done"
                    )
                case ["UID", "FETCH" | "fetch", *what] | ["FETCH", *what]:
                    body = f" BODY[] {{{len(MAIL)}}}" if "BODY" in " ".join(what) else ""
                    if body:
                        await lines.say(f"* 1 FETCH (UID 7{body}", MAIL + b")", f"{tag} OK done")
                    else:
                        await lines.say(f"* 1 FETCH (UID 7 RFC822.SIZE {len(MAIL)} FLAGS ())", f"{tag} OK done")
                case _:
                    await lines.say(f"{tag} OK done")

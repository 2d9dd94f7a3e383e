# Credentials of units (docs/systemd.md): systemd connects when a unit starts, and the address of its socket says which
# credential of which unit it fetches. The token is all that it gets. Rules, charges and audit are those of get.
from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import trio

from brokerd.core.access.credential import LARGEST, CredentialRequest, NotSystemd, read_address
from brokerd.core.access.policy import PLACE, Caller
from brokerd.core.errors import Code, Failure
from brokerd.core.events import Event
from brokerd.edge.peer.peer import NotAttested
from brokerd.server.connection import Connection
from brokerd.server.http.messages import as_json
from brokerd.server.http.routes import token_map
from brokerd.server.methods.method import AnswerLater
from brokerd.server.methods.parameters import WAIT_LONGEST
from brokerd.server.session import CallerSession

WAIT = 600.0  # seconds that a unit may wait for its token; systemd ends the start earlier if TimeoutStartSec= is less
AGAIN = 5.0  # seconds at most until the next look whether there is a token
ROOM = 16 * 1024  # bytes that the kernel gets for its own records, beside the bytes of a credential
PASSING = frozenset((Code.UNAVAILABLE, Code.MISCONFIGURED, Code.NEEDS_LOGIN, Code.LOCKED))  # what may end meanwhile


class CredentialConnection(Connection):
    """Sends a token or nothing: systemd takes every byte for the credential. `_lacks`: why there is no token."""

    _lacks: Failure | None = None

    @staticmethod
    def refusal(_failure: Failure) -> bytes:
        return b""

    async def serve(self) -> None:
        process = self._peer.process
        try:
            request = read_address(self._sock.getpeername())
            self._expect_silence()
            process.caller = replace(process.caller, credential=request.name)
            request.check(process.glance(PLACE) or await process.look(PLACE))
        except (NotSystemd, NotAttested) as error:
            self._server.bad_input(self._account, process.caller, error)
            return
        self._session = session = CallerSession(process, self._account, _push_nothing)
        try:
            with trio.CancelScope() as serving:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._answer, session, request, serving)
                    await self._wait_for_the_end(process.pidfd, serving)
                    serving.cancel()
        finally:
            if self._lacks is not None:
                self._report(Event.CREDENTIAL_NOT_GIVEN, session.caller, request, self._lacks)

    async def _wait_for_the_end(self, pidfd: int, serving: trio.CancelScope) -> None:
        """Until the process has ended; `serving` is cancelled when it has its answer."""
        try:
            await trio.lowlevel.wait_readable(pidfd)
        except trio.Cancelled:
            if not serving.cancel_called:
                self._give_up("brokerd was stopped while the unit waited; start the unit again")
            raise
        self._give_up("systemd ended the start of the unit (TimeoutStartSec=)")

    def _give_up(self, words: str) -> None:
        why = words if self._lacks is None else f"{words}: {self._lacks.message}"
        self._lacks = Failure(Code.UNAVAILABLE, why)

    def _expect_silence(self) -> None:
        """Raises NotSystemd, NotAttested."""
        try:
            if self._peer.receive(1):
                raise NotSystemd("it sent something; this socket is for systemd (LoadCredential=), which sends nothing")
        except BlockingIOError:
            pass

    async def _answer(self, session: CallerSession, request: CredentialRequest, serving: trio.CancelScope) -> None:
        try:
            found = await self._token(session, request)
            self._expect_silence()
            self._outbox += _written(request, found)
            # The kernel should take it all at once: if rights changed while systemd reads, it would have half a token.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM + 2 * len(self._outbox))
            sent = await self._flush()
            self._lacks = None if sent else Failure(Code.UNAVAILABLE, "systemd has not read all of it")
        except Failure as failure:
            self._lacks = failure
        except (NotSystemd, NotAttested) as error:
            self._server.bad_input(self._account, session.caller, error)
            self._lacks = None
        except OSError:
            return  # the process has ended, which `serve` reports
        serving.cancel()

    async def _token(self, session: CallerSession, request: CredentialRequest) -> dict[str, Any]:
        """What get answers, as soon as it answers with a token. Raises Failure if none came in time, or none can
        come."""
        deadline = trio.current_time() + WAIT
        self._account.wait(1)
        try:
            while True:
                now = trio.current_time()
                self._account.charge(1.0, now)
                try:
                    return await self._get(session, request, min(WAIT_LONGEST, max(0.0, deadline - now)))
                except Failure as failure:
                    if failure.code not in PASSING or trio.current_time() >= deadline:
                        raise
                    if self._lacks is None:
                        self._report(Event.CREDENTIAL_AWAITED, session.caller, request, failure)
                    self._lacks = failure
                await trio.sleep(min(AGAIN, self._lacks.retry_after or AGAIN))
        finally:
            self._account.answered(1)

    async def _get(self, session: CallerSession, request: CredentialRequest, wait: float) -> dict[str, Any]:
        params = {"grant": request.grant, "wait": wait}
        answer = self._server.dispatcher.answer(session, "get", params)
        found: Any = await answer.bring() if isinstance(answer, AnswerLater) else answer
        return dict(found)

    def _report(self, what: Event, caller: Caller, request: CredentialRequest, failure: Failure) -> None:
        events, details = self._server.dispatcher.events, {"unit": request.unit, "credential": request.name}
        if failure.code in (Code.UNKNOWN_GRANT, Code.DENIED):
            words = "no rule gives it this grant, or there is no such grant"
            events.say(what, **details, reason=words, remedy=_rule(caller, request))
        else:
            events.say(what, **details, reason=failure.message)


def _rule(caller: Caller, request: CredentialRequest) -> str:
    """The rule that would give it, and the command that says more."""
    if caller.is_systemd:
        who, asks = f"unit = '{request.unit}'", f"--credential --unit '{request.unit}'"
    else:
        user = caller.user or str(caller.uid)
        who, asks = f"user = '{user}', user_unit = '{request.unit}'", f"--as {user} --user-unit '{request.unit}'"
    return f"[[allow]] grants = ['{request.grant}'] caller = {{ {who} }}; brokerctl explain {request.grant} {asks}"


def _written(request: CredentialRequest, found: dict[str, Any]) -> bytes:
    """The bytes of the credential. Raises Failure."""
    if request.is_json:
        data = as_json({name: value for name, value in token_map(found).items() if name != "expires_in"})
    else:
        data = found["value"].encode()
    if len(data) + len(request.name) > LARGEST:
        words = f"it has {len(data)} bytes, and systemd takes {LARGEST} for all credentials of a unit together"
        raise Failure(Code.BAD_REQUEST, words)
    return data


async def _push_nothing(_method: str, _params: dict[str, object]) -> bool:
    return False

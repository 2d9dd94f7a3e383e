# A life's way to the model providers: the Http port, with the faults that befall one request on its way.
from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio

from brokerd.broker.live_grant import LiveGrant
from brokerd.core.exchange.steps import Request, Response
from brokerd.dialects import answer_values
from brokerd.edge.http.connection import HttpSettings
from tests.stress.simulation import answers
from tests.stress.simulation import providers as models
from tests.stress.simulation.crash import Crashed
from tests.stress.simulation.laws import asked_for
from tests.stress.simulation.providers import DEADLINE, Fault, Reply, fields_of

if TYPE_CHECKING:
    from tests.stress.simulation.life import Life


SENDER: ContextVar[LiveGrant] = ContextVar("SENDER")  # whose exchange a task runs


class Http:
    """A life's way to a model provider: the Http port."""

    def __init__(self, life: Life, provider: models.Provider) -> None:
        self._life = life
        self._provider = provider
        self._busy = 0

    async def send(self, request: Request) -> Response:
        life, provider, laws = self._life, self._provider, self._life.laws
        life.check()
        fields = fields_of(request)
        grant, telling = fields["client_id"], request.url.endswith("/revoke")
        if not telling and "device" not in "".join((request.url, *fields)):
            laws.decided(life, provider, grant, fields)
        await life.point("before-send")
        if "/device" in request.url or "device_code" in fields:
            return await self._log_in(request, fields, grant)
        fault = provider.fault()
        if fault is not None and fault.kind == "refuse":
            await life.pause(provider.latency())
            raise models.unreachable()
        laws.leaves(life, grant, fields, telling=telling)
        seen, moment = laws.seen[grant], life.world.clock.now()
        seen.in_flight.append((fields.get("grant_type", "revocation"), life.broker.grants.get(grant)))
        self._busy += 1
        laws.crowded(provider, self._busy)
        conversation = _Conversation(life, provider, request, fields, grant, fault, laws.seen[grant].epoch)
        try:
            return await conversation.run(moment)
        finally:
            self._busy -= 1
            laws.ends(life, grant, fields, cancelled=isinstance(sys.exception(), trio.Cancelled))
            if not conversation.settled and not telling:
                laws.touched(grant, fields, conversation.reply, conversation.epoch)
            if seen.in_flight and not life.dead:
                seen.in_flight.pop()

    async def _log_in(self, request: Request, fields: dict[str, str], grant: str) -> Response:
        """A login's request goes on beside the grant's exchanges. What was answered is never sent again (law 3)."""
        life, laws, code = self._life, self._life.laws, fields.get("device_code", "")
        answered = code in laws.answered
        laws.hold("law 3: a device code that was answered is not sent again", not answered, f"{grant}: {code}")
        fault = self._provider.fault()
        if fault is not None and fault.kind == "refuse":
            raise models.unreachable()
        conversation = _Conversation(life, self._provider, request, fields, grant, fault, laws.seen[grant].epoch)
        response = await conversation.run(life.world.clock.now())
        if conversation.settled and conversation.reply is not None:
            pending = conversation.reply.body.get("error") == "authorization_pending"
            laws.answered |= set() if pending or not code else {code}
        return response

    def sweep(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class _Conversation:
    """One request on its way. `settled`: an answer came that says what became of the token that was sent."""

    def __init__(
        self,
        life: Life,
        provider: models.Provider,
        request: Request,
        fields: dict[str, str],
        grant: str,
        fault: Fault | None,
        epoch: int,
    ) -> None:
        self.life, self.provider, self.request, self.fields, self.grant = life, provider, request, fields, grant
        self.fault = fault or Fault("")
        self.epoch = epoch
        self.held = SENDER.get()
        self.asked = asked_for(fields, self.held)
        self.reply: Reply | None = None
        self.settled = False

    async def run(self, sent: object) -> Response:
        kind, life, provider = self.fault.kind, self.life, self.provider
        if kind == answers.SKEWED and "/token" not in self.request.url:
            kind = ""
        seconds = self.fault.seconds or 0.0
        try:
            await life.pause(provider.latency() + (seconds if kind == "late-before" else 0.0))
        except Crashed:
            if provider.random.random() < 0.5:  # it was on its way already
                self._do(kind)
            raise
        if kind == "lost-before":
            raise models.lost()
        telling = self.request.url.endswith("/revoke")
        if kind == answers.STRAY and "refresh_token" in self.fields:
            self._stray()
        elif kind not in UNDONE or (telling and kind == "no-token"):  # RFC 7009 §2.2: any body, status 200 is enough
            self._do(kind)
            if kind.startswith("replayed"):
                self._do(kind, heard=kind == "replayed-last")
        await life.point("after-send")
        late = seconds if kind == "late" else 0.0
        patience = HttpSettings().timeouts(self.request.sends_stored).answer  # as the HTTP client has it
        if late > patience:
            life.laws.gives_up(self.grant, self.fields, patience)
            await life.pause(patience)
            raise models.lost()
        await life.pause(provider.latency() + late)
        if kind == "never":
            await life.pause(DEADLINE)
        if kind in ("never", "lost-after"):
            raise models.lost()
        response = self._answer(kind, sent)
        await life.point("after-answer")
        life.look()
        return response

    def _do(self, kind: str, *, heard: bool = True) -> None:
        reply = self.provider.do(self.grant, self.fields, self.request, kind)
        self.reply = reply if heard else self.reply

    def _stray(self) -> None:
        """A server of the cluster that has not heard of the token says that there is none."""
        self.reply = Reply(400, {"error": "invalid_grant"}, rejected=True)

    def _answer(self, kind: str, sent: object) -> Response:
        laws, reply = self.life.laws, self.reply
        if reply is not None and kind in READ and reply.status == 200 and "access_token" in reply.body:
            self.settled = kind in answers.READABLE or reply.issued is not None or "refresh_token" not in self.fields
            if self.settled and "device_code" not in self.fields:
                laws.heard(self.grant, self.fields, reply, self.epoch, self.held)
            return self.provider.written(kind, reply, sent)
        if kind == answers.SKEWED and "/token" in self.request.url:
            self.settled = True
            laws.unused(self.grant, self.fields)
            laws.skewed.add(self.grant)
            return self.provider.skewed(sent)
        if kind in STRANGE:
            response = self.provider.strange(kind, self.reply, sent, self.fault)
            if kind == "500-with-tokens" and self.reply is not None and "device_code" not in self.fields:
                laws.brought(self.grant, self.reply, self.epoch)
            if response.status in answers.DOUBTFUL and "password" in self.fields:
                laws.doubted(self.grant, self.fields["password"], self.asked)
            if kind == "429":
                self.settled = True
                laws.unused(self.grant, self.fields)
            asked = "token" in self.request.url and "device_code" not in self.fields
            if asked and (after := answer_values.retry_after(response)) is not None:
                laws.asked_to_wait(self.grant, after, self.epoch)
            return response
        assert self.reply is not None
        if self.reply.used_up:
            return self.provider.respond(self.reply, sent)
        self.settled = True
        if "device" in "".join((self.request.url, *self.fields)):
            return self.provider.respond(self.reply, sent)
        laws.heard(self.grant, self.fields, self.reply, self.epoch, self.held)
        return self.provider.respond(self.reply, sent)


READ = {**answers.READABLE, **answers.RESCUED}
UNDONE = (
    *("html", "html-403", "407", "429", "500", "503", "200-error", "no-token"),
    *answers.UNDONE,
    answers.SKEWED,
)
STRANGE = (*(kind for kind in UNDONE if kind != answers.SKEWED), "500-with-tokens", "truncated")

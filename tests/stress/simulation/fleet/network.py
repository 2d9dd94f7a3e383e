# The way of one process to a model provider: the Http port. Whatever has left is done there, whether its sender still
# lives or not.
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from brokerd.core.exchange.steps import Request, Response
from brokerd.core.timing.moment import Moment
from brokerd.edge.http.connection import HttpSettings
from tests.stress.simulation import providers as models
from tests.stress.simulation.fleet.schedule import WINDOW
from tests.stress.simulation.fleet.witness import Sending
from tests.stress.simulation.providers import Fault, Reply, fields_of

if TYPE_CHECKING:
    from tests.stress.simulation.fleet.host import Process

UNDONE = ("html", "429", "500", "503")  # answers of a provider that did nothing
LOST = ("lost-before", "lost-after", "never")


class Way:
    def __init__(self, process: Process, provider: models.Provider) -> None:
        self._process, self._provider = process, provider

    async def send(self, request: Request) -> Response:
        process, provider, world = self._process, self._provider, self._process.world
        fields = fields_of(request)
        grant, token = fields["client_id"], fields.get("refresh_token")
        telling = request.url.endswith("/revoke")
        await process.point("before-send")
        await process.wait(provider.latency())  # the address is looked up, and the connection made
        fault = provider.fault() or Fault("")
        if fault.kind == "refuse":
            raise models.unreachable()
        last_look(request)
        excused = await self._pauses_now()
        sending = None
        if not telling:
            world.witness.asked(process, grant)
            if token is not None:
                sending = world.witness.sends(process, grant, token, excused=excused)
            world.say(process.host.name, f"sends {grant} {token or fields['grant_type']}")
        sent, flight = process.clock.now(), _Flight(process, provider, request, fields, grant, fault, sending)
        world.outside(flight.run)
        return await flight.answered(sent)

    async def _pauses_now(self) -> bool:
        """Whether the schedule wants a pause in the one window that nothing closes."""
        if not self._process.strikes(WINDOW):
            return False
        await trio.lowlevel.checkpoint()
        self._process.check()
        return True

    def sweep(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class _Flight:
    """A request from its first byte to its answer. `done`: the provider has it, and has answered or never will."""

    def __init__(
        self,
        process: Process,
        provider: models.Provider,
        request: Request,
        fields: dict[str, str],
        grant: str,
        fault: Fault,
        sending: Sending | None,
    ) -> None:
        self.process, self.provider, self.request, self.fields = process, provider, request, fields
        self.grant, self.fault, self.sending = grant, fault, sending
        self.reply: Reply | None = None
        self.came = trio.Event()

    async def run(self) -> None:
        """As the network and the provider do it, whatever becomes of the sender."""
        provider, kind, seconds = self.provider, self.fault.kind, self.fault.seconds or 0.0
        await trio.sleep(provider.latency() + (seconds if kind == "late-before" else 0.0))
        if kind == "lost-before":
            return
        if kind not in UNDONE:
            self.reply = provider.do(self.grant, self.fields, self.request, kind)
            self.process.world.witness.done(self.grant, self.sending, self.reply)
            said = self.reply.body.get("error") or self.reply.body.get("access_token") or self.reply.status
            self.process.world.say(provider.name, f"{self.grant}: {said}, {self.reply.issued or 'no refresh token'}")
        self.process.strikes("after-send")
        await trio.sleep(provider.latency() + (seconds if kind == "late" else 0.0))
        if kind not in LOST:
            self.came.set()

    async def answered(self, sent: Moment) -> Response:
        """What the sender gets of it. Raises TransportError."""
        patience = HttpSettings().timeouts(self.request.sends_stored).answer
        lost = self.provider.random.random() * 10.0 if self.fault.kind in LOST[:2] else patience
        with trio.move_on_after(min(lost, patience)):
            await self.came.wait()
        await self.process.point("after-answer")
        if not self.came.is_set():
            self._ends("unknown")
            raise models.lost()
        return self._answer(sent)

    def _answer(self, sent: Moment) -> Response:
        kind, now = self.fault.kind, self.process.clock.now()
        if kind in UNDONE:
            self._ends("unused" if kind == "429" else "unknown")
            return replace(self.provider.strange(kind, None, sent, self.fault), at=now)
        assert self.reply is not None
        self._ends("rejected" if self.reply.rejected else "success" if self.reply.status == 200 else "unused")
        return replace(self.provider.respond(self.reply, sent), at=now)

    def _ends(self, how: str) -> None:
        if self.sending is not None:
            self.sending.ended = how
        self.process.world.say(self.process.host.name, f"has its answer for {self.grant}: {how}")


def last_look(request: Request) -> None:
    """As the HTTP client does right before the first byte. Raises TransportError or what the look raises."""
    if (look := getattr(request, "last_look", None)) is not None:
        look()

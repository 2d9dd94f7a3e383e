# The real daemon with faults of its own: exceptions that quote whatever is at hand, in each of the places where an
# exception is caught and its traceback logged. At its end the numbers of its metrics go to the file that the first
# argument names. The product knows nothing of this.
from __future__ import annotations

import sys
from pathlib import Path

from prometheus_client import generate_latest

from brokerd.broker.exchanges import ExchangeRunner
from brokerd.broker.logins import Logins
from brokerd.broker.provider import Provider
from brokerd.daemon import main as daemon
from brokerd.server import server
from brokerd.server.methods.dispatcher import Dispatcher
from brokerd.server.methods.method import AnswerLater
from brokerd.telemetry import metrics

REGISTRIES: list[metrics.Metrics] = []


def arm() -> None:
    """By a bug fail the first exchanges of every grant, the first refresh, the first connection, and every login."""
    send, take, answer = Provider._send, ExchangeRunner.read_credentials, Dispatcher.answer
    learn, made = server.Peer.learn_names, metrics.Metrics.__init__
    met: set[object] = set()

    def first(what: object) -> bool:
        is_first = what not in met
        met.add(what)
        return is_first

    async def send_(self, request, *rest):  # type: ignore[no-untyped-def]
        response = await send(self, request, *rest)
        if first(("sent", self.name)):
            raise RuntimeError("after an answer", request, response, vars(self), request.secrets)
        return response

    async def credentials_(self, grant, *, again):  # type: ignore[no-untyped-def]
        found = await take(self, grant, again=again)
        if first(("read", grant.name)):
            raise KeyError(found, grant, grant.record, grant.settings, grant.view(self._clock.now()))
        return found

    def answer_(self, session, method, params):  # type: ignore[no-untyped-def]
        given = answer(self, session, method, params)
        if method != "refresh" or not isinstance(given, AnswerLater) or not first((method, params.get("grant"))):
            return given

        async def later() -> object:
            raise ValueError(session, self, given)

        return AnswerLater(later)

    async def log_in_(self, login):  # type: ignore[no-untyped-def]
        raise LookupError(self, login, vars(login))

    async def learn_(self):  # type: ignore[no-untyped-def]
        if first("a connection"):
            raise ArithmeticError(vars(self))
        await learn(self)

    def made_(self):  # type: ignore[no-untyped-def]
        made(self)
        REGISTRIES.append(self)

    Provider._send, ExchangeRunner.read_credentials, Dispatcher.answer = send_, credentials_, answer_  # type: ignore[method-assign]
    Logins._log_in, server.Peer.learn_names = log_in_, learn_  # type: ignore[method-assign]
    metrics.Metrics.__init__ = made_  # type: ignore[method-assign]


def main() -> None:
    written = Path(sys.argv.pop(1))
    arm()
    try:
        daemon.main()
    finally:
        written.write_bytes(b"".join(generate_latest(each.registry) for each in REGISTRIES))


if __name__ == "__main__":
    main()

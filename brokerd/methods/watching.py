# watch and unwatch: what becomes of grants is pushed to who watches them, the last of several changes alone.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from brokerd.broker import Broker
from brokerd.core.failure import Code, Failure, unknown
from brokerd.core.policy import Action
from brokerd.methods.fetching import Fetching
from brokerd.methods.parameters import MANY
from brokerd.methods.session import Rights, Session


class Watching:
    """Pushes run in `nursery`, the daemon's."""

    def __init__(self, broker: Broker, rights: Rights, fetching: Fetching, nursery: trio.Nursery) -> None:
        self._broker = broker
        self._rights = rights
        self._fetching = fetching
        self._nursery = nursery

    def watch(self, session: Session, params: dict[str, Any]) -> dict[str, object]:
        grants = params["grants"]
        for grant in grants:
            self._rights.require(session, Action.GET, grant, "watch")
            self._broker.held(grant)
        if len({*session.watching, *grants}) > MANY:
            raise Failure(Code.LIMIT, f"watch: expected at most {MANY} grants on a connection")
        for grant in grants:
            if grant not in session.watching:
                session.watching[grant] = tell = _teller(session)
                self._broker.watch(grant, tell)
            if self._broker.cached(grant) is not None:
                _teller(session)(grant)
        if session.pusher is None and session.watching:
            session.pusher = trio.CancelScope()
            self._nursery.start_soon(self._push, session, session.pusher, name="watch")
        return {"watching": sorted(session.watching)}

    def unwatch(self, session: Session, params: dict[str, Any]) -> dict[str, object]:
        for grant in params["grants"]:
            tell = session.watching.pop(grant, None)
            if tell is not None:
                self._broker.unwatch(grant, tell)
            session.changed.discard(grant)
        return {"watching": sorted(session.watching)}

    async def _push(self, session: Session, scope: trio.CancelScope) -> None:
        """Tell the connection what became of the grants that it watches: of several changes, the last."""
        last: dict[str, object] = {}  # the value that was pushed, or the code
        with scope:
            while True:
                await session.wake.wait()
                session.wake = trio.Event()
                while session.changed:
                    grant = session.changed.pop()
                    try:
                        if not self._rights.up_to_date(session, [grant]):
                            await self._rights.look(session, [grant])
                    except OSError:
                        return  # the caller is gone
                    method, params = self._event(session, grant)
                    told = params.get("value") or params["code"]
                    if last.get(grant) != told and not await session.notify(method, params):
                        return
                    last[grant] = told

    def _event(self, session: Session, grant: str) -> tuple[str, dict[str, object]]:
        if self._broker.locked:
            return "gone", {"grant": grant, **_without_grant(self._broker.locked_failure())}
        held = self._broker.grants.get(grant)
        if not self._rights.allows(session, Action.GET, grant) or held is None:
            return "gone", {"grant": grant, **_without_grant(unknown(grant))}
        token = self._broker.cached(grant)
        failure = self._fetching.forbidden()
        if token is not None and failure is None:
            return "token", self._fetching.as_map(session, grant, token, "watch")
        return "gone", {"grant": grant, **_without_grant(failure or self._broker.failure(held))}

    def end(self, session: Session) -> None:
        """The connection is gone: nothing is pushed to it any more."""
        for name, tell in session.watching.items():
            self._broker.unwatch(name, tell)
        session.watching.clear()
        if session.pusher is not None:
            session.pusher.cancel()


def _teller(session: Session) -> Callable[[str], None]:
    def tell(name: str) -> None:
        session.changed.add(name)
        session.wake.set()

    return tell


def _without_grant(failure: Failure) -> dict[str, object]:
    return {"code": str(failure.code), "message": failure.message}

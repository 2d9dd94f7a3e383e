# watch and unwatch: pushes to a connection what becomes of the grants that it watches. Of several changes since the
# last push, only the newest is pushed.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.core.access.policy import Action
from brokerd.core.errors import Code, Failure, unknown
from brokerd.server.methods.parameters import MANY
from brokerd.server.methods.tokens import TokenMethods
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession
from brokerd.telemetry.event_log import EventLog


class WatchMethods:
    """Pushes run in `nursery`, the daemon's."""

    def __init__(
        self, broker: TokenBroker, rights: Rights, tokens: TokenMethods, nursery: trio.Nursery, events: EventLog
    ) -> None:
        self._broker = broker
        self._rights = rights
        self._tokens = tokens
        self._nursery = nursery
        self._events = events
        self._turns = (
            trio.Lock()
        )  # a renewal wakes every connection that watches the grant; other requests come between

    def watch(self, session: CallerSession, params: dict[str, Any]) -> dict[str, object]:
        grants = params["grants"]
        for grant in grants:
            self._rights.require(session, Action.GET, grant, "watch")
            self._broker.grant(grant)
        if len({*session.watches.callbacks, *grants}) > MANY:
            words = f"watch: expected at most {MANY} watched grants on one connection; unwatch some, or open another"
            raise Failure(Code.LIMIT, words)
        for grant in grants:
            if grant not in session.watches.callbacks:
                session.watches.callbacks[grant] = callback = _callback(session)
                self._broker.watch(grant, callback)
            if self._broker.cached(grant) is not None:
                _callback(session)(grant)
        if session.watches.pusher is None and session.watches.callbacks:
            session.watches.pusher = trio.CancelScope()
            self._nursery.start_soon(self._push, session, session.watches.pusher, name="watch")
        return {"watching": sorted(session.watches.callbacks)}

    def unwatch(self, session: CallerSession, params: dict[str, Any]) -> dict[str, object]:
        for grant in params["grants"]:
            callback = session.watches.callbacks.pop(grant, None)
            if callback is not None:
                self._broker.unwatch(grant, callback)
            session.watches.changed.discard(grant)
        return {"watching": sorted(session.watches.callbacks)}

    async def _push(self, session: CallerSession, scope: trio.CancelScope) -> None:
        """Until the connection has ended. A fault of ours ends nothing else."""
        with scope:
            try:
                await self._push_changes(session)
            except Exception:
                self._events.bug("push")

    async def _push_changes(self, session: CallerSession) -> None:
        """Send the connection the newest event of each watched grant that has changed."""
        pushed: dict[str, object] = {}  # by grant: the token that was pushed last, or the code
        while True:
            await session.watches.wake.wait()
            session.watches.wake = trio.Event()
            while session.watches.changed:
                async with self._turns:
                    pass
                if not session.watches.changed:
                    break  # they were unwatched meanwhile
                grant = session.watches.changed.pop()
                try:
                    if not self._rights.up_to_date(session, [grant]):
                        await self._rights.look(session, [grant])
                except OSError:
                    return  # the caller has ended
                method, params = self._event(session, grant)
                what = params.get("value") or params["code"], params.get("fields")
                if pushed.get(grant) != what and not await session.notify(method, params):
                    return
                pushed[grant] = what

    def _event(self, session: CallerSession, grant: str) -> tuple[str, dict[str, object]]:
        if self._broker.locked:
            return "gone", {"grant": grant, **_without_grant(self._broker.locked_failure())}
        live = self._broker.grants.get(grant)
        if not self._rights.allows(session, Action.GET, grant) or live is None:
            return "gone", {"grant": grant, **_without_grant(unknown(grant))}
        token = self._broker.cached(grant)
        failure = self._tokens.forbidden()
        if token is not None and failure is None:
            return "token", self._tokens.as_map(session, grant, token, "watch")
        return "gone", {"grant": grant, **_without_grant(failure or self._broker.failure(live))}

    def end(self, session: CallerSession) -> None:
        """The connection has ended: nothing is pushed to it any more."""
        for name, callback in session.watches.callbacks.items():
            self._broker.unwatch(name, callback)
        session.watches.callbacks.clear()
        if session.watches.pusher is not None:
            session.watches.pusher.cancel()


def _callback(session: CallerSession) -> Callable[[str], None]:
    def notice(name: str) -> None:
        session.watches.changed.add(name)
        session.watches.wake.set()

    return notice


def _without_grant(failure: Failure) -> dict[str, object]:
    return {"code": str(failure.code), "message": failure.message}

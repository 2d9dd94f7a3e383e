# refresh, revoke, import, forget, adopt, trust, reload: what people and scripts change.
from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from brokerd.broker.broker import TokenBroker
from brokerd.broker.reload import Changes
from brokerd.core.errors import Code, Failure
from brokerd.core.secret import Secret
from brokerd.dialects.answer_values import LONGEST_TOKEN
from brokerd.server.methods.parameters import WAIT
from brokerd.server.session import CallerSession


class ChangeMethods:
    """`reload` reads the configuration and applies it; it raises Failure."""

    def __init__(self, broker: TokenBroker, reload: Callable[[], Awaitable[Changes]]) -> None:
        self._broker = broker
        self._reload = reload

    async def refresh(self, _session: CallerSession, params: dict[str, Any]) -> object:
        token = await self._broker.refresh(params["grant"], wait=params.get("wait", WAIT))
        return {"grant": params["grant"], "expires_at": self._broker.expires_at(token)}

    async def revoke(self, _session: CallerSession, params: dict[str, Any]) -> object:
        local, wait = params.get("local", False), params.get("wait", WAIT)
        done = await self._broker.revoke(params["grant"], local=local, wait=wait)
        return {"grant": params["grant"], **asdict(done)}

    def import_part(self, session: CallerSession, params: dict[str, Any]) -> object:
        """The beginning of a refresh token that is too long for one request. `import` brings its end."""
        parts = _parts(session, params["grant"]) + params["part"]
        if len(parts.encode()) > LONGEST_TOKEN:
            session.parts = None
            raise Failure(Code.BAD_REQUEST, f"import_part: expected at most {LONGEST_TOKEN} bytes in all")
        session.parts = params["grant"], Secret(parts)
        return {"grant": params["grant"], "characters": len(parts)}

    async def import_token(self, session: CallerSession, params: dict[str, Any]) -> object:
        token = Secret(_parts(session, params["grant"]) + params["refresh_token"])
        session.parts = None
        generation = await self._broker.import_token(params["grant"], token)
        return {"grant": params["grant"], "generation": generation, **await self._first_use(params)}

    async def _first_use(self, params: dict[str, Any]) -> dict[str, object]:
        """What the provider says of a token that was imported, if it answers in time. It is stored in any case."""
        name = params["grant"]
        if not (wait := params.get("wait", 0)):
            return {"accepted": None, "error": None}
        try:
            await self._broker.wait_for_token(name, wait)
            if (grant := self._broker.grant(name)).serves(self._broker.now()) is None:
                raise self._broker.failure(grant, problem="has no token from its provider yet")
        except Failure as failure:
            return {"accepted": False, "error": failure.as_map()}
        return {"accepted": True, "error": None}

    async def forget(self, _session: CallerSession, params: dict[str, Any]) -> object:
        return {"grant": params["grant"], "forgotten": await self._broker.forget(params["grant"])}

    async def adopt(self, _session: CallerSession, _params: dict[str, Any]) -> object:
        return {"adopted": await self._broker.adopt()}

    async def trust(self, _session: CallerSession, params: dict[str, Any]) -> object:
        return {"provider": params["provider"], "grants": await self._broker.trust(params["provider"])}

    async def reload(self, _session: CallerSession, _params: dict[str, Any]) -> object:
        changes = await self._reload()
        named = {"changed": changes.changed, "added": changes.added, "removed": changes.removed}
        return {**named, "tables": changes.tables, "later": changes.later, "restart": bool(changes.later)} | {
            "unreadable": changes.unreadable
        }


def _parts(session: CallerSession, grant: str) -> str:
    """What the connection has sent of a refresh token for that grant."""
    return session.parts[1].reveal() if session.parts is not None and session.parts[0] == grant else ""

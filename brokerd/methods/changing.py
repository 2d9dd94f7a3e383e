# refresh, revoke, import, forget, adopt, trust, reload: what people and scripts change.
from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from brokerd.broker import Broker
from brokerd.core.failure import Code, Failure
from brokerd.core.policy import Action
from brokerd.core.secret import Secret
from brokerd.methods.parameters import WAIT
from brokerd.methods.session import Later, Rights, Session
from brokerd.reload import Changes


class Changing:
    """`reload` reads the configuration again; it raises Failure."""

    def __init__(self, broker: Broker, rights: Rights, reload: Callable[[], Awaitable[Changes]]) -> None:
        self._broker = broker
        self._rights = rights
        self._reload = reload

    def refresh(self, session: Session, params: dict[str, Any]) -> Later:
        grant = params["grant"]
        self._rights.require(session, Action.REFRESH, grant, "refresh")

        async def later() -> object:
            token = await self._broker.refresh(grant, wait=params.get("wait", WAIT))
            return {"grant": grant, "expires_at": self._broker.expires_at(token)}

        return later

    def revoke(self, session: Session, params: dict[str, Any]) -> Later:
        grant = params["grant"]
        self._rights.require(session, Action.REVOKE, grant, "revoke")

        async def later() -> object:
            local, wait = params.get("local", False), params.get("wait", WAIT)
            done = await self._broker.revoke(grant, local=local, wait=wait)
            return {"grant": grant, "stored": done.stored, "provider": done.provider, "detail": done.detail}

        return later

    def import_token(self, session: Session, params: dict[str, Any]) -> Later:
        grant = params["grant"]
        self._rights.require(session, Action.LOGIN, grant, "import")
        if not params["refresh_token"]:
            raise Failure(Code.BAD_REQUEST, "import: expected a refresh token, found empty text")

        async def later() -> object:
            return {
                "grant": grant,
                "generation": await self._broker.import_token(grant, Secret(params["refresh_token"])),
            }

        return later

    def forget(self, session: Session, params: dict[str, Any]) -> Later:
        self._rights.require_administration(session, "forget")

        async def later() -> object:
            return {"grant": params["grant"], "forgotten": await self._broker.forget(params["grant"])}

        return later

    def adopt(self, session: Session, _params: dict[str, Any]) -> Later:
        self._rights.require_administration(session, "adopt")

        async def later() -> object:
            return {"adopted": await self._broker.adopt()}

        return later

    def read_again(self, session: Session, _params: dict[str, Any]) -> Later:
        self._rights.require_administration(session, "reload")

        async def later() -> object:
            changes = await self._reload()
            named = {"changed": changes.changed, "added": changes.added, "removed": changes.removed}
            return {**named, "restart": changes.restart}

        return later

    def trust(self, session: Session, params: dict[str, Any]) -> Later:
        self._rights.require_administration(session, "trust")

        async def later() -> object:
            return {"provider": params["provider"], "grants": await self._broker.trust(params["provider"])}

        return later

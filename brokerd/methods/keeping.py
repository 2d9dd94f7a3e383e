# lock, unlock, rotate_key: what administrators do with the keys.
from __future__ import annotations

from typing import Any

from brokerd.core.secret import Secret
from brokerd.custody import Custody
from brokerd.methods.session import Later, Rights, Session


class Keeping:
    def __init__(self, rights: Rights, custody: Custody) -> None:
        self._rights = rights
        self._custody = custody

    def lock(self, session: Session, _params: dict[str, Any]) -> Later:
        self._rights.require_administration(session, "lock")

        async def later() -> object:
            return {"locked": await self._custody.lock()}

        return later

    def unlock(self, session: Session, params: dict[str, Any]) -> Later:
        self._rights.require_administration(session, "unlock")
        passphrase, new = _passphrase(params), params.get("new", False)

        async def later() -> object:
            return {"unlocked": await self._custody.unlock(passphrase, new=new)}

        return later

    def rotate_key(self, session: Session, params: dict[str, Any]) -> Later:
        self._rights.require_administration(session, "rotate_key")
        passphrase, full = _passphrase(params), params.get("full", False)

        async def later() -> object:
            done = await self._custody.rotate(passphrase, full=full)
            return {"rewrapped": done.rewrapped, "reencrypted": done.reencrypted, "damaged": done.damaged}

        return later


def _passphrase(params: dict[str, Any]) -> Secret | None:
    return Secret(params["passphrase"]) if "passphrase" in params else None

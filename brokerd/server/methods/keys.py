# lock, unlock, rotate_key, backup, seal_audit: what administrators do with the keys and the store.
from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict
from typing import Any

from brokerd.broker.key_management import KeyManager
from brokerd.core.secret import Secret
from brokerd.server.session import CallerSession
from brokerd.telemetry.event_log import EventLog

PIECE = 512 * 1024  # bytes of a backup in one answer


class KeyMethods:
    def __init__(self, key_manager: KeyManager, events: EventLog) -> None:
        self._key_manager = key_manager
        self._events = events

    async def lock(self, _session: CallerSession, _params: dict[str, Any]) -> object:
        return {"locked": await self._key_manager.lock()}

    async def unlock(self, _session: CallerSession, params: dict[str, Any]) -> object:
        return {"unlocked": await self._key_manager.unlock(_passphrase(params), new=params.get("new", False))}

    async def rotate_key(self, _session: CallerSession, params: dict[str, Any]) -> object:
        done = await self._key_manager.rotate(_passphrase(params), full=params.get("full", False))
        return asdict(done)

    async def backup(self, session: CallerSession, params: dict[str, Any]) -> object:
        """At offset 0: make a copy of the store now and answer with its first piece. Later: a further piece of it."""
        start = params.get("offset", 0)
        if not start:
            session.backup = await self._key_manager.backup()
        piece, size = session.backup[start : start + PIECE], len(session.backup)
        found = {"size": size, "data": base64.b64encode(piece).decode()}
        if not start:
            found["sha256"] = hashlib.sha256(session.backup).hexdigest()
        if start + PIECE >= size:
            session.backup = b""
        return found

    async def seal_audit(self, _session: CallerSession, _params: dict[str, Any]) -> object:
        """Seal the audit log up to its end, for somebody who verifies it while brokerd runs."""
        reason = await self._events.sealed()
        return {"sealed": reason is None, "reason": reason}


def _passphrase(params: dict[str, Any]) -> Secret | None:
    return Secret(params["passphrase"]) if "passphrase" in params else None

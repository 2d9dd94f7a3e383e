# lock, unlock, rotate_key, backup, seal_audit: what administrators do with the keys.
from __future__ import annotations

import base64
import hashlib
from typing import Any

from brokerd.audit import Audit
from brokerd.core.secret import Secret
from brokerd.custody import Custody
from brokerd.methods.session import Later, Rights, Session

PIECE = 512 * 1024  # bytes of a backup in one answer


class Keeping:
    def __init__(self, rights: Rights, custody: Custody, audit: Audit) -> None:
        self._rights = rights
        self._custody = custody
        self._audit = audit

    def seal(self, session: Session, _params: dict[str, Any]) -> Later:
        """Have the audit log sealed to its end, for who verifies it beside us."""
        self._rights.require_administration(session, "seal_audit")

        async def later() -> object:
            reason = await self._audit.sealed()
            return {"sealed": reason is None, "reason": reason}

        return later

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

    def backup(self, session: Session, params: dict[str, Any]) -> Later:
        """The first piece of a copy that is made now, or a further piece of that one."""
        self._rights.require_administration(session, "backup")

        async def later() -> object:
            start = params.get("offset", 0)
            if not start:
                session.backup = await self._custody.backup()
            piece, size = session.backup[start : start + PIECE], len(session.backup)
            found = {"size": size, "data": base64.b64encode(piece).decode()}
            if not start:
                found["sha256"] = hashlib.sha256(session.backup).hexdigest()
            if start + PIECE >= size:
                session.backup = b""
            return found

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

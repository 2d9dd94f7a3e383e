# Which credential of which unit systemd fetches on a connection: the address of its socket names both (systemd.exec(5),
# LoadCredential=). The peer chooses that address, so it counts only if the kernel says the same. Pure.
from __future__ import annotations

import re
from dataclasses import dataclass

from brokerd.core.access.policy import Caller

UNIT = r"[A-Za-z0-9:_.\\@-]+\.(?:service|scope|socket|mount|swap)"  # systemd.unit(5): escaped, instances with "@"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # a grant's name, and perhaps ".json"
ADDRESS = re.compile(rf"\0[0-9a-f]{{1,16}}/unit/({UNIT})/({NAME})".encode())
JSON = ".json"
LARGEST = 1024 * 1024  # bytes: systemd takes no more for all credentials of a unit together, names included


class NotSystemd(Exception):
    """A connection is not systemd's, or not for the unit that it names; the text says why."""


@dataclass(frozen=True, slots=True)
class CredentialRequest:
    """What systemd asks for. `name`: of the credential, a grant's name or that and ".json"."""

    unit: str
    name: str

    @property
    def grant(self) -> str:
        return self.name.removesuffix(JSON)

    @property
    def is_json(self) -> bool:
        return self.name.endswith(JSON)

    def check(self, seen: Caller) -> None:
        """Compare with what the kernel says of the process: systemd's own one is root's, a user's systemd is that
        user's. Raises NotSystemd."""
        found = seen.evidence
        if (seen.uid == 0 and found.unit == self.unit) or found.user_unit == self.unit:
            return
        if found.unit == self.unit:
            words = f"its process is in that unit, and its uid is {seen.uid}: it is not systemd"
        elif "unit" in found.unread:
            words = f"the unit of its process {found.unread['unit']}"
        else:
            words = f"its process is in {found.user_unit or found.unit or 'no unit'}"
        raise NotSystemd(f"its address names {self.unit}; {words}")


def read_address(address: str | bytes) -> CredentialRequest:
    """What the peer's address says. Raises NotSystemd."""
    found = ADDRESS.fullmatch(address) if isinstance(address, bytes) else None
    if found is None:
        raise NotSystemd(
            "its address names no unit and credential, as that of systemd does; this socket is for "
            "LoadCredential=GRANT:PATH, where PATH is the socket itself and not its folder"
        )
    return CredentialRequest(found[1].decode(), found[2].decode())

# Which event of the log the end of an exchange is. Pure.
from __future__ import annotations

from brokerd.core.events import Event


def exchange_event(operation: str, outcome: str, state: str = "") -> Event:
    """The event of an exchange that ended with that outcome and left the grant in that state."""
    succeeded, failed = EXCHANGES.get(operation, EXCHANGES["renew"])
    if outcome in ("issued", "done"):
        return succeeded
    return Event.GRANT_NEEDS_LOGIN if failed is Event.RENEWAL_FAILED and state == "needs_login" else failed


# By operation: the event of an exchange that succeeded, and of one that failed.
EXCHANGES = {
    "renew": (Event.RENEWED, Event.RENEWAL_FAILED),
    "issue": (Event.RENEWED, Event.RENEWAL_FAILED),
    "revoke": (Event.REVOCATION_TOLD, Event.REVOCATION_NOT_TOLD),
    "verify": (Event.VERIFIED, Event.VERIFICATION_FAILED),
}

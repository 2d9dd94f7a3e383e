# What status and metrics show of grants while brokerd is locked: their names, and that they serve nothing. What was
# known of them before is shown too. No secret is in it.
from __future__ import annotations

from collections.abc import Mapping

from brokerd.broker.grant_status import grant_status
from brokerd.broker.live_grant import LiveGrant
from brokerd.core.grant.condition import LOCKED, UNLOCK
from brokerd.core.timing.moment import Moment

NOW = {  # what is true of each of them, whatever it was before
    "state": LOCKED,
    **dict.fromkeys(("issued_at", "expires_at", "next_renewal_at")),
    "remedy": UNLOCK,
    "advice": None,
}
NOTHING_KNOWN: dict[str, object] = {  # of a grant that was never loaded, because brokerd was locked at its start
    **dict.fromkeys(("scope", "refresh_expires_at", "interrupted", "last_error", "failing_since", "revoked_at")),
    **dict.fromkeys(("generation", "renewals", "failures", "pending_revocations", "variants"), 0),
    **dict.fromkeys(("scope_dropped", "fields", "notes"), ()),
    "unstored": False,
    **NOW,
}


class LockedGrants:
    """`statuses`: what status shows, by name. It is empty while brokerd is not locked."""

    def __init__(self) -> None:
        self.statuses: Mapping[str, dict[str, object]] = {}

    def keep(self, grants: Mapping[str, LiveGrant], now: Moment) -> None:
        """brokerd is being locked."""
        self.statuses = {name: grant_status(grant, now, None) | NOW for name, grant in grants.items()}

    def keep_names(self, providers: Mapping[str, str]) -> None:
        """brokerd starts locked: only the configuration is known. `providers`: of each grant the name of its own."""
        self.statuses = {name: NOTHING_KNOWN | {"name": name, "provider": of} for name, of in providers.items()}

    def drop(self) -> None:
        self.statuses = {}

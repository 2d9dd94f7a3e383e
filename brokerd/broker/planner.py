# Which exchange a grant needs next, for a caller or by itself, and whether brokerd may begin it now.
# core/grant/renewal.py computes the plans of one grant; this adds what holds for the whole daemon.
from __future__ import annotations

from brokerd.broker.live_grant import LiveGrant
from brokerd.core.grant.renewal import Plan
from brokerd.core.grant.target import Target
from brokerd.core.ports import Store
from brokerd.core.timing.moment import Moment, seconds_until


class ExchangePlanner:
    """`stopping`: brokerd stops or is being locked, so no exchange begins."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.stopping = False

    def by_itself(self, grant: LiveGrant, now: Moment) -> Plan | None:
        """The grant's next exchange, and when it is due, if nobody asks."""
        return self._permitted(grant, grant.plan(now, for_caller=False), now)

    def patience(self, grant: LiveGrant, now: Moment) -> float:
        """Seconds that another host of the fleet is left to renew a grant that is due; 0 or less: begin."""
        token = grant.serves(now)
        left = None if token is None or token.expires is None else seconds_until(token.expires, now)
        return self._store.patience(grant.name, grant.fingerprint, 0.0 if token is None else left)

    def for_caller(self, grant: LiveGrant, target: Target | None, now: Moment) -> Plan | None:
        """The next exchange for a caller that wants a token for `target`. None also where a caller had the living token
        renewed a short while ago (law 5)."""
        return None if grant.early_renewal_wait(target, now) > 0 else self.towards(grant, target, now)

    def towards(self, grant: LiveGrant, target: Target | None, now: Moment) -> Plan | None:
        """The exchange that comes next on the way to a token for `target`. For a downscoped token that is the grant's
        own renewal where that is due, so that no number of downscoped tokens delays it, and where the downscoped token
        needs the grant's own token first."""
        plan = self._permitted(grant, grant.plan(now, for_caller=True, target=target), now)
        if target is None:
            return plan
        own = self.by_itself(grant, now)
        if own is not None and own.target is None and own.delay <= 0:
            return own
        if plan is None and grant.serves(now) is None:
            return self._permitted(grant, grant.plan(now, for_caller=True), now)
        return plan

    def _permitted(self, grant: LiveGrant, plan: Plan | None, now: Moment) -> Plan | None:
        """The plan; None: something forbids it that waiting alone does not end."""
        if plan is None or self.stopping:
            return None
        may_send = self._store.adopted and not grant.unstored
        return plan if may_send or not grant.ability(now, plan.target).sends_stored(plan.operation) else None

# What people see of the fleet (core/fleet/view.py), read from the mirror.
from __future__ import annotations

from typing import TYPE_CHECKING

from brokerd.core.fleet.layout import ClaimValue, JournalValue, MemberValue
from brokerd.core.fleet.view import OUTCOMES, Claim, EtcdState, FleetNumbers, FleetView, Member, OpenExchange

if TYPE_CHECKING:
    from brokerd.edge.fleet.store import FleetStore


def fleet(store: FleetStore) -> FleetView:
    shared, members, claims, exchanges = store.shared, list[Member](), list[Claim](), list[OpenExchange]()
    for key, pair in sorted(shared.mirror.pairs.items()):
        kind, _ = shared.keys.kind(key)
        if kind == "member" and (member := shared.opened(pair, MemberValue)):
            about = (member.host, member.release, member.schema, member.written.wall, member.host == shared.me.host)
            members.append(Member(*about, shared.clock_of(member.host)))
        elif kind == "claim" and (claim := shared.opened(pair, ClaimValue)) and (place := shared.keys.place(key)):
            claims.append(Claim(place.grant, claim.host, claim.written.wall))
        elif kind == "journal" and (row := shared.opened(pair, JournalValue)) and (place := shared.keys.place(key)):
            if row.is_void:
                continue
            held = shared.value(shared.keys.claim(place), ClaimValue)
            is_held = held is not None and held.write == row.write
            exchanges.append(OpenExchange(place.grant, row.host, row.written.wall, is_held))
    return FleetView(
        shared.me.fleet, shared.me.host, etcd_state(store), tuple(members), tuple(claims), tuple(exchanges)
    )


def etcd_state(store: FleetStore) -> EtcdState:
    mirror, shared = store.shared.mirror, store.shared
    now = shared.clock.now()
    ends = float("inf") if mirror.away is None else store.serves_until
    return EtcdState(
        endpoint=getattr(shared.etcd, "server", None),
        reachable=mirror.away is None,
        since=None if mirror.since is None else round(now.wall - now.boot + mirror.since, 2),
        trouble=mirror.away or store.membership.trouble or shared.refused,
        full=shared.full,
        revision=mirror.revision,
        cluster=mirror.cluster,
        adopted=store.membership.adopted,
        unwritten=len(store.records.unsent),
        serves_until=None if ends == float("inf") else round(now.wall - now.boot + ends, 2),
    )


def numbers(store: FleetStore) -> FleetNumbers:
    shared = store.shared
    prefix = shared.keys.root + b"claim/"
    claims = [shared.value(key, ClaimValue) for key in shared.mirror.pairs if key.startswith(prefix)]
    mine = [each for each in claims if each is not None and shared.is_own(each)]
    lag = max(0.0, shared.clock.now().boot - max(shared.mirror.reached, store.began))
    return FleetNumbers(len(store.turns.hosts), len(mine), lag, {each: shared.counts[each] for each in OUTCOMES})

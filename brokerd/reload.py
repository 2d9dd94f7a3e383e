# Brings a configuration into a running broker, all or nothing (law 14): what can fail is done first and changes
# nothing; then everything changes at once, without an await. The start is a reload of an empty broker.
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from brokerd.audit import Audit
from brokerd.broker import Broker
from brokerd.config import Configuration, GrantSettings, ProviderSettings
from brokerd.core import record as records
from brokerd.core.breaker import Breaker
from brokerd.core.grant import State
from brokerd.core.metadata import Metadata
from brokerd.core.moment import wall_time
from brokerd.core.ports import Clock, Entropy, Http, StoreError
from brokerd.core.record import Record
from brokerd.core.secret import Secret
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.recipe import IDENTIFYING
from brokerd.edge.sealed_record import Stored, fingerprint
from brokerd.edge.secrets import SecretUnreadable, read_secret
from brokerd.edge.store import Store
from brokerd.held import HeldGrant
from brokerd.provider import Provider

DORMANT_LONGEST = 30 * 86_400.0  # seconds for which the records of vanished grants are kept (law 14)
NOTHING_KNOWN: Mapping[str, Metadata] = {}
SPREAD_AT_START = 60.0  # seconds over which renewals that are due at start-up are spread (law 7)


@dataclass(slots=True)
class Changes:
    """Grant names, sorted. `restart`: [daemon] is another than at the start, and counts from the next one on. `aside`:
    (grant, fingerprint) of records that nothing configured claims any more, `awake`: of those that are claimed
    again."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    restart: bool = False
    aside: list[tuple[str, str]] = field(default_factory=list)
    awake: list[tuple[str, str]] = field(default_factory=list)


def fingerprints(configuration: Configuration) -> dict[str, str | SecretUnreadable]:
    """Each grant's fingerprint (law 15). Blocking: credentials that say who it is may lie in files."""
    found: dict[str, str | SecretUnreadable] = {}
    for name, settings in configuration.grants.items():
        try:
            found[name] = fingerprint_of(settings)
        except SecretUnreadable as error:
            found[name] = error
    return found


def _identifying(settings: GrantSettings) -> dict[str, Secret]:
    named = ((name, source) for name, source in settings.credentials.items() if name in IDENTIFYING)
    return {name: read_secret(source) for name, source in named}


def bring_in(
    broker: Broker,
    configuration: Configuration,
    prints: Mapping[str, str | SecretUnreadable],
    stored: Iterable[Stored],
    breakers: Mapping[str, Breaker],
    providers: dict[str, Provider],
    way_out: Callable[[ProviderSettings], Http],
    clock: Clock,
    entropy: Entropy,
    *,
    starting: bool,
    metadata: Mapping[str, Metadata] = NOTHING_KNOWN,
) -> tuple[Changes, list[Http]]:
    """Make the broker hold what is configured. `stored` has at least the records of grants that are new to it;
    `providers` is brought up to date in place. Returns what changed, and the ways out that are no longer used. Raises
    Failure where brokerd was locked while the files were read: nothing may come back by that."""
    if broker.locked and not starting:
        raise broker.locked_failure()

    def made(settings: ProviderSettings) -> Provider:
        name, http = settings.name, way_out(settings)
        return Provider(settings, http, breakers.get(name, Breaker()), clock, entropy, metadata.get(name))

    changes, unused = Changes(), _bring_in_providers(configuration, providers, made, way_out)
    rows: dict[str, list[Stored]] = {}
    for row in stored:
        rows.setdefault(row.grant, []).append(row)
    flights = broker.flights
    before, flights.grants = flights.grants, {}
    for name, settings in configuration.grants.items():
        printed = prints[name]
        held = before.get(name)
        if not isinstance(printed, SecretUnreadable) and (name, printed) in flights.leaving:
            held = flights.leaving.pop((name, printed))  # it is back before its last exchange ended (law 1)
        if held is not None and held.fingerprint == printed:
            broker.grants[name] = held
            _renew_settings(broker, held, settings, providers[settings.provider.name], changes)
            continue
        held = _hold(settings, providers[settings.provider.name], printed, rows.get(name, []), changes)
        broker.grants[name] = held
        (changes.changed if name in before else changes.added).append(name)
        if starting:
            _say_what_was_left(broker, held, clock)
        spread = SPREAD_AT_START * entropy.fraction() if starting and held.stored is not None else 0.0
        flights.welcome(held, spread)
    _let_go(broker, before, rows, changes)
    for names in (changes.added, changes.changed, changes.removed):
        names.sort()
    return changes, unused


def _bring_in_providers(
    configuration: Configuration,
    providers: dict[str, Provider],
    made: Callable[[ProviderSettings], Provider],
    way_out: Callable[[ProviderSettings], Http],
) -> list[Http]:
    unused = []
    for name, settings in configuration.providers.items():
        if (known := providers.get(name)) is None:
            providers[name] = made(settings)
        elif known.settings != settings:
            unused.append(known.http)
            known.reconfigured(settings, way_out(settings))
    vanished = [providers.pop(name).http for name in providers.keys() - configuration.providers.keys()]
    return unused + vanished


def _hold(
    settings: GrantSettings,
    provider: Provider,
    printed: str | SecretUnreadable,
    rows: Sequence[Stored],
    changes: Changes,
) -> HeldGrant:
    """A grant that is new here, with the record that the store has for exactly what is configured."""
    if isinstance(printed, SecretUnreadable):
        held = HeldGrant(settings, provider, "", None)
        held.blocked = f"its credentials cannot be read: {printed}; {_next(settings)}"
        held.lacks_secret = any(source.file is not None for _, source in settings.sources)
        return held
    mine = next((row for row in rows if row.fingerprint == printed), None)
    changes.aside.extend((r.grant, r.fingerprint) for r in rows if r is not mine and r.dormant_since is None)
    held = HeldGrant(settings, provider, printed, mine.record if mine else None)
    if mine is not None and mine.unstored:
        held.stored, held.unstored = mine.replaces, True
    held.record = records.look_again(held.record, starting=True)
    _recall(held)
    if mine is None:
        if _was_revoked(rows):  # revocation is final: a change of the configuration does not end it (law 10)
            held.record = Record(settings.name, state=State.REVOKED)
    elif mine.damage:
        held.damaged = True
        held.blocked = (
            f"its stored record cannot be opened: {mine.damage}; nothing was overwritten: restore the state directory, "
            f"or give the record up: brokerctl forget {settings.name}"
        )
    elif mine.dormant_since is not None:
        changes.awake.append((mine.grant, mine.fingerprint))
    return held


def _next(settings: GrantSettings) -> str:
    if any(source.file is not None for _, source in settings.sources):
        return "when its files can be read, brokerd notices it by itself; after any other change: brokerctl reload"
    return "change that, then: brokerctl reload"


def fingerprint_of(settings: GrantSettings) -> str:
    """Blocking. Raises SecretUnreadable."""
    return fingerprint(settings.provider.dialect.identity(GrantView(_identifying(settings), settings.settings)))


def admit(broker: Broker, held: HeldGrant, printed: str | SecretUnreadable, rows: Sequence[Stored]) -> Changes:
    """Take in a grant whose secrets could not be read when the configuration was read."""
    changes = Changes()
    taken = _hold(held.settings, held.provider, printed, rows, changes)
    broker.grants[held.name] = taken
    broker.flights.welcome(taken, 0.0)
    broker.tell_watchers(held.name)
    return changes


def _recall(held: HeldGrant) -> None:
    """Its provider knows again which password it refused, or may have: other grants may have the same."""
    record, passwords = held.record, held.provider.passwords
    if record.refused is not None and records.refuses_password(record):
        passwords.refuse(record.refused)
    if record.doubt is not None and record.doubt.times > passwords.times(record.doubt.password):
        passwords.doubt(held.name, record.doubt)


def _say_what_was_left(broker: Broker, held: HeldGrant, clock: Clock) -> None:
    """What the last run left behind, which it may have had no time to say."""
    record, about = held.record, held.about
    if record.uncertain is not None:
        broker.audit.warned("an exchange was interrupted", **about, since=wall_time(record.uncertain, clock.now()))
    if record.state is State.NEEDS_LOGIN and held.remedy:
        state = str(record.state)
        broker.audit.warned("a login is needed", **about, state=state, remedy=held.remedy, reason=record.error)


def _was_revoked(rows: Sequence[Stored]) -> bool:
    newest = next((row for row in rows if row.record is not None), None)
    return newest is not None and newest.record is not None and newest.record.state is State.REVOKED


def _renew_settings(
    broker: Broker, held: HeldGrant, settings: GrantSettings, provider: Provider, changes: Changes
) -> None:
    """A grant that stays keeps tokens and timers. Its secrets are read again when they are next needed, and what was
    misconfigured is looked at again."""
    is_changed = held.settings != settings
    if is_changed:
        changes.changed.append(held.name)
    held.settings, held.provider, held.credentials = settings, provider, None
    _recall(held)
    looked = records.look_again(held.record, starting=False)
    if looked is not held.record and held.flight is None:
        held.record, held.attempted = looked, None
        is_changed = True
    if is_changed:
        broker.flights.welcome(held, 0.0)


def _let_go(
    broker: Broker, before: Mapping[str, HeldGrant], rows: Mapping[str, list[Stored]], changes: Changes
) -> None:
    """Grants that vanished: their records lie dormant, sealed and unserved (law 14)."""
    for name, held in before.items():
        if name not in broker.grants:
            changes.removed.append(name)
            broker.flights.schedule.set(name, None)
            broker.tell_watchers(name)
        if broker.grants.get(name) is not held:
            if held.flight is not None or held.unstored or held.is_changing:
                broker.flights.leaving[name, held.fingerprint] = held
            changes.aside.append((name, held.fingerprint))
    for name, found in rows.items():
        if name not in broker.grants and name not in before:
            changes.aside.extend((row.grant, row.fingerprint) for row in found if row.dormant_since is None)


async def sweep_dormant(store: Store, clock: Clock, audit: Audit) -> None:
    """Delete what has lain dormant for 30 days (law 14), but not what says that a grant was revoked (law 10)."""
    now = clock.now().wall
    try:
        for row in await store.dormant():
            old = row.dormant_since is not None and now - row.dormant_since > DORMANT_LONGEST
            if old and not (row.record and row.record.state is State.REVOKED):
                await store.forget(row.grant, row.fingerprint)
                audit.said("a dormant record was deleted", grant=row.grant)
    except StoreError as error:
        audit.warned("dormant records were not looked at", reason=str(error))

# Applies a configuration to a running broker, all or nothing (law 14): steps that can fail come first and change
# nothing; then everything changes at once, without an await. The start is a reload of an empty broker.
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from brokerd.broker.broker import TokenBroker
from brokerd.broker.grant_registry import GrantRegistry
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.provider import Provider
from brokerd.config.settings import Configuration, GrantSettings, ProviderSettings
from brokerd.core.events import Event
from brokerd.core.exchange import health
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.grant import attempts
from brokerd.core.grant import record as records
from brokerd.core.grant.advice import cause_of
from brokerd.core.grant.record import Record
from brokerd.core.grant.state import State
from brokerd.core.ports import Clock, Entropy, Http, Store, StoredRecord, StoreError
from brokerd.core.sealing import fingerprint
from brokerd.core.timing.breaker import Breaker
from brokerd.core.timing.moment import Moment, wall_time
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.recipe.dialect import IDENTIFYING
from brokerd.edge.files.secret_sources import SecretUnreadable, read_secret
from brokerd.telemetry.event_log import EventLog, utc

DORMANT_LONGEST = 30 * 86_400.0  # seconds for which the records of vanished grants are kept (law 14)
NOTHING_KNOWN: Mapping[str, Metadata] = {}
SPREAD_AT_START = 60.0  # seconds over which renewals that are due at start-up are spread (law 7)


@dataclass(slots=True)
class Changes:
    """Grant names, sorted. `tables`: other tables that have changed; `later`: those that take effect at the next start.
    `unreadable`: grants with a secret file that cannot be read, why, and what happens then.
    `dormant`: (grant, fingerprint) of records that belong to no configured grant any more; `active`: of those that
    belong to one again."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    dormant: list[tuple[str, str]] = field(default_factory=list)
    active: list[tuple[str, str]] = field(default_factory=list)


def fingerprints(configuration: Configuration) -> dict[str, str | SecretUnreadable]:
    """Each grant's fingerprint (law 15). Blocking: credentials that identify it may be in files."""
    found: dict[str, str | SecretUnreadable] = {}
    for name, settings in configuration.grants.items():
        try:
            found[name] = fingerprint_of(settings)
        except SecretUnreadable as error:
            found[name] = error
    return found


def apply(
    broker: TokenBroker,
    configuration: Configuration,
    fingerprints: Mapping[str, str | SecretUnreadable],
    stored: list[StoredRecord],
    breakers: Mapping[str, Breaker],
    providers: dict[str, Provider],
    new_client: Callable[[ProviderSettings], Http],
    clock: Clock,
    entropy: Entropy,
    *,
    starting: bool,
    metadata: Mapping[str, Metadata] = NOTHING_KNOWN,
) -> tuple[Changes, list[Http]]:
    """Make the configuration the broker's own. `stored` has at least the records of grants that are new, and is used
    up, because there may be a hundred thousand; `providers` is changed in place. The registry's `reading` must have
    begun before the records were read. Returns what changed, and the HTTP clients that are no longer used. Raises
    Failure if brokerd was locked while files were read: a reload must not unlock it."""
    if broker.locked and not starting:
        raise broker.locked_failure()

    def made(settings: ProviderSettings) -> Provider:
        name, http = settings.name, new_client(settings)
        return Provider(settings, http, breakers.get(name, Breaker()), clock, entropy, metadata.get(name))

    changes, unused = Changes(), _apply_providers(configuration, providers, made, new_client)
    rows: dict[str, list[StoredRecord]] = {}
    stored.reverse()
    while stored:
        rows.setdefault((row := stored.pop()).grant, []).append(row)
    before, grants = broker.grants, dict[str, LiveGrant]()
    for name, settings in configuration.grants.items():
        identity = fingerprints[name]
        back = None if isinstance(identity, SecretUnreadable) else broker.registry.take_back(name, identity)
        grant = back or before.get(name)
        if back is not None:  # when it left, its record was marked and its renewals ended
            changes.active.append((name, back.fingerprint))
            broker.single_flight.admit(back, 0.0)
        if grant is not None and grant.fingerprint == identity:
            grants[name] = grant
            _update(broker, grant, settings, providers[settings.provider.name], changes)
            continue
        grant = _new_grant(settings, providers[settings.provider.name], identity, rows.pop(name, []), changes)
        grants[name] = grant
        (changes.changed if name in before else changes.added).append(name)
        if grant.record.access_token is not None and not settings.pace.on_demand:
            grant.provider.load.note(grant.record.access_token, settings.pace.lifetime, clock.now())
        if starting:
            _report_last_run(broker, grant, clock)
        spread = SPREAD_AT_START * entropy.fraction() if starting and grant.stored is not None else 0.0
        broker.single_flight.admit(grant, spread)
    broker.registry.replace(grants)
    _tell_providers(providers, grants.values(), starting=starting)
    broker.repair.start_if_needed()
    _note_removed(broker, before, rows, changes)
    for names in (changes.added, changes.changed, changes.removed):
        names.sort()
    return changes, unused


def _apply_providers(
    configuration: Configuration,
    providers: dict[str, Provider],
    made: Callable[[ProviderSettings], Provider],
    new_client: Callable[[ProviderSettings], Http],
) -> list[Http]:
    unused = []
    for name, settings in configuration.providers.items():
        if (known := providers.get(name)) is None:
            providers[name] = made(settings)
        elif known.settings != settings:
            unused.append(known.http)
            known.reconfigured(settings, new_client(settings))
    vanished = [providers.pop(name).http for name in providers.keys() - configuration.providers.keys()]
    return unused + vanished


def _new_grant(
    settings: GrantSettings,
    provider: Provider,
    identity: str | SecretUnreadable,
    rows: Sequence[StoredRecord],
    changes: Changes,
) -> LiveGrant:
    """A grant that is new here, with the record that the store has for exactly this configuration."""
    if isinstance(identity, SecretUnreadable):
        grant = LiveGrant(settings, provider, "", None)
        grant.blocked = f"its credentials cannot be read: {identity}; {_remedy(settings)}"
        grant.lacks_secret = any(source.file is not None for _, source in settings.sources)
        return grant
    mine = next((row for row in rows if row.fingerprint == identity), None)
    changes.dormant.extend((r.grant, r.fingerprint) for r in rows if r is not mine and r.dormant_since is None)
    grant = LiveGrant(settings, provider, identity, mine.record if mine else None)
    if mine is not None and mine.unstored:
        grant.stored, grant.unstored = mine.replaces, True
    grant.history = mine.history if mine else b""
    grant.record = attempts.configuration_read(grant.record, starting=True)
    _restore_passwords(grant)
    if mine is None:
        if _was_revoked(rows):  # revocation is final: a change of the configuration does not end it (law 10)
            grant.record = Record(settings.name, state=State.REVOKED)
    elif mine.damage:
        grant.damaged = True
        grant.blocked = (
            f"its stored record cannot be opened: {mine.damage}; nothing was overwritten: restore the state directory, "
            f"or give the record up: brokerctl forget {settings.name}"
        )
    elif mine.dormant_since is not None:
        changes.active.append((mine.grant, mine.fingerprint))
    return grant


def _remedy(settings: GrantSettings) -> str:
    if any(source.file is not None for _, source in settings.sources):
        return "brokerd tries again by itself when its files can be read; after any other change: brokerctl reload"
    return "to fix: change that, then: brokerctl reload"


def without_secret(grant: LiveGrant, now: Moment) -> str:
    """What happens to a grant while one of its secret files cannot be read."""
    token = None if grant.in_credentials else grant.serves(now)
    if token is None:
        return "it serves nothing until the file can be read, which brokerd notices by itself"
    until = "" if token.expires is None else f" until it expires ({utc(wall_time(token.expires, now))})"
    return f"its token is served{until}, and cannot be renewed before the file can be read"


def fingerprint_of(settings: GrantSettings) -> str:
    """Blocking. Raises SecretUnreadable."""
    sources = settings.credentials
    identifying = {name: read_secret(source) for name, source in sources.items() if name in IDENTIFYING}
    view = GrantView(identifying, settings.settings, sources=sources)
    return fingerprint(settings.provider.dialect.identity(view))


def admit(
    broker: TokenBroker, grant: LiveGrant, identity: str | SecretUnreadable, rows: Sequence[StoredRecord]
) -> Changes:
    """Add a grant whose secrets could not be read when the configuration was read. `rows`: as in `apply`."""
    changes = Changes()
    taken = None if isinstance(identity, SecretUnreadable) else broker.registry.take_back(grant.name, identity)
    if taken is None:
        taken = _new_grant(grant.settings, grant.provider, identity, rows, changes)
    else:  # it left while its secrets could not be read
        taken.configure(grant.settings, grant.provider)
        changes.active.append((taken.name, taken.fingerprint))
    broker.registry.replace_one(taken)
    broker.single_flight.admit(taken, 0.0)
    broker.tell_watchers(grant.name)
    return changes


def _restore_passwords(grant: LiveGrant) -> None:
    """Its provider learns again which password was refused, or may have been: other grants may use the same one."""
    record, passwords = grant.record, grant.provider.passwords
    if record.refused is not None and records.refuses_password(record):
        passwords.refuse(record.refused)
    if record.doubt is not None and record.doubt.times > passwords.times(record.doubt.password):
        passwords.doubt(grant.name, record.doubt)


def _tell_providers(providers: Mapping[str, Provider], grants: Iterable[LiveGrant], *, starting: bool) -> None:
    """How many grants each has, and at a start, since when it fails."""
    used = Counter(each.provider.name for each in grants)
    for name, provider in providers.items():
        provider.grants = used[name]
    if starting:
        _restore_health(grants)


def _restore_health(grants: Iterable[LiveGrant]) -> None:
    """Since when each provider fails is not stored, but since when its grants do: status and log go on with that."""
    by_provider: dict[str, list[LiveGrant]] = {}
    for grant in grants:
        by_provider.setdefault(grant.provider.name, []).append(grant)
    for found in by_provider.values():
        records = [grant.record for grant in found]
        last_ok = max((each.access_token.issued.wall for each in records if each.access_token), default=0.0)
        failing = [(each.failing_since, each) for each in records if each.failing_since is not None]
        known = [(since, cause) for since, each in failing if (cause := cause_of(each)) is not None]
        found[0].provider.health = health.restored(known, last_ok)


def _report_last_run(broker: TokenBroker, grant: LiveGrant, clock: Clock) -> None:
    """Report what the last run of brokerd ended with, and may not have reported."""
    record, about = grant.record, grant.about
    if record.uncertain is not None:
        broker.events.say(Event.EXCHANGE_INTERRUPTED, **about, since=utc(wall_time(record.uncertain, clock.now())))
    if record.state is State.NEEDS_LOGIN and grant.remedy:
        state = str(record.state)
        broker.events.say(Event.GRANT_NEEDS_LOGIN, **about, state=state, remedy=grant.remedy, reason=record.error)


def _was_revoked(rows: Sequence[StoredRecord]) -> bool:
    newest = next((row for row in rows if row.record is not None), None)
    return newest is not None and newest.record is not None and newest.record.state is State.REVOKED


def _update(
    broker: TokenBroker, grant: LiveGrant, settings: GrantSettings, provider: Provider, changes: Changes
) -> None:
    """A grant that stays keeps tokens and timers. Its secrets are read again when they are next needed, and a
    misconfigured grant is tried again."""
    is_changed = grant.settings != settings
    if is_changed:
        changes.changed.append(grant.name)
    grant.configure(settings, provider)
    _restore_passwords(grant)
    is_changed = (grant.running is None and grant.try_again()) or is_changed or grant.in_credentials
    if is_changed:
        broker.single_flight.admit(grant, 0.0)


def _note_removed(
    broker: TokenBroker, before: Mapping[str, LiveGrant], rows: Mapping[str, list[StoredRecord]], changes: Changes
) -> None:
    """Grants that were removed: their records stay in the store, dormant and unserved (law 14)."""
    for name, grant in before.items():
        if name not in broker.grants:
            changes.removed.append(name)
            broker.schedule.remove(name)
            broker.tell_watchers(name)
        if not broker.registry.holds(grant):
            changes.dormant.append((name, grant.fingerprint))
    for name, found in rows.items():
        if name not in broker.grants and name not in before:
            changes.dormant.extend((row.grant, row.fingerprint) for row in found if row.dormant_since is None)


async def sweep_dormant(store: Store, registry: GrantRegistry, clock: Clock, events: EventLog) -> None:
    """Delete records that were dormant for 30 days (law 14), but never the record of a revocation, or one that may be,
    because it cannot be opened (law 10), or one that a grant uses again."""
    now = clock.now().wall
    try:
        for row in await store.dormant():
            old = row.dormant_since is not None and now - row.dormant_since > DORMANT_LONGEST
            kept = row.record is None or row.record.state is State.REVOKED
            if old and not kept and not registry.may_use(row.grant, row.fingerprint):
                await store.forget(row.grant, row.fingerprint)
                events.say(Event.DORMANT_DELETED, grant=row.grant)
    except StoreError as error:
        events.say(Event.DORMANT_NOT_CHECKED, reason=str(error))

# Deliberate bugs in brokerd, each put in by replacing one function: the mutation check. A simulation that finds none of
# them would find nothing else either.
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from random import Random
from typing import Any

import trio

from brokerd import exchanger, reload, telling
from brokerd import held as held_grants
from brokerd.broker import Broker, Revocation
from brokerd.core import conclusions, moment, record, renewal, revocation, variants
from brokerd.core.outcome import Rejected
from brokerd.core.ports import StoreUnavailable
from brokerd.dialects import answer, body
from brokerd.dialects.oauth2 import answers
from brokerd.edge import backup, connection, data_keys, resealing, sealed_record, store, trail, unstored
from brokerd.edge.database import Database
from brokerd.exchanger import Exchanger
from brokerd.flights import Flights
from brokerd.held import HeldGrant
from brokerd.logins import Login, Logins
from brokerd.provider import Provider

Patch = tuple[object, str, Any]


@dataclass(frozen=True)
class Mutant:
    """A bug in words, and what has to be replaced for it: object, attribute, and the new one made from the old."""

    words: str
    patches: tuple[Patch, ...]


@contextlib.contextmanager
def mutated(name: str) -> Iterator[None]:
    """brokerd with that bug. What is to be replaced has to be there: a bug that is put nowhere proves nothing."""
    patches = MUTANTS[name].patches
    gone = [f"{place}.{attribute}" for place, attribute, _ in patches if not hasattr(place, attribute)]
    if gone:
        raise LookupError(f"the mutant {name} replaces what is no longer there: {', '.join(gone)}")
    before = [(place, attribute, getattr(place, attribute)) for place, attribute, _ in patches]
    try:
        for (place, attribute, make), (_, _, old) in zip(patches, before, strict=True):
            setattr(place, attribute, make(old))
        yield
    finally:
        for place, attribute, old in before:
            setattr(place, attribute, old)


def _serve_before_commit(old: Any) -> Any:
    async def change(self: HeldGrant, store: Any, step: Any, *, concludes: bool = False) -> Any:
        before = self.record
        if (changed := step(before)) is None:
            return None
        self.record = changed
        return await old(self, store, lambda now: changed if now is changed else step(now), concludes=concludes)

    return change


def _no_single_flight(old: Any) -> Any:
    def launch(self: Flights, held: HeldGrant, **how: Any) -> None:
        if held.flight is not None and held.record.state is record.State.RENEWING:
            held.record = replace(held.record, state=record.State.READY)
        old(self, held, **how)

    return launch


async def _wait_for_a_flight_of_ones_own(self: Flights, held: HeldGrant, wait: float, wanted: Any = None) -> None:
    with trio.move_on_after(wait):
        self.launch(held, for_caller=True, wanted=wanted)
        if held.flight is not None:
            await held.flight.done.wait()


def _ignore_generation(old: Any) -> Any:
    async def conclude(self: Any, held: HeldGrant, ending: Any) -> Any:
        if held.record.state is not record.State.REVOKED:
            ending = replace(ending, generation=held.record.generation)
            held.record = replace(held.record, state=record.State.RENEWING)
        return await old(self, held, ending)

    return conclude


async def _no_journal(*_: object) -> None:
    pass


def _forget_interruption(old: Any) -> Any:
    return lambda *values, interrupted, **named: old(*values, interrupted=False, **named)


def _serve_expired(old: Any) -> Any:
    def served(kept: record.Record, now: moment.Moment, min_ttl: float = 0.0) -> Any:
        return old(kept, now, min_ttl) or (None if kept.state is record.State.REVOKED else kept.access_token)

    return served


def _ignore_min_ttl(old: Any) -> Any:
    return lambda kept, now, min_ttl=0.0: old(kept, now)


def _undercut_retry_after(old: Any) -> Any:
    return lambda failures, asked, jitter, *longest: old(failures, None, jitter, *longest)


def _revoke_in_memory(old: Any) -> Any:
    async def revoke(self: Broker, name: str, *, wait: float = 10.0) -> Revocation:
        held = self.held(name)
        held.record = revocation.revoked(held.record, self.now())
        return Revocation(True, "told", "")

    return revoke


def _lose_unstored(old: Any) -> Any:
    async def change(self: HeldGrant, *values: Any, **named: Any) -> Any:
        changed = await old(self, *values, **named)
        self.unstored = False
        return changed

    return change


def _html_is_a_rejection(old: Any) -> Any:
    return lambda response, what, *_: Rejected(f"{what}: {response.status}")


def _keep_rejected(old: Any) -> Any:
    def rejected(kept: record.Record, *values: Any, **named: Any) -> record.Record:
        return replace(old(kept, *values, **named), refresh_token=kept.refresh_token, state=record.State.READY)

    return rejected


def _forget_the_journal_at_start(old: Any) -> Any:
    return lambda kept, *, interrupted: old(kept, interrupted=None)


def _drop_the_refresh_token(old: Any) -> Any:
    def issued(kept: record.Record, tokens: Any, *values: Any, **named: Any) -> record.Record:
        changed = old(kept, tokens, *values, **named)
        return changed if tokens.refresh_token else replace(changed, refresh_token=None)

    return issued


def _variant_becomes_own(old: Any) -> Any:
    def issued(
        kept: record.Record, wanted: Any, tokens: Any, at: Any, jitter: float, *values: Any, **named: Any
    ) -> Any:
        return replace(
            old(kept, wanted, tokens, at, jitter, *values, **named), access_token=record.new_access(tokens, at, jitter)
        )

    return issued


def _forget_what_a_refusal_used_up(old: Any) -> Any:
    return lambda kept, since, *, spent: old(kept, since, spent=False)


def _redraw_jitter(old: Any) -> Any:
    random = Random(0)

    def due(token: Any, unnamed: float, now: moment.Moment) -> float:
        return float(old(token and replace(token, jitter=random.random()), unnamed, now))

    return due


def _always_trust_the_clock(old: Any) -> Any:
    return lambda anchor, now: old(anchor, now._replace(trusted=True))


def _wall_clock_only(old: Any) -> Any:
    return lambda anchor, now: anchor.wall - now.wall


def _wall_clock_alive(old: Any) -> Any:
    def alive(token: Any, now: moment.Moment, min_ttl: float = 0.0) -> bool:
        return token is not None and (token.lifetime is None or token.issued.wall + token.lifetime - now.wall > min_ttl)

    return alive


def _never_told(old: Any) -> Any:
    async def tell(exchanger: Exchanger, held: HeldGrant) -> None:
        for token in held.record.doomed:
            await held.change(exchanger.store, lambda kept, token=token: revocation.told(kept, token))

    return tell


def _spend_in_a_copy(old: Any) -> Any:
    def allowed(self: Flights, held: HeldGrant, plan: Any, now: Any) -> Any:
        return None if plan is None or self.stopping or held.unstored else plan

    return allowed


def _journal_after_all(old: Any) -> Any:
    async def begin(self: Any, *values: Any) -> None:
        with contextlib.suppress(StoreUnavailable):  # a full disk must not stop the renewal
            await old(self, *values)

    return begin


def _a_reload_forgets(old: Any) -> Any:
    def renewed(broker: Any, held: HeldGrant, *values: Any) -> None:
        old(broker, held, *values)
        held.record = replace(held.record, interrupted=None, retry=None)

    return renewed


def _never_the_same(old: Any) -> Any:
    numbers = count()

    def sent(self: Exchanger, *values: Any) -> exchanger.Sent:
        found = old(self, *values)
        return replace(found, password=found.password and str(next(numbers)).encode())

    return sent


def _as_it_is(old: Any) -> Any:
    return lambda text, secrets=(): str(text)


def _not_synced(old: Any) -> Any:
    def open_(self: Database) -> None:
        old(self)
        self._connection.execute("PRAGMA synchronous=NORMAL")

    return open_


def _no_limit(old: Any) -> Any:
    def init(self: Provider, *values: Any) -> None:
        old(self, *values)
        self._limiter = trio.CapacityLimiter(1_000)

    return init


def _forget_the_held(old: Any) -> Any:
    return lambda self, stored: []


async def _lock_at_once(self: Flights) -> bool:
    """Exchanges go on while the keys go."""
    for name in list(self.grants):
        self.schedule.set(name, None)
    self.grants = {}
    return True


async def _rotate_nothing(*_: object) -> None:
    pass


def _reseal_nothing(old: Any) -> Any:
    def some(database: Any, keys: Any, current: int, after: Any) -> Any:
        return [((name, print_), True) for name, print_, *_ in database.rows_after(after, 100)]

    return some


def _drop_every_key(old: Any) -> Any:
    def retire(self: Any, database: Any, current: int, sealed: Any) -> list[int]:
        for key_id, *_ in database.data_keys():
            if key_id < current:
                database.delete_data_key(key_id)
        return []

    return retire


def _no_copy(old: Any) -> Any:
    return lambda self, inode: str(self._machine)


def _login_ends_all(old: Any) -> Any:
    def init(self: Login, *values: Any, **named: Any) -> None:
        old(self, *values, **named)
        self.was_revoked = True

    return init


def _impatient(old: Any) -> Any:
    return lambda self, spends: old(self, False)


def _numbers_alone(old: Any) -> Any:
    return lambda value: None if isinstance(value, str) else old(value)


def _drop_what_came(old: Any) -> Any:
    return lambda kept, *_: kept


def _forget_revocations(old: Any) -> Any:
    def put(self: Any, series: str, entry: Any) -> None:
        if entry.get("event") != "revoked":
            old(self, series, entry)

    return put


def _cancelled_with_its_caller() -> tuple[Patch, ...]:
    scopes: dict[object, trio.CancelScope] = {}

    def flying(old: Any) -> Any:
        async def fly(self: Flights, held: HeldGrant, flight: object, *values: Any) -> None:
            with trio.CancelScope() as scopes[flight]:
                await old(self, held, flight, *values)

        return fly

    def waiting(old: Any) -> Any:
        async def wait_for(self: Flights, held: HeldGrant, *values: Any) -> None:
            try:
                await old(self, held, *values)
            except trio.Cancelled:
                if held.flight in scopes:
                    scopes[held.flight].cancel()
                raise

        return wait_for

    return (Flights, "_fly", flying), (Flights, "wait_for", waiting)


def _constant(value: object) -> Callable[[Any], Any]:
    return lambda old: value


def _mutants() -> dict[str, Mutant]:
    def mutant(words: str, *patches: Patch) -> Mutant:
        return Mutant(words, patches)

    return {
        "serve-before-commit": mutant(
            "a new token is seen before it is durable", (HeldGrant, "change", _serve_before_commit)
        ),
        "retry-at-once": mutant(
            "an interrupted refresh token is sent again at once",
            (renewal, "risked_after", _constant(lambda *_: 0.0)),
            (exchanger, "risked_after", _constant(lambda *_: 0.0)),
        ),
        "no-single-flight": mutant(
            "every caller has an exchange of his own",
            (Flights, "launch", _no_single_flight),
            (Flights, "wait_for", _constant(_wait_for_a_flight_of_ones_own)),
        ),
        "variant-becomes-own": mutant(
            "a variant's token is taken for the grant's own", (variants, "issued", _variant_becomes_own)
        ),
        "forget-what-a-refusal-used-up": mutant(
            "a refused variant marks no interruption", (variants, "declined", _forget_what_a_refusal_used_up)
        ),
        "redraw-jitter": mutant("jitter is drawn at each look", (renewal, "_due", _redraw_jitter)),
        "ignore-generation": mutant(
            "an outcome moves whatever generation is there", (Exchanger, "_conclude", _ignore_generation)
        ),
        "drop-journal": mutant("nothing is journalled", (store.Store, "begin", _constant(_no_journal))),
        "journal-after-all": mutant(
            "a journal that cannot be written stops nothing", (store.Store, "begin", _journal_after_all)
        ),
        "forget-interruption": mutant(
            "a failure never marks an interruption", (record, "failed", _forget_interruption)
        ),
        "forget-journal-at-start": mutant(
            "a start does not look at the journal", (sealed_record, "reopened", _forget_the_journal_at_start)
        ),
        "serve-expired": mutant("an expired token is better than none", (held_grants, "served", _serve_expired)),
        "ignore-min-ttl": mutant("min_ttl is not looked at", (held_grants, "served", _ignore_min_ttl)),
        "undercut-retry-after": mutant(
            "Retry-After is not looked at", (conclusions, "retry_delay", _undercut_retry_after)
        ),
        "hammer": mutant("no backoff", (conclusions, "retry_delay", _constant(lambda *_: 0.0))),
        "revoke-in-memory": mutant("a revocation is not written", (Broker, "revoke", _revoke_in_memory)),
        "never-told": mutant("the provider is not told", (telling, "tell_revoked", _never_told)),
        "lose-unstored": mutant("what could not be stored is not marked", (HeldGrant, "change", _lose_unstored)),
        "html-is-a-rejection": mutant(
            "a captive portal's page ends the grant", (answer, "strange", _html_is_a_rejection)
        ),
        "keep-rejected": mutant("a rejected refresh token is kept", (record, "rejected", _keep_rejected)),
        "resend-refused-password": mutant(
            "a refused password is sent again",
            (Exchanger, "_sent", _never_the_same),
            (exchanger, "RECHECK", _constant(30.0)),
        ),
        "drop-refresh-token": mutant(
            "an answer without a refresh token takes the old one away", (record, "issued", _drop_the_refresh_token)
        ),
        "trust-the-clock": mutant(
            "the wall clock is believed after a reboot", (record, "seconds_until", _always_trust_the_clock)
        ),
        "wall-clock-only": mutant("a clock step moves expiries", (record, "alive", _wall_clock_alive)),
        "spend-in-a-copy": mutant("a copied store spends", (Flights, "_allowed", _spend_in_a_copy)),
        "not-synced": mutant("a commit returns before it is on the disk", (Database, "_open", _not_synced)),
        "echo-secrets": mutant("what a provider says is said as it is", (answers, "reason", _as_it_is)),
        "no-concurrency-limit": mutant("a provider gets all requests at once", (Provider, "__init__", _no_limit)),
        "forget-what-systemd-holds": mutant(
            "what systemd held is not looked at", (unstored.Unstored, "taken", _forget_the_held)
        ),
        "lock-at-once": mutant("a lock waits for no exchange", (Flights, "emptied", _constant(_lock_at_once))),
        "rotate-nothing": mutant(
            "a rotation leaves the data keys as they are", (store.Store, "rewrap", _constant(_rotate_nothing))
        ),
        "retire-too-soon": mutant(
            "old data keys go while something is sealed under them",
            (resealing, "some_records", _reseal_nothing),
            (data_keys.DataKeys, "retire", _drop_every_key),
        ),
        "restored-is-adopted": mutant(
            "a restored store counts as this machine's own",
            (store.Store, "_identity_of", _no_copy),
            (backup, "OLDER", lambda old: "machine-1"),
            (store, "OLDER", lambda old: "machine-1"),
        ),
        "login-ends-a-revocation": mutant(
            "a login ends a revocation that came while the person was busy",
            (Login, "__init__", _login_ends_all),
            (Logins, "end", _constant(lambda *_: None)),
        ),
        "strict-json": mutant(
            "tokens are read in RFC 6749's own form only",
            (body, "_form", _constant(lambda _: None)),
            (body, "wrapped", _constant(lambda _: None)),
        ),
        "drop-what-came": mutant(
            "a refresh token goes with the answer that cannot be used", (conclusions, "_rescued", _drop_what_came)
        ),
        "believe-one-rejection": mutant(
            "the first rejection of a refresh token is believed",
            (conclusions, "confirmed_in", _constant(lambda *_: None)),
        ),
        "give-up-slow-answers": mutant(
            "an answer that may bring a new refresh token is waited for one minute",
            (connection.HttpSettings, "patience", _impatient),
        ),
        "numbers-alone": mutant("an expires_in that is text says nothing", (answer, "number", _numbers_alone)),
        "dead-at-once": mutant(
            "a token that comes dead is a success, and the next one is asked for at once",
            (conclusions, "_unless_dead", _constant(lambda changed, *_: changed)),
        ),
        "doubt-nothing": mutant(
            "a password is sent again by ordinary backoff after a refusal in the server's own form",
            (conclusions, "doubted_delay", _constant(lambda *_: 1.0)),
            (exchanger, "doubted_delay", _constant(lambda *_: 1.0)),
        ),
        "silent-about-clocks": mutant(
            "a refusal by another clock does not say so", (answer, "skew", _constant(lambda _: ""))
        ),
        "audit-without-revocations": mutant(
            "a revocation that is answered is not in the audit log", (trail.Trail, "_put", _forget_revocations)
        ),
        "cancel-with-caller": mutant("a caller who leaves ends the exchange", *_cancelled_with_its_caller()),
        "reload-forgets": mutant(
            "a reload lets go what held a grant back", (reload, "_renew_settings", _a_reload_forgets)
        ),
    }


MUTANTS = _mutants()

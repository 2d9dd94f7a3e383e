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
from msgspec import Struct, structs

from brokerd.broker import exchanges, live_grant, reload, revocations, send_guard
from brokerd.broker.broker import Revocation, TokenBroker
from brokerd.broker.exchanges import ExchangeRunner
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.logins import Login, Logins
from brokerd.broker.planner import ExchangePlanner
from brokerd.broker.provider import Provider
from brokerd.broker.single_flight import SingleFlight
from brokerd.broker.waiting import TokenWait
from brokerd.core.exchange.outcomes import Rejected
from brokerd.core.grant import (
    conclusions,
    downscoped,
    failures,
    issuance,
    record,
    renewal,
    repeated_request,
    revocation,
    tokens,
)
from brokerd.core.grant.tokens import new_access_token
from brokerd.core.ports import StoreUnavailable
from brokerd.core.timing import moment
from brokerd.dialects import answer_body, answer_outcomes, answer_values
from brokerd.dialects.oauth2 import outcomes
from brokerd.edge.audit import writer
from brokerd.edge.http import connection
from brokerd.edge.store import backup, data_keys, resealing, sealed_record, store, unwritten_records
from brokerd.edge.store.database import Database
from brokerd.server import short_way

Patch = tuple[object, str, Any]


@dataclass(frozen=True)
class Mutant:
    """A bug in words, and what has to be replaced for it: object, attribute, and the new one made from the old."""

    words: str
    patches: tuple[Patch, ...]


@contextlib.contextmanager
def mutated(mutant: Mutant | str) -> Iterator[None]:
    """brokerd with that bug. What is to be replaced has to be there: a bug that is put nowhere proves nothing."""
    name, patches = (mutant, MUTANTS[mutant].patches) if isinstance(mutant, str) else (mutant.words, mutant.patches)
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
    async def change(self: LiveGrant, store: Any, step: Any, *ended: Any, **named: Any) -> Any:
        before = self.record
        if (changed := step(before)) is None:
            return None
        self.record = changed
        return await old(self, store, lambda now: changed if now is changed else step(now), *ended, **named)

    return change


async def _wait_for_an_exchange_of_ones_own(
    self: Any, grant: LiveGrant, wait: float, target: Any = None, has: Any = None
) -> None:
    del has
    with trio.move_on_after(wait):
        if grant.running is not None and grant.record.state is record.State.RENEWING:
            grant.record = replace(grant.record, state=record.State.READY)
        plan = self._planner.towards(grant, target, self._clock.now())
        if plan is not None and plan.delay <= 0:
            self._single_flight.begin(grant, plan)
        if grant.running is not None:
            await grant.running.done.wait()


def _ignore_generation(old: Any) -> Any:
    async def conclude(self: Any, grant: LiveGrant, ending: Any) -> Any:
        if grant.record.state is not record.State.REVOKED:
            ending = replace(ending, generation=grant.record.generation)
            grant.record = replace(grant.record, state=record.State.RENEWING)
        return await old(self, grant, ending)

    return conclude


async def _no_journal(*_: object) -> None:
    pass


def _forget_interruption(old: Any) -> Any:
    return lambda *values, interrupted, **named: old(*values, interrupted=False, **named)


def _whatever_was_made(_old: Any) -> Any:
    def find(self: Any, name: str, *_: object) -> bytes | None:
        made, grant = self._made.get((name, b"")), self._registry.grants.get(name)
        lives = made is not None and grant is not None and grant.serves(self._now()) is not None
        return made.result if lives and not self._broker.locked else None

    return find


def _keep_fields(old: Any) -> Any:
    def kept(brought: Any, wanted: Any, find: Any, what: str) -> Any:
        return old(brought, wanted, lambda name: None if name in wanted.kept else find(name), what)

    return kept


def _serve_expired(old: Any) -> Any:
    def served(kept: record.Record, now: moment.Moment, min_ttl: float = 0.0) -> Any:
        return old(kept, now, min_ttl) or (None if kept.state is record.State.REVOKED else kept.access_token)

    return served


def _ignore_min_ttl(old: Any) -> Any:
    return lambda kept, now, min_ttl=0.0: old(kept, now)


def _undercut_retry_after(old: Any) -> Any:
    return lambda failures, asked, jitter, *longest: old(failures, None, jitter, *longest)


def _revoke_in_memory(old: Any) -> Any:
    async def revoke(self: TokenBroker, name: str, *, wait: float = 10.0) -> Revocation:
        grant = self.grant(name)
        grant.record = revocation.revoked(grant.record, self.now())
        return Revocation(True, "told", "")

    return revoke


def _lose_unstored(old: Any) -> Any:
    async def change(self: LiveGrant, *values: Any, **named: Any) -> Any:
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
            old(kept, wanted, tokens, at, jitter, *values, **named), access_token=new_access_token(tokens, at, jitter)
        )

    return issued


def _forget_what_a_refusal_used_up(old: Any) -> Any:
    return lambda kept, since, *, sent_stored: old(kept, since, sent_stored=False)


def _redraw_jitter(old: Any) -> Any:
    random = Random(0)

    def due(token: Any, unnamed: float, now: moment.Moment) -> float:
        redrawn = structs.replace if isinstance(token, Struct) else replace
        return float(old(token and redrawn(token, jitter=random.random()), unnamed, now))

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
    async def tell(runner: ExchangeRunner, grant: LiveGrant) -> None:
        for token in grant.record.pending_revocations:
            await grant.change(runner.store, lambda kept, token=token: revocation.provider_told(kept, token))

    return tell


def _spend_in_a_copy(old: Any) -> Any:
    def permitted(self: ExchangePlanner, grant: LiveGrant, plan: Any, now: Any) -> Any:
        return None if plan is None or self.stopping or grant.unstored else plan

    return permitted


def _journal_after_all(old: Any) -> Any:
    async def begin(self: Any, *values: Any) -> None:
        with contextlib.suppress(StoreUnavailable):  # a full disk must not stop the renewal
            await old(self, *values)

    return begin


def _a_reload_forgets(old: Any) -> Any:
    def renewed(broker: Any, grant: LiveGrant, *values: Any) -> None:
        old(broker, grant, *values)
        grant.record = replace(grant.record, interrupted=None, retry=None)

    return renewed


def _never_the_same(old: Any) -> Any:
    numbers = count()

    def sent(self: ExchangeRunner, *values: Any) -> exchanges.Sent:
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


async def _lock_at_once(self: SingleFlight) -> bool:
    """Exchanges go on while the keys go."""
    for name in self._registry.empty():
        self._schedule.remove(name)
    self._registry.forget_leaving()
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
        self.ends_revocation = True

    return init


def _impatient(old: Any) -> Any:
    return lambda self, sends_stored: old(self, False)


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

    def running(old: Any) -> Any:
        async def run(self: SingleFlight, grant: LiveGrant, exchange: object, *values: Any) -> None:
            with trio.CancelScope() as scopes[exchange]:
                await old(self, grant, exchange, *values)

        return run

    def waiting(old: Any) -> Any:
        async def wait_for(self: TokenWait, grant: LiveGrant, *values: Any, **named: Any) -> None:
            try:
                await old(self, grant, *values, **named)
            except trio.Cancelled:
                if grant.running in scopes:
                    scopes[grant.running].cancel()
                raise

        return wait_for

    return (SingleFlight, "_run", running), (TokenWait, "wait_for", waiting)


def _constant(value: object) -> Callable[[Any], Any]:
    return lambda old: value


def _mutants() -> dict[str, Mutant]:
    def mutant(words: str, *patches: Patch) -> Mutant:
        return Mutant(words, patches)

    return {
        "serve-before-commit": mutant(
            "a new token is seen before it is durable", (LiveGrant, "change", _serve_before_commit)
        ),
        "retry-at-once": mutant(
            "an interrupted refresh token is sent again at once",
            (renewal, "sent_again_after", _constant(lambda *_: 0.0)),
            (send_guard, "sent_again_after", _constant(lambda *_: 0.0)),
        ),
        "no-single-flight": mutant(
            "every caller has an exchange of his own",
            (TokenWait, "wait_for", _constant(_wait_for_an_exchange_of_ones_own)),
        ),
        "variant-becomes-own": mutant(
            "a variant's token is taken for the grant's own", (downscoped, "issued", _variant_becomes_own)
        ),
        "forget-what-a-refusal-used-up": mutant(
            "a refused variant marks no interruption", (downscoped, "declined", _forget_what_a_refusal_used_up)
        ),
        "redraw-jitter": mutant("jitter is drawn at each look", (renewal, "due_in", _redraw_jitter)),
        "ignore-generation": mutant(
            "an outcome moves whatever generation is there", (ExchangeRunner, "_conclude", _ignore_generation)
        ),
        "drop-journal": mutant("nothing is journalled", (store.SqliteStore, "begin", _constant(_no_journal))),
        "journal-after-all": mutant(
            "a journal that cannot be written stops nothing", (store.SqliteStore, "begin", _journal_after_all)
        ),
        "forget-interruption": mutant(
            "a failure never marks an interruption", (failures, "failed", _forget_interruption)
        ),
        "forget-journal-at-start": mutant(
            "a start does not look at the journal", (sealed_record, "reopened", _forget_the_journal_at_start)
        ),
        "serve-expired": mutant("an expired token is better than none", (live_grant, "served", _serve_expired)),
        "ignore-min-ttl": mutant("min_ttl is not looked at", (live_grant, "served", _ignore_min_ttl)),
        "undercut-retry-after": mutant(
            "Retry-After is not looked at", (conclusions, "retry_delay", _undercut_retry_after)
        ),
        "hammer": mutant("no backoff", (conclusions, "retry_delay", _constant(lambda *_: 0.0))),
        "revoke-in-memory": mutant("a revocation is not written", (TokenBroker, "revoke", _revoke_in_memory)),
        "never-told": mutant("the provider is not told", (revocations, "revoke_pending", _never_told)),
        "lose-unstored": mutant("what could not be stored is not marked", (LiveGrant, "change", _lose_unstored)),
        "html-is-a-rejection": mutant(
            "a captive portal's page ends the grant", (answer_outcomes, "strange", _html_is_a_rejection)
        ),
        "keep-rejected": mutant("a rejected refresh token is kept", (failures, "rejected", _keep_rejected)),
        "resend-refused-password": mutant(
            "a refused password is sent again",
            (ExchangeRunner, "_sent", _never_the_same),
            (repeated_request, "RECHECK", _constant(30.0)),
        ),
        "drop-refresh-token": mutant(
            "an answer without a refresh token takes the old one away", (issuance, "issued", _drop_the_refresh_token)
        ),
        "trust-the-clock": mutant(
            "the wall clock is believed after a reboot", (tokens, "seconds_until", _always_trust_the_clock)
        ),
        "wall-clock-only": mutant(
            "a clock step moves expiries", (record, "alive", _wall_clock_alive), (tokens, "alive", _wall_clock_alive)
        ),
        "spend-in-a-copy": mutant("a copied store spends", (ExchangePlanner, "_permitted", _spend_in_a_copy)),
        "not-synced": mutant("a commit returns before it is on the disk", (Database, "_open", _not_synced)),
        "echo-secrets": mutant("what a provider says is said as it is", (outcomes, "reason", _as_it_is)),
        "no-concurrency-limit": mutant("a provider gets all requests at once", (Provider, "__init__", _no_limit)),
        "forget-what-systemd-holds": mutant(
            "what systemd held is not looked at", (unwritten_records.Unstored, "taken", _forget_the_held)
        ),
        "lock-at-once": mutant("a lock waits for no exchange", (SingleFlight, "empty", _constant(_lock_at_once))),
        "rotate-nothing": mutant(
            "a rotation leaves the data keys as they are", (store.SqliteStore, "rewrap", _constant(_rotate_nothing))
        ),
        "retire-too-soon": mutant(
            "old data keys go while something is sealed under them",
            (resealing, "some_records", _reseal_nothing),
            (data_keys.DataKeys, "retire", _drop_every_key),
        ),
        "restored-is-adopted": mutant(
            "a restored store counts as this machine's own",
            (store.SqliteStore, "_identity_of", _no_copy),
            (backup, "OLDER", lambda old: "machine-1"),
            (store, "OLDER", lambda old: "machine-1"),
        ),
        "login-ends-a-revocation": mutant(
            "a login ends a revocation that came while the person was busy",
            (Login, "__init__", _login_ends_all),
            (Logins, "grant_revoked", _constant(lambda *_: None)),
        ),
        "strict-json": mutant(
            "tokens are read in RFC 6749's own form only",
            (answer_body, "_form", _constant(lambda _: None)),
            (answer_body, "wrapped", _constant(lambda _: None)),
        ),
        "drop-what-came": mutant(
            "a refresh token goes with the answer that cannot be used",
            (conclusions, "_with_saved_token", _drop_what_came),
        ),
        "believe-one-rejection": mutant(
            "the first rejection of a refresh token is believed",
            (conclusions, "confirmed_in", _constant(lambda *_: None)),
        ),
        "give-up-slow-answers": mutant(
            "an answer that may bring a new refresh token is waited for one minute",
            (connection.HttpSettings, "timeouts", _impatient),
        ),
        "fields-of-the-last": mutant(
            "a renewed token has the fields of the one before", (outcomes, "with_fields", _keep_fields)
        ),
        "short-way-ignores-renewals": mutant(
            "an answer that was made before a renewal is given after it",
            (short_way.MadeAnswers, "find", _whatever_was_made),
        ),
        "show-fields": mutant(
            "an error shows the fields that came with a failure",
            (outcomes, "hiding", _constant(lambda request, *_: request)),
        ),
        "numbers-alone": mutant("an expires_in that is text says nothing", (answer_values, "number", _numbers_alone)),
        "dead-at-once": mutant(
            "a token that comes dead is a success, and the next one is asked for at once",
            (conclusions, "_unless_dead", _constant(lambda changed, *_: changed)),
        ),
        "doubt-nothing": mutant(
            "a password is sent again by ordinary backoff after a refusal in the server's own form",
            (conclusions, "doubted_delay", _constant(lambda *_: 1.0)),
            (exchanges, "doubted_delay", _constant(lambda *_: 1.0)),
        ),
        "silent-about-clocks": mutant(
            "a refusal by another clock does not say so", (answer_outcomes, "skew", _constant(lambda _: ""))
        ),
        "audit-without-revocations": mutant(
            "a revocation that is answered is not in the audit log", (writer.AuditWriter, "_put", _forget_revocations)
        ),
        "cancel-with-caller": mutant("a caller who leaves ends the exchange", *_cancelled_with_its_caller()),
        "reload-forgets": mutant("a reload lets go what held a grant back", (reload, "_update", _a_reload_forgets)),
    }


MUTANTS = _mutants()

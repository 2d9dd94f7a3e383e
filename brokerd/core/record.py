# What is kept of a grant, and how each event changes it: a frozen value and pure functions from record to record.
# It knows nothing of exchanges, stores or callers; when something is due is core/renewal.py's matter.
from __future__ import annotations

from dataclasses import dataclass, replace

from brokerd.core.grant import Event, State, move
from brokerd.core.moment import Moment, seconds_until
from brokerd.core.outcome import Token, Tokens
from brokerd.core.secret import Secret
from brokerd.core.wanted import Wanted

OUTLIVED_MOST = 48  # replaced tokens that are remembered; callers can bring 3 forward in a lifetime, of each variant
VARIANTS_MOST = 16  # of a grant; a record is sealed and written whole


@dataclass(frozen=True, slots=True, weakref_slot=True)
class AccessToken:
    """A token that is served. `lifetime` is in seconds as issued, None where the provider named none; `jitter`
    is drawn once, when it was issued, and stays with it (law 6). `odd`: what is hard to believe of the lifetime."""

    value: Secret
    token_type: str
    issued: Moment
    lifetime: float | None
    jitter: float
    id: str | None = None
    scope: tuple[str, ...] | None = None
    odd: str | None = None

    @property
    def expires(self) -> Moment | None:
        return None if self.lifetime is None else self.issued.after(self.lifetime)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """The long-lived token that access tokens are got with; the fields are as those of AccessToken. `kept`: a renewal
    was seen to leave it as it is, so that renewing cannot meet its end. Where a provider has but one token, which a
    renewal extends, it is both. `restore`: what the grant's own next token has to name, because a variant was got with
    this one and a server may have narrowed it by that. `rejected`: when the provider rejected it for the first time;
    that is confirmed by one more try (law 4)."""

    value: Secret
    issued: Moment
    lifetime: float | None
    jitter: float
    id: str | None = None
    kept: bool = False
    restore: Wanted | None = None
    rejected: Moment | None = None

    @property
    def expires(self) -> Moment | None:
        return None if self.lifetime is None else self.issued.after(self.lifetime)


@dataclass(frozen=True, slots=True)
class Variant:
    """A token of the grant for something else than its own. `asked`: what the grant's own were asked for at that time;
    `used`: when somebody last wanted it, which is stored with the next change only."""

    wanted: Wanted
    access_token: AccessToken
    asked: str
    used: Moment


@dataclass(frozen=True, slots=True)
class Doomed:
    """A token that the provider has still to be told to revoke (law 10)."""

    access_token: AccessToken | None = None
    refresh_token: RefreshToken | None = None

    @property
    def kind(self) -> str:
        """In words."""
        return "access token" if self.access_token else "refresh token"

    @property
    def expires(self) -> Moment | None:
        token = self.access_token or self.refresh_token
        return token.expires if token else None


@dataclass(frozen=True, slots=True)
class Survivor:
    """A token of a revoked grant that its provider cannot or shall not be told of: it lives on there."""

    kind: str  # in words
    expires: Moment | None


@dataclass(frozen=True, slots=True)
class Earlier:
    """The refresh token before the present one, which came with an answer that says of itself that it failed (law 3):
    nobody knows which of the two the provider stored. `interrupted`: since when this one may be used up."""

    token: RefreshToken
    interrupted: Moment


@dataclass(frozen=True, slots=True)
class Doubt:
    """A password that was sent and perhaps refused, `times` in a row: it is not sent again before `until` (law 7).
    `password` and `request` are digests of the credentials, and of all that the request was made of."""

    password: bytes
    request: bytes
    times: int
    until: Moment


@dataclass(frozen=True, slots=True)
class Record:
    """A grant as it is stored, sealed, in one piece: law 2 wants refresh and access token in one transaction.

    `generation` rises with every change of the tokens, and every write names the one that it replaces.
    `variants` have the last used last (core/variants.py).
    `outlived` are access tokens that were replaced and are still alive; `doomed` are tokens that the provider has to be
    told of, not before `telling`, after `untold` tries in vain; `survivors` are those of which it is not told; `local`:
    so an operator wants it.
    `retry` and `rotation_retry` are the moments before which no exchange, no early issue, may begin; `asked_until` is
    the one that the provider named itself (Retry-After).
    `refused` is a digest of what the provider did not take: it is not sent again before `refused_until`, and where that
    is None, a password's, not until its bytes change (law 7). `doubt` is a password that it may have refused, `proven`
    the digest of the last one that brought tokens. `first_error` is how an exchange ended that began all the trouble
    since the grant last worked, if it may have cost a token. `instead`: the last exchange that failed was made with the
    grant's credentials, as renewing by refresh token kept failing. `asked` is what the tokens were asked for: where the
    configuration asks for something else, they are replaced (law 14). `proof_key` is what they are bound to (RFC 9449).
    `subject` is who logged in, as the provider names them. `failing_since`: the first failure since it last worked.
    """

    name: str
    generation: int = 0
    state: State = State.READY
    access_token: AccessToken | None = None
    refresh_token: RefreshToken | None = None
    variants: tuple[Variant, ...] = ()
    outlived: tuple[AccessToken, ...] = ()
    doomed: tuple[Doomed, ...] = ()
    telling: Moment | None = None
    untold: int = 0
    survivors: tuple[Survivor, ...] = ()
    local: bool = False
    interrupted: Moment | None = None
    earlier: Earlier | None = None
    retry: Moment | None = None
    asked_until: Moment | None = None
    rotation_retry: Moment | None = None
    rotation_failures: int = 0
    refused: bytes | None = None
    refused_until: Moment | None = None
    doubt: Doubt | None = None
    proven: bytes | None = None
    asked: str = ""
    proof_key: Secret | None = None
    renewals: int = 0
    failures: int = 0
    instead: bool = False
    last_error: str | None = None
    first_error: str | None = None
    failing_since: Moment | None = None
    changed: Moment | None = None
    subject: str | None = None

    @property
    def uncertain(self) -> Moment | None:
        """Since when a refresh token of the grant may be used up."""
        return self.interrupted or (self.earlier.interrupted if self.earlier else None)

    @property
    def error(self) -> str | None:
        """What is wrong, for people: what was last, and what began it."""
        last, first = self.last_error, self.first_error
        if last is None or first is None or first in last:
            return last or first
        return f"{last} (at first: {first})"


# -- questions


def alive(token: AccessToken | RefreshToken | None, now: Moment, min_ttl: float = 0.0) -> bool:
    """Whether the token has more than `min_ttl` seconds to live (law 5). One without a known expiry is alive."""
    if token is None:
        return False
    if token.lifetime is None:
        return True
    if (issued := token.issued).boot_id == now.boot_id:  # the way of every get, without building a Moment
        return issued.boot + token.lifetime - now.boot > min_ttl
    return seconds_until(issued.after(token.lifetime), now) > min_ttl


def usable(token: AccessToken | RefreshToken | None, now: Moment) -> bool:
    """Whether the token may be sent to its provider, who will say if it is dead. Where no clock can tell (after a
    reboot, law 8), it may: to serve needs certainty, to try does not."""
    if token is None:
        return False
    undatable = token.issued.boot_id != now.boot_id and not (now.trusted and token.issued.trusted)
    return token.lifetime is None or undatable or alive(token, now)


def served(record: Record, now: Moment, min_ttl: float = 0.0) -> AccessToken | None:
    """The access token that may be handed out now, if there is one."""
    if record.state is State.REVOKED or not alive(record.access_token, now, min_ttl):
        return None
    return record.access_token


def refuses_password(record: Record) -> bool:
    """Whether `refused` is a password that the provider refused in its own terms."""
    return record.refused is not None and record.refused_until is None


def goes_on_without(record: Record) -> bool:
    """Whether exchanges bring again whatever is in it: there is no refresh token, and none is needed."""
    by_itself = record.state in (State.READY, State.RENEWING, State.RETRYING)
    return by_itself and record.refresh_token is None and not record.doomed


# -- events


def begun(record: Record) -> Record:
    """An exchange for a token starts. Only memory learns of it: the journal is what lasts."""
    return replace(record, state=move(record.state, Event.BEGIN, can_issue=False))


def issued(
    record: Record,
    tokens: Tokens,
    at: Moment,
    jitter: float,
    asked: str,
    *,
    renewed: bool = False,
    password: bytes | None = None,
) -> Record:
    """The exchange brought tokens, which the provider made at `at` or later. What it did not bring stays. `renewed`: by
    refresh token, after which a refused password is none the better; `password`: the digest of the one that it took."""
    refused = record.refused if renewed and record.refused_until is None else None
    return replace(
        record,
        generation=record.generation + 1,
        state=move(record.state, Event.ISSUED, can_issue=True),
        access_token=new_access(tokens, at, jitter) or record.access_token,
        refresh_token=new_refresh(tokens.refresh_token, at, jitter) or _kept(record, tokens.access_token, at, jitter),
        outlived=_outlived(record, at, tokens.access_token) if tokens.access_token else record.outlived,
        interrupted=None,
        earlier=None,
        retry=None,
        asked_until=None,
        rotation_retry=None if tokens.refresh_token else record.rotation_retry,
        rotation_failures=0 if tokens.refresh_token else record.rotation_failures,
        refused=refused,
        refused_until=None,
        doubt=record.doubt if renewed else None,
        proven=password or record.proven,
        asked=asked,
        renewals=record.renewals + 1,
        failures=0,
        instead=False,
        last_error=None,
        first_error=None,
        changed=at,
    )


def rescued(record: Record, refresh: RefreshToken, at: Moment, *, replaces: bool) -> Record:
    """A good refresh token came at `at` or later with an answer that brought nothing else (law 3). `replaces`: the
    answer says that it succeeded; otherwise the token before is kept for the case that the provider knows no other."""
    before = record.refresh_token
    kept = None if replaces or before is None else Earlier(before, record.interrupted or at)
    return replace(
        record,
        generation=record.generation + 1,
        refresh_token=refresh,
        earlier=kept,
        interrupted=None,
        changed=at,
    )


def expired(odd: str | None) -> str:
    """A token that had no life left, in words. `odd`: what is hard to believe of its life."""
    words = "the provider issued a token that had already expired"
    return words if odd is None else f"{words}: {odd}"


def came_dead(record: Record, failures: int, now: Moment, delay: float, odd: str | None = None) -> Record:
    """What was just issued had no life left: it is kept, and is the `failures`-th failure, so that nobody hammers.
    `odd`: what is hard to believe of its life."""
    return replace(
        record,
        state=State.RETRYING,
        retry=now.after(delay),
        failures=failures,
        last_error=expired(odd),
    )


def failed(
    record: Record,
    reason: str,
    now: Moment,
    delay: float,
    *,
    interrupted: bool,
    since: Moment | None = None,
    sent: bytes | None = None,
    asked: bool = False,
    costly: bool = False,
) -> Record:
    """Nothing was learnt; not again for `delay` seconds. `interrupted`: a stored token may be used up (law 3), and was
    sent at `since`. `sent`: the digest of the request, which is tried at once where it becomes another, unless the
    provider `asked` to be left alone. `costly`: the answer may have cost a token, and is remembered for that."""
    retry, is_password = now.after(delay), refuses_password(record)
    digest = None if asked else sent
    return replace(
        record,
        state=move(record.state, Event.FAILED, can_issue=True),
        refused=record.refused if is_password else digest,
        refused_until=None if is_password or digest is None else retry,
        interrupted=(record.interrupted or since or now) if interrupted else record.interrupted,
        retry=retry,
        asked_until=retry if asked else None,
        failures=record.failures + 1,
        last_error=reason,
        first_error=record.first_error or (reason if interrupted or costly else None),
    )


def refused(
    record: Record,
    reason: str,
    now: Moment,
    delay: float,
    sent: bytes | None,
    until: Moment | None = None,
    *,
    asked: bool = False,
) -> Record:
    """A person must change something; looked at again after `delay` seconds. `sent`: the digest of what was refused,
    which is not sent again before `until`, None: not at all. `asked`: the provider named the time."""
    retry = now.after(delay)
    return replace(
        record,
        state=move(record.state, Event.REFUSED, can_issue=True),
        retry=retry,
        asked_until=retry if asked else None,
        refused=sent,
        refused_until=until,
        failures=record.failures + 1,
        last_error=reason,
    )


def doubted(record: Record, doubt: Doubt) -> Record:
    """A password leaves, or an answer came that may mean that it is wrong: it is durable first that it is not sent
    again at once, whatever happens to us (law 7)."""
    return replace(record, doubt=doubt)


def rejected_once(record: Record, reason: str, now: Moment, delay: float) -> Record:
    """The provider rejected the refresh token, and may have looked into an old copy: it is sent once more, near the end
    of the living access token, in `delay` seconds (law 4)."""
    assert record.refresh_token is not None, "a refresh token that is not there cannot be rejected"
    return replace(
        record,
        state=move(record.state, Event.FAILED, can_issue=True),
        refresh_token=replace(record.refresh_token, rejected=now),
        retry=now.after(delay),
        asked_until=None,
        refused=record.refused if refuses_password(record) else None,
        refused_until=None,
        failures=record.failures + 1,
        last_error=reason,
    )


def rejected(record: Record, reason: str, now: Moment, *, can_issue: bool) -> Record:
    """The refresh token is dead and is never sent again. A living access token goes on being served. If there is an
    earlier one, and no other way, its turn has come (law 3)."""
    earlier = None if can_issue else record.earlier
    return replace(
        record,
        generation=record.generation + 1,
        state=move(record.state, Event.REJECTED, can_issue=can_issue or earlier is not None),
        refresh_token=earlier.token if earlier else None,
        interrupted=earlier.interrupted if earlier else None,
        earlier=None,
        retry=None,
        asked_until=None,
        failures=record.failures + 1,
        last_error=reason,
        changed=now,
    )


def rotation_failed(
    record: Record,
    reason: str,
    now: Moment,
    delay: float,
    *,
    interrupted: bool,
    since: Moment | None = None,
    password: bytes | None = None,
    asked_to_wait: bool = False,
) -> Record:
    """An issue ahead of need failed: the living refresh token goes on, the next try waits (DESIGN.md 4). `password`:
    the one that was refused by it; `asked_to_wait`: the provider wants to hear nothing at all for so long."""
    retry = now.after(delay)
    return replace(
        record,
        state=State.READY,
        interrupted=(record.interrupted or since or now) if interrupted else record.interrupted,
        retry=retry if asked_to_wait else record.retry,
        asked_until=retry if asked_to_wait else record.asked_until,
        rotation_retry=retry,
        rotation_failures=record.rotation_failures + 1,
        refused=password or record.refused,
        refused_until=None if password else record.refused_until,
        last_error=reason,
    )


def again(record: Record, *, can_issue: bool, by_hand: bool) -> Record:
    """Someone, or the clock, says to look again: what held the grant back is let go, but not an interruption.
    What was refused is let go by hand only (law 7)."""
    return replace(
        record,
        state=move(record.state, Event.AGAIN, can_issue=can_issue or record.refresh_token is not None),
        retry=None,
        asked_until=None,
        rotation_retry=None,
        refused=None if by_hand else record.refused,
        refused_until=None if by_hand else record.refused_until,
        doubt=None if by_hand else record.doubt,
    )


def lacks_login(record: Record, reason: str) -> Record:
    """There is nothing left to get a token with, and no credentials to issue one from."""
    begun_state = move(record.state, Event.BEGIN, can_issue=False)
    return replace(record, state=move(begun_state, Event.REJECTED, can_issue=False), last_error=reason)


def look_again(record: Record, *, starting: bool) -> Record:
    """The configuration was read again: what a person had to change may have been changed, and is then tried at once. A
    start is not a person: what failed before is still held back as it was, lest a crash loop sends it each time. A
    reload lets go of all that was refused but a password (law 7). What the provider asked for holds in any case."""
    is_known = record.refused_until is not None
    if record.state is State.RETRYING and is_known:
        return replace(record, retry=record.asked_until)
    if record.state is not State.MISCONFIGURED:
        return record
    if starting or not is_known:
        return replace(record, retry=record.asked_until)
    return replace(record, retry=record.asked_until, refused=None, refused_until=None)


def skipped(record: Record, now: Moment, delay: float) -> Record:
    """It was the credentials' turn, and they hold a password that is not to be sent: the refresh token is next."""
    return replace(record, retry=now.after(delay), failures=record.failures + 1, instead=True)


def put_off(record: Record, now: Moment, delay: float) -> Record:
    """Looked at, and nothing has changed: looked at again after `delay` seconds."""
    return replace(record, retry=now.after(delay))


def granted(record: Record, tokens: Tokens, at: Moment, jitter: float, asked: str) -> Record:
    """A login or an import brought tokens, made at `at` or later: a new life, whatever was before. Without tokens it
    begins from the grant's credentials."""
    return replace(
        record,
        generation=record.generation + 1,
        state=move(record.state, Event.GRANTED, can_issue=True),
        access_token=new_access(tokens, at, jitter),
        variants=(),
        outlived=all_outlived(record, at)[-OUTLIVED_MOST:],
        survivors=(),
        local=False,
        refresh_token=new_refresh(tokens.refresh_token, at, jitter),
        interrupted=None,
        earlier=None,
        retry=None,
        asked_until=None,
        rotation_retry=None,
        refused=None,
        refused_until=None,
        doubt=None,
        failures=0,
        last_error=None,
        first_error=None,
        asked=asked,
        changed=at,
        subject=tokens.subject,
    )


def reopened(record: Record, *, interrupted: Moment | None) -> Record:
    """A record as it came from the store after a crash or a restart. `interrupted`: the journal knows of an
    exchange that spent this generation's token and whose end nobody saw."""
    if record.state is State.RENEWING:
        record = replace(record, state=State.RETRYING)
    if interrupted is not None and record.interrupted is None:
        record = replace(record, interrupted=interrupted)
    return record


def _outlived(record: Record, now: Moment, successor: Token | None = None) -> tuple[AccessToken, ...]:
    """The access tokens of the record that are alive, the newest last; one that its successor extends is no other."""
    tokens = (*record.outlived, *((record.access_token,) if record.access_token else ()))
    others = (each for each in tokens if successor is None or each.value != successor.value)
    return tuple(each for each in others if usable(each, now))[-OUTLIVED_MOST:]


def all_outlived(record: Record, now: Moment) -> tuple[AccessToken, ...]:
    """The same, and those of its variants."""
    variants = (each.access_token for each in record.variants)
    return (*(each for each in variants if usable(each, now)), *_outlived(record, now))


def new_access(tokens: Tokens, at: Moment, jitter: float) -> AccessToken | None:
    token = tokens.access_token
    if token is None:
        return None
    return AccessToken(token.value, tokens.token_type, at, token.lifetime, jitter, token.id, tokens.scope, token.odd)


def _kept(record: Record, access: Token | None, at: Moment, jitter: float) -> RefreshToken | None:
    token = record.refresh_token
    if token is None or access is None:
        return token
    if _extended_in_vain(record.access_token, access, at):
        return replace(
            token, kept=True, restore=None, rejected=None, issued=at, lifetime=access.lifetime, jitter=jitter
        )
    return replace(token, kept=True, restore=None, rejected=None)


def _extended_in_vain(old: AccessToken | None, new: Token, at: Moment) -> bool:
    """Whether the same token came again with hardly a later end: no renewal moves that end (Vault's max TTL), and the
    refresh token is of no use beyond it. Lifetimes in answers are whole seconds, so one second says nothing."""
    if old is None or old.value != new.value or old.expires is None or new.lifetime is None:
        return False
    passed = seconds_until(at, old.issued)
    return seconds_until(at.after(new.lifetime), old.expires) + 1 < passed / 2


def new_refresh(token: Token | None, at: Moment, jitter: float) -> RefreshToken | None:
    return None if token is None else RefreshToken(token.value, at, token.lifetime, jitter, token.id)


# -- since when


def dated(before: Record, after: Record, now: Moment) -> Record:
    """The record after an event, with the time of the first failure since the grant last worked."""
    since = now if before.last_error is None else before.failing_since
    since = None if after.last_error is None else since
    return after if after.failing_since == since else replace(after, failing_since=since)

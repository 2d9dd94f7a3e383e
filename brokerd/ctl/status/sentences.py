# What brokerctl status says about the daemon, a provider and a grant, in sentences: since when, how often, why, and
# what to do. It knows no columns.
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from brokerd.core.events import Event
from brokerd.core.fleet.condition import troubles
from brokerd.core.grant.advice import remedy, split
from brokerd.core.grant.condition import LOCKED, UNLOCK, Grant, Tone, lacks_token
from brokerd.ctl.terminal import away, called, plain
from brokerd.edge.system.clock import lasting

WRITABLE, UNANSWERED = Event.STORE_NOT_WRITTEN.remedy, Event.PROVIDER_SLOW.remedy
SOON = 7 * 86_400.0  # seconds before a refresh token ends, from which on that is said


class Words(NamedTuple):
    text: str
    is_remedy: bool = False


def since(words: str, at: float | None, now: float) -> str:
    """The words, and since when that is so. Empty if it is not so, or if an older brokerd does not say since when."""
    return "" if at is None else f"{words} {lasting(at, now)}"


def about_daemon(daemon: Mapping[str, Any], now: float) -> Iterator[tuple[Tone, list[str]]]:
    """What is wrong with it, the worst first, each with its remedy."""
    if daemon["locked"]:
        yield Tone.BAD, [called("brokerd is locked and serves nothing"), called(f"to unlock: {UNLOCK}")]
    for name, words in (("store", "store"), ("audit", "audit log")):
        if daemon.get(name):
            when = since("failing", daemon.get(f"{name}_since"), now)
            said = plain(f"{words}: {daemon[name]}") + (f" ({when})" if when else "")
            yield Tone.BAD, [said, *([f"to fix: {WRITABLE}"] if when else [])]
    if (fleet := daemon.get("fleet")) is not None:
        yield from about_fleet(fleet, now)
    if unfinished := since("key rotate --full is not finished", daemon.get("resealing_since"), now):
        yield Tone.GOOD, [f"{unfinished}; it goes on by itself"]


def about_fleet(fleet: Mapping[str, Any], now: float) -> Iterator[tuple[Tone, list[str]]]:
    """What is wrong between this host and etcd."""
    for trouble in troubles(fleet, now):
        words = trouble.sentence(since("", trouble.since, now).lstrip())
        to_fix = [called(f"to fix: {trouble.remedy}")] if trouble.remedy else []
        yield trouble.tone, [plain(f"fleet {fleet['fleet']}: {words}"), *to_fix]


def is_down(provider: Mapping[str, Any]) -> bool:
    """Whether there is something to say about it."""
    trouble = ("breaker_open_until", "failing_since", "unanswered_since")
    return any(provider.get(name) is not None for name in trouble)


def about_provider(provider: Mapping[str, Any], now: float) -> list[str]:
    if late := since("has not answered", provider.get("unanswered_since"), now):
        return [plain(f"provider {provider['name']} {late}"), f"to fix: {UNANSWERED}"]
    failing = since("failing", provider.get("failing_since"), now) or "failing"
    cause = f" ({provider['cause']})" if provider.get("cause") else ""
    found = [plain(f"provider {provider['name']}: {failing}{cause}")]
    if (until := provider.get("breaker_open_until")) is not None:
        found.append(f"its breaker is open: the next request is sent {away(until - now)}")
    return found


def about_grant(grant: Grant, now: float) -> Iterator[Words]:
    """What a person should know, the most important first. The remedy is last."""
    state, error = grant["state"], grant["last_error"]
    what = split(error)[0] if error else ""
    if what:
        before = "before it was locked: " if state == LOCKED else ""
        yield Words(plain(f"{before}{failing(grant, now)}{what}"))
    if state == "revoked":
        yield Words(f"{since('revoked', grant.get('revoked_at'), now) or 'revoked'}; nothing is served")
    if verified := grant.get("verified"):
        yield Words(plain(verified["detail"]))
    if lacks_token(grant, now) and not what:
        yield Words("it has no token yet")
    if grant["unstored"]:
        yield Words("the newest tokens are in memory only, not in the store")
    if missing := since("the answer to an exchange is missing", grant["interrupted"], now):
        yield Words(missing)
    yield from (Words(plain(each)) for each in grant.get("notes", ()))
    if number := grant.get("pending_revocations"):
        yield Words(f"{number} not yet revoked at the provider")
    if dropped := grant.get("scope_dropped"):
        yield Words(plain(f"the provider did not grant the scope {' '.join(dropped)}"))
    if (ends := grant["refresh_expires_at"]) is not None and ends - now < SOON and not _renewed_before(grant, ends):
        yield Words(f"refresh token {'expires' if ends > now else 'expired'} {away(ends - now)}")
    if state == LOCKED:
        return  # how to unlock stands once, where brokerd itself is shown
    if state == "revoked":
        again = grant.get("remedy") or f"brokerctl login {grant['name']}"  # an older brokerd names none
        yield Words(f"to use it again: {plain(again)}", is_remedy=True)
    elif to_fix := remedy(grant):
        yield Words(f"to fix: {plain(to_fix)}", is_remedy=True)


def failing(grant: Grant, now: float) -> str:
    """Since when it fails, and how often: the beginning of a sentence."""
    number = grant["failures"]
    times = f"{number} failures, the last: " if number > 1 else ""
    when = since("failing", grant.get("failing_since"), now)
    return f"{when}: {times}" if when else times


def _renewed_before(grant: Grant, ends: float) -> bool:
    """Whether a renewal comes before that, which may bring another one."""
    renews = grant["next_renewal_at"]
    return renews is not None and renews < ends

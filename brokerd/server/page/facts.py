# What the page says about the answer of the method `overview` (docs/protocol.md): the sentences about grants, and
# about brokerd itself. core/grant/condition.py says how bad a thing is. Pure: the time is an argument.
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from brokerd.core.events import Event
from brokerd.core.fleet import condition
from brokerd.core.grant import advice
from brokerd.core.grant.advice import split
from brokerd.core.grant.condition import LOCKED, UNLOCK, Grant, is_problem, lacks_token, serves
from brokerd.core.timing.duration import in_words
from brokerd.server.page import words
from brokerd.server.page.markup import Html, foreign, joined, tag

Provider = Mapping[str, Any]  # one of `providers`
SOON = 7 * 86_400  # seconds; the end of a refresh token that is so near is worth a sentence


def since(at: float | None, now: float) -> Html:
    """ "for 4 min, since 19:11:40", or nothing."""
    if at is None:
        return Html("")
    return joined(f" for {in_words(now - at)}, since ", words.moment(at, now))


def token(grant: Grant, now: float) -> Iterable[Html]:
    """The token that is served, and what comes next."""
    ends, renews = grant["expires_at"], grant["next_renewal_at"]
    if not serves(grant, now):
        yield tag("strong", "no token") if is_problem(grant, now) else joined("no token")
    elif ends is None:
        yield joined("does not say when it expires")
    else:
        yield joined("expires ", words.moment(ends, now, words.away(ends, now)))
    if renews is not None:
        action = "next try" if is_problem(grant, now) else "renews"
        yield joined(f"{action} ", words.moment(renews, now, words.away(renews, now) if renews > now else "now"))


def notes(grant: Grant, now: float, provider: Provider | None = None) -> Iterable[Html]:
    """What a person should know, the most important first, each a sentence. `provider`: the grant's own."""
    if grant["state"] == "revoked":
        yield joined("Revoked", since(grant["revoked_at"], now), ". Nothing is served.")
    if grant["last_error"]:
        before = "Before it was locked: " if grant["state"] == LOCKED else ""
        yield joined(before, *_failing(grant, now), foreign(split(grant["last_error"])[0]))
    elif lacks_token(grant, now):
        yield joined("It has no token, and brokerd has not come to it yet.")
    if provider is not None and is_problem(grant, now) and (until := provider["breaker_open_until"]) is not None:
        yield joined(
            "Its provider seems to be down, and is asked again ", words.moment(until, now, words.away(until, now)), "."
        )
    if grant["unstored"]:
        yield joined("The newest tokens are in memory only, because the store could not be written.")
    if grant["interrupted"]:
        yield joined("The answer to an exchange has been missing", since(grant["interrupted"], now), ".")
    if number := grant["pending_revocations"]:
        yield joined(f"{words.number(number, 'token')} not yet revoked at the provider.")
    if dropped := grant["scope_dropped"]:
        yield joined("The provider did not grant the scope ", foreign(" ".join(dropped)), ".")
    yield from (joined(foreign(each)) for each in grant["notes"])
    if (ends := grant["refresh_expires_at"]) is not None and ends - now < SOON:
        verb = "expires" if ends > now else "expired"
        yield joined(f"The refresh token {verb} ", words.moment(ends, now, words.away(ends, now)), ".")


def _failing(grant: Grant, now: float) -> Iterable[str]:
    if grant["failing_since"] is None:
        return
    yield joined("Failing", since(grant["failing_since"], now))
    if grant["failures"] > 1:
        yield f", {words.number(grant['failures'], 'failure')}, the last"
    yield ": "


def remedy(grant: Grant, now: float) -> Html | None:
    """What a person can do. Nothing about a grant that works."""
    if grant["state"] == "revoked":
        return joined("To use it again: ", _command(grant["remedy"]))
    if grant["state"] == LOCKED:
        return None  # the page says once how to unlock
    if grant["remedy"]:
        return joined("To fix: ", _command(grant["remedy"]))
    if advised := advice.remedy(grant):
        return joined("To fix: ", foreign(advised), ".")
    if not is_problem(grant, now) or grant["next_renewal_at"] is None:
        return None
    return joined("brokerd tries again by itself.")


def _command(line: str) -> Html:
    return tag("code", foreign(line))


def troubles(daemon: Mapping[str, Any], providers: Iterable[Provider], now: float) -> Iterable[Html]:
    """What is wrong with more than one grant: with brokerd itself, with its remedy, and with providers."""
    if daemon["locked"]:
        yield joined("brokerd is locked and serves nothing. To unlock: ", _command(UNLOCK))
    for key, what in (("store", "The store"), ("audit", "The audit log")):
        if reason := daemon[key]:
            fix = "" if daemon[f"{key}_since"] is None else f". To fix: {Event.STORE_NOT_WRITTEN.remedy}"
            yield joined(f"{what} fails", since(daemon[f"{key}_since"], now), ": ", foreign(reason), fix)
    if daemon["fleet"] is not None:
        for each in condition.troubles(daemon["fleet"], now):
            why, then = (f" ({each.why})" if each.why else ""), (f"; {each.then}" if each.then else "")
            fix = f". To fix: {each.remedy}" if each.remedy else ""
            yield joined("Fleet: ", foreign(each.what), since(each.since, now), foreign(why), foreign(then), fix)
    for provider in providers:
        if is_down(provider):
            yield joined("Provider ", foreign(provider["name"]), ": ", about_provider(provider, now))


def is_down(provider: Provider) -> bool:
    return any(provider[key] is not None for key in ("breaker_open_until", "failing_since", "unanswered_since"))


def about_provider(provider: Provider, now: float) -> Html:
    """How it is, in one sentence."""
    until, silent = provider["breaker_open_until"], provider["unanswered_since"]
    parts: list[Html] = []
    if provider["failing_since"] is not None:
        cause = f" ({provider['cause']})" if provider["cause"] else ""
        parts.append(joined(f"failing{cause}", since(provider["failing_since"], now)))
    if silent is not None:
        parts.append(joined("has not answered", since(silent, now)))
    if until is not None:
        parts.append(joined("asked again ", words.moment(until, now, words.away(until, now))))
    if not parts:
        parts.append(joined("not asked yet" if provider["last_ok_at"] is None else "works"))
    fix = "" if silent is None else f". To fix: {Event.PROVIDER_SLOW.remedy}"
    return joined(Html("; ".join(parts)), fix)

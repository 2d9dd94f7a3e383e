# Looks every hour for what will expire: refresh tokens of grants, and certificates in the files of providers. A line of
# the log says so in time (core/expiries.py).
from __future__ import annotations

from collections.abc import Iterator

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.core.events import Event
from brokerd.core.expiries import Expiries, Expiry
from brokerd.core.grant.state import State
from brokerd.core.ports import Clock
from brokerd.core.timing.duration import in_words
from brokerd.core.timing.moment import wall_time
from brokerd.telemetry.event_log import EventLog, utc

FIRST, EVERY = 30.0, 3_600.0  # seconds until the first look, and between two

SHARE = 1 / 3  # of a refresh token's life


async def watch_expiries(
    broker: TokenBroker, clock: Clock, events: EventLog, *, refresh_token: float, certificate: float
) -> None:
    """For ever. `refresh_token`, `certificate`: how many seconds ahead they are said."""
    expiries = Expiries()
    await trio.sleep(FIRST)
    while True:
        found = (*_refresh_tokens(broker, clock, refresh_token), *_certificates(broker, certificate))
        now = clock.now().wall
        for each in expiries.due(found, now):
            when = {"expires": utc(each.at), "left": in_words(each.at - now)}
            if each.event is Event.CERTIFICATE_EXPIRES:
                events.say(each.event, provider=each.about, path=each.path, **when)
            elif (grant := broker.grants.get(each.about)) is not None:
                events.say(each.event, **grant.about, **when, remedy=grant.login_command)
        await trio.sleep(EVERY)


def _refresh_tokens(broker: TokenBroker, clock: Clock, within: float) -> Iterator[Expiry]:
    """Of grants that cannot get new tokens without a person: those that no renewal replaces, and those of grants whose
    renewals fail. A short life is told by a third of it."""
    now = clock.now()
    for name, grant in broker.grants.items():
        record, token = grant.record, grant.record.refresh_token
        if token is None or token.expires is None or token.lifetime is None or grant.can_issue():
            continue
        if record.state not in (State.REVOKED, State.NEEDS_LOGIN) and (token.kept or record.failures):
            ahead = min(within, token.lifetime * SHARE)
            yield Expiry(Event.REFRESH_TOKEN_EXPIRES, name, "", wall_time(token.expires, now), ahead)


def _certificates(broker: TokenBroker, within: float) -> Iterator[Expiry]:
    """Of the files that providers name. What a server presents is its operator's to renew."""
    for provider in {each.provider.name: each.provider for each in broker.grants.values()}.values():
        files = {"client": provider.settings.cert_file, "authority": provider.settings.ca_file}
        for which, path in files.items():
            if path is not None and (at := provider.certificates.get(which)) is not None:
                yield Expiry(Event.CERTIFICATE_EXPIRES, provider.name, path, at, within)

# The gauges: what is true of grants and providers at the moment of a scrape, one row for each metric. Without a value
# there is no line, so that an alert about it ends by itself. Times are Unix seconds by the wall clock of now.
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import trio

from brokerd.broker.grant_status import expires_at, failing_since, state_of
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.provider import Provider
from brokerd.core.grant.condition import LOCKED
from brokerd.core.grant.state import State
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.timing.moment import Moment, wall_time
from brokerd.telemetry.exposition import head, labelled, number
from brokerd.telemetry.metrics import GAUGE, PROVIDER, Gauge, MetricRow

TURN = 10  # grants that one scrape writes before callers have their turn: a tenth of a millisecond


class SeenGrant(NamedTuple):
    """A grant, the token that it serves, and when the schedule looks at it next, on CLOCK_BOOTTIME."""

    grant: LiveGrant
    token: AccessToken | None
    next_look: float | None


def is_ready(grant: LiveGrant, token: AccessToken | None) -> bool:
    """Whether a caller gets a token now: there is one that lives, or it is got when somebody asks."""
    is_sound = not grant.stopped and state_of(grant) in (State.READY, State.RENEWING)
    return token is not None or (grant.settings.pace.on_demand and is_sound)


def _renewal(seen: SeenGrant, now: Moment) -> float | None:
    return None if seen.next_look is None else now.wall + max(0.0, seen.next_look - now.boot)


def _refresh_expiration(seen: SeenGrant, now: Moment) -> float | None:
    refresh = seen.grant.record.refresh_token
    return None if refresh is None else _wall_time(refresh.expires, now)


def _wall_time(at: Moment | None, now: Moment) -> float | None:
    return None if at is None else wall_time(at, now)


GRANTS = (
    Gauge[SeenGrant](
        "brokerd_grant_ready",
        ("grant", PROVIDER, "state"),
        "1 while a caller gets a token of the grant, 0 while it gets none.",
        lambda seen, _: float(is_ready(seen.grant, seen.token)),
    ),
    Gauge[SeenGrant](
        "brokerd_grant_expiration_timestamp_seconds",
        ("grant",),
        "When the access token that is served expires. Without a token, or if it is not known, it is not there.",
        lambda seen, now: None if seen.token is None else expires_at(seen.token, now),
    ),
    Gauge[SeenGrant](
        "brokerd_grant_renewal_timestamp_seconds",
        ("grant",),
        "When brokerd begins the next exchange for the grant. If none is planned, it is not there.",
        _renewal,
    ),
    Gauge[SeenGrant](
        "brokerd_grant_failing_since_timestamp_seconds",
        ("grant",),
        "Since when the grant fails. While it works, it is not there.",
        lambda seen, now: failing_since(seen.grant, now),
    ),
    Gauge[SeenGrant](
        "brokerd_grant_refresh_expiration_timestamp_seconds",
        ("grant",),
        "When the refresh token expires. If the provider does not say when, it is not there.",
        _refresh_expiration,
    ),
)
PROVIDERS = (
    Gauge[Provider](
        "brokerd_provider_breaker_open",
        (PROVIDER,),
        "1 while nothing is sent to the provider, because it seems to be down.",
        lambda provider, now: float(provider.breaker.wait(now) > 0),
    ),
    Gauge[Provider](
        "brokerd_provider_failing_since_timestamp_seconds",
        (PROVIDER,),
        "Since when the provider as a whole fails. While it answers, it is not there.",
        lambda provider, now: _wall_time(provider.health.failing_since, now),
    ),
    Gauge[Provider](
        "brokerd_provider_last_ok_timestamp_seconds",
        (PROVIDER,),
        "When the provider last answered as one that works. Before its first answer it is not there.",
        lambda provider, now: _wall_time(provider.health.last_ok, now),
    ),
    Gauge[Provider](
        "brokerd_provider_unanswered_since_timestamp_seconds",
        (PROVIDER,),
        "Since when a request waits for its answer, if that is 3 seconds or more.",
        lambda provider, now: _wall_time(provider.unanswered_since(now), now),
    ),
    Gauge[Provider](
        "brokerd_provider_exchanges_running",
        (PROVIDER,),
        "Exchanges under way.",
        lambda provider, _: float(provider.busy),
    ),
    Gauge[Provider](
        "brokerd_provider_exchanges_waiting",
        (PROVIDER,),
        "Grants that are due and wait for an exchange to end.",
        lambda provider, _: float(len(provider.queue)),
    ),
)


CERTIFICATES = MetricRow(
    "brokerd_provider_certificate_expiration_timestamp_seconds",
    GAUGE,
    (PROVIDER, "certificate"),
    "When a certificate expires: of the server, the client, or the authorities in ca_file.",
)


async def of_grants(
    grants: Iterable[LiveGrant | None], next_look: Callable[[str], float | None], clock: Callable[[], Moment]
) -> str:
    """The lines of these grants; None: one that is not shown. Other tasks run in between, because there may be ten
    thousand: each of a grant's lines costs about 2 µs. No name needs escaping (config/toml_files.py)."""
    texts = [[head(row.name, GAUGE, row.help)] for row in GRANTS]
    columns = [
        (row.name, row.value, len(row.labels) > 1, lines.append) for row, lines in zip(GRANTS, texts, strict=True)
    ]
    now = clock()
    for count, grant in enumerate(grants, 1):
        if count % TURN == 0:
            await trio.lowlevel.checkpoint()
            now = clock()
        if grant is None:
            continue
        seen = SeenGrant(grant, grant.serves(now), next_look(grant.name))
        short = f'{{grant="{grant.name}"}}'
        whole = f'{{grant="{grant.name}",{PROVIDER}="{grant.provider.name}",state="{state_of(grant)}"}}'
        for name, value_of, is_whole, add in columns:
            if (value := value_of(seen, now)) is not None:
                add(f"{name}{whole if is_whole else short} {value:.12g}\n")
    return "".join("".join(lines) for lines in texts if len(lines) > 1)


def of_locked(statuses: Iterable[Mapping[str, object]]) -> str:
    """The lines of grants while brokerd is locked: that none of them is ready."""
    row = GRANTS[0]
    about = ({"grant": str(each["name"]), PROVIDER: str(each["provider"]), "state": LOCKED} for each in statuses)
    lines = "".join(f"{row.name}{labelled(each)} 0\n" for each in about)
    return lines and head(row.name, GAUGE, row.help) + lines


def of_providers(providers: Iterable[Provider], now: Moment) -> str:
    found, shown = "", list(providers)
    for row in PROVIDERS:
        lines = [
            f"{row.name}{labelled({PROVIDER: each.name})} {number(value)}\n"
            for each in shown
            if (value := row.value(each, now)) is not None
        ]
        found += head(row.name, GAUGE, row.help) + "".join(lines) if lines else ""
    return found + _of_certificates(shown)


def _of_certificates(providers: Iterable[Provider]) -> str:
    name = CERTIFICATES.name
    lines = [
        f"{name}{labelled({PROVIDER: provider.name, 'certificate': which})} {number(ends)}\n"
        for provider in providers
        for which, ends in provider.certificates.items()
    ]
    return head(name, GAUGE, CERTIFICATES.help) + "".join(lines) if lines else ""

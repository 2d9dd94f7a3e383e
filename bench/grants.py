# The configurations that are measured, and what ten thousand grants cost: the start with nothing stored, the time until
# each grant has its first token, the start with everything stored, and the memory.
from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from bench.processes import Daemon, Failed, brokerd
from bench.scrapes import Scrapes, scrapes
from bench.statuses import status_seconds
from tests import servers as known

GRANT = "reports"
SETTLED_LONGEST = 150.0  # seconds that everybody's first token may take
LOOK = 0.5  # seconds between looks at who has his,
SOME = 100  # looking at so many first, because a look costs the daemon something
CONCURRENCY = 16  # requests in flight at one provider


@dataclass(frozen=True)
class Cost:
    """Of one start: seconds to the first answer, and of computing until then; seconds until each grant had its token;
    then the MB in memory, and the most so far; then what scrapes of the metrics cost, and how many seconds
    `brokerctl status` takes."""

    ready_after: float
    computed: float
    settled_after: float
    rss: float
    peak: float
    scrapes: Scrapes | None = None
    status: float = 0.0


def one(urls: Mapping[str, str]) -> str:
    """One grant, of a JWT, and a rule."""
    return "\n".join((*_providers(urls), *_grant(GRANT, "ix-api"), *_rule(GRANT)))


def named(urls: Mapping[str, str], names: Iterable[str]) -> str:
    """A grant of each of these names, and a rule for all."""
    grants = [line for name in names for line in _grant(name, "ix-api")]
    return "\n".join((*_providers(urls), *grants, *_rule("*")))


def many(urls: Mapping[str, str], number: int) -> str:
    """Many grants, spread evenly over the providers, and a rule for all."""
    lines = list(_providers(urls))
    for name in _names(number):
        lines += _grant(name, name.rpartition("-")[0])
    return "\n".join((*lines, *_rule("*")))


def cost(folder: Path, urls: Mapping[str, str], number: int, seconds: float) -> Cost:
    """Start with what is in the folder, and wait until each grant has a token. `seconds`: of a turn of gets. Raises
    Failed."""
    some = _names(number)[:: 1 + number // SOME]
    began = time.perf_counter()
    with brokerd(folder, many(urls, number)) as daemon:
        while True:
            if not (lacking := _lacking(daemon, grants=some)):
                found = Cost(daemon.ready_after, daemon.computed, time.perf_counter() - began, daemon.rss, daemon.peak)
                if not (lacking := _lacking(daemon)):
                    return replace(
                        found, scrapes=scrapes(daemon, some[0], seconds), status=status_seconds(daemon, number)
                    )
            if time.perf_counter() - began > SETTLED_LONGEST:
                raise Failed(f"{len(lacking)} grants still have no token: {lacking[:2]}")
            time.sleep(LOOK)


def _lacking(daemon: Daemon, **params: object) -> list[dict[str, Any]]:
    found = cast("dict[str, Any]", daemon.call("status", **params))
    return [grant for grant in found["grants"] if grant["expires_at"] is None]


def _names(number: int) -> list[str]:
    dialects = list(CREDENTIALS)
    return [f"{dialects[n % len(dialects)]}-{n:05}" for n in range(number)]


def _providers(urls: Mapping[str, str]) -> Iterator[str]:
    for dialect in CREDENTIALS:
        url = f'token_url = "{urls[dialect]}/token"' if dialect == "oauth2" else f'base_url = "{urls[dialect]}"'
        yield f'[providers.{dialect}]\ndialect = "{dialect}"\n{url}\nconcurrency = {CONCURRENCY}'


def _grant(name: str, dialect: str) -> Iterator[str]:
    yield f'[grants.{name}]\nprovider = "{dialect}"'
    if dialect == "oauth2":
        yield 'grant_type = "client_credentials"\nscope = ["read"]'
    said = ", ".join(f'{key} = "{value}"' for key, value in CREDENTIALS[dialect].items())
    yield f"credentials = {{ {said} }}"


def _rule(grants: str) -> Iterator[str]:
    yield f'[[allow]]\ngrants = ["{grants}"]\ncaller = {{ user = "nobody" }}'


CREDENTIALS = {
    "ix-api": {"api_key": known.IX_API_KEY, "api_secret": known.IX_API_SECRET},
    "occam": {"username": known.OCCAM_USER, "password": known.OCCAM_PASSWORD},
    "treezor": {"client_id": known.TREEZOR_CLIENT, "client_secret": known.TREEZOR_SECRET},
    "click2mail": {"client_id": known.CLICK2MAIL_CLIENT, "client_secret": known.CLICK2MAIL_SECRET},
    "oauth2": {"client_id": known.OAUTH2_CLIENT, "client_secret": known.OAUTH2_SECRET},
}

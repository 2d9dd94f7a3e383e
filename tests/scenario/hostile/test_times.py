# What providers write where a time belongs: lifetimes, Retry-After, clocks that are off. The decision for each is here,
# seen in what the daemon tells its callers (laws 5, 7, 8).
from __future__ import annotations

import time
from email.utils import formatdate

import jwt
import pytest
import trio

from tests.scenario.daemon.harness import Brokerd
from tests.scenario.hostile.conftest import Listening
from tests.scenario.hostile.faults import say
from tests.scenario.hostile.servers import Endpoint, http

OURS = 3_600.0  # seconds; a grant's `lifetime`, after which a token that names no end is renewed
NONE = "no end known"
DEAD = "dead on arrival"
KEY = "test-only-signing-key-with-more-than-32-bytes"

# expires_in as the provider writes it (raw JSON, "" for none) → seconds that the token is served for
LIFETIMES = {
    "text": ('"3600"', 3_600),
    "text with a fraction": ('"3600.5"', 3_600.5),
    "text with blanks": ('" 3600 "', 3_600),
    "a fraction": ("3600.5", 3_600.5),
    "an exponent": ("3.6e3", 3_600),
    "absent": ("", NONE),
    "null": ("null", NONE),
    "words": ('"soon"', NONE),
    "empty text": ('""', NONE),
    "true": ("true", NONE),
    "a list": ("[3600]", NONE),
    "an object": ('{"seconds": 3600}', NONE),
    "a century and more": ("1e10", NONE),
    "1e308": ("1e308", NONE),
    "1e999": ("1e999", NONE),
    "10**30": (str(10**30), NONE),
    "10**400": (str(10**400), NONE),
    "10**5000": ("1" + "0" * 5000, NONE),  # more digits than Python reads: it says nothing, the tokens are kept (law 3)
    "text 10**400": (f'"{10**400}"', NONE),
    "text nan": ('"nan"', NONE),
    "text Infinity": ('"Infinity"', NONE),
    "NaN": ("NaN", NONE),  # RFC 8259 has no such number, and some servers write it
    "Infinity": ("Infinity", NONE),
    "zero": ("0", DEAD),
    "negative": ("-60", DEAD),
    "text negative": ('"-1"', DEAD),
}


async def test_every_way_to_write_a_lifetime_has_its_decision(brokerd: Brokerd, listening: Listening) -> None:
    endpoints = {}
    for number, (name, (written, _)) in enumerate(LIFETIMES.items()):
        endpoint = endpoints[name] = await listening(Endpoint(f"idp{number}"))
        more = f', "expires_in": {written}' if written else ""
        body = f'{{"access_token": "test-only-{number}", "refresh_token": "{endpoint.refresh_token}"{more}}}'
        endpoint.fault = say(http(200, body.encode()))
    grants = {endpoint.name: endpoint.grant() for endpoint in endpoints.values()}
    brokerd.configure(grants, {endpoint.name: endpoint.table() for endpoint in endpoints.values()})
    await brokerd.start()

    async def see(name: str, expected: object) -> None:
        grant = endpoints[name].name
        await brokerd.call("import", grant=grant, refresh_token=endpoints[name].refresh_token)
        holds = await brokerd.until(grant, lambda status: status["failures"] > 0 or status["renewals"] > 0)
        if expected == DEAD:
            assert "had already expired" in holds["last_error"], name
            assert (holds["state"], holds["expires_at"]) == ("retrying", None), name
        elif expected == NONE:
            assert (holds["state"], holds["expires_at"]) == ("ready", None), name
            assert (await brokerd.call("get", grant=grant, wait=0))["expires_at"] is None, name
            due = holds["next_renewal_at"] - holds["issued_at"]
            assert OURS * 0.6 < due < OURS * 0.8, (name, due)
        else:
            assert isinstance(expected, float | int)
            assert holds["expires_at"] - holds["issued_at"] == pytest.approx(expected, abs=0.1), name

    async with trio.open_nursery() as nursery:
        for name, (_, expected) in LIFETIMES.items():
            nursery.start_soon(see, name, expected)


def asking(after: float, off: float) -> tuple[str, ...]:
    """Come back in so many seconds, says a server whose clock is off, as a date."""
    now = time.time() + off
    return f"Date: {formatdate(now, usegmt=True)}", f"Retry-After: {formatdate(now + after, usegmt=True)}"


# Headers → seconds, the least and the most, until the next try; jitter lengthens what is asked by a tenth at most.
# OWN: nothing sensible is asked, and our own backoff, a second or two, counts.
OWN = 1.0
RETRIES = {
    "seconds": (("Retry-After: 600",), 600, 660),
    "seconds with a fraction": (("Retry-After: 600.5",), 600, 661),
    "a date": (asking(600, 0.0), 598, 661),
    "a date of a clock that is ahead": (asking(600, 90.0), 598, 661),
    "a date of a clock that is behind": (asking(600, -90.0), 598, 661),
    "a date of a clock that is a year behind": (asking(600, -31e6), 598, 661),
    "a date that is past": (asking(-600, 0.0), OWN, OWN),
    "negative": (("Retry-After: -600",), OWN, OWN),
    "zero": (("Retry-After: 0",), OWN, OWN),
    "absurd": ((f"Retry-After: {10**12}",), 86_400, 95_040),
    "more than a number": ((f"Retry-After: {10**400}",), OWN, OWN),
    "a date after the end of dates": (("Retry-After: Mon, 01 Jan 99999 00:00:00 GMT",), OWN, OWN),
    "nan": (("Retry-After: nan",), OWN, OWN),
    "garbage": (("Retry-After: in a while",), OWN, OWN),
    "empty": (("Retry-After:",), OWN, OWN),
    "absent": ((), OWN, OWN),
}


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_obeyed_in_both_forms_and_never_beyond_a_day(
    brokerd: Brokerd, listening: Listening, status: int
) -> None:
    endpoints = {}
    for number, (name, (headers, _, _)) in enumerate(RETRIES.items()):
        endpoint = endpoints[name] = await listening(Endpoint(f"idp{number}"))
        endpoint.fault = say(http(status, b"", *headers))
    grants = {endpoint.name: endpoint.grant() for endpoint in endpoints.values()}
    brokerd.configure(grants, {endpoint.name: endpoint.table() for endpoint in endpoints.values()})
    await brokerd.start()

    async def see(name: str, least: float, most: float) -> None:
        grant = endpoints[name].name
        before = time.time()
        await brokerd.call("import", grant=grant, refresh_token=endpoints[name].refresh_token)
        tries = 2 if most == OWN else 1
        found = await brokerd.until(grant, lambda status: status["failures"] >= tries)
        assert str(status) in found["last_error"]
        if most == OWN:
            return
        since, now = found["next_renewal_at"] - before, time.time() - before
        assert least - 0.02 <= since <= most + now, (name, since, now)

    async with trio.open_nursery() as nursery:
        for name, (_, least, most) in RETRIES.items():
            nursery.start_soon(see, name, least, most)


@pytest.mark.parametrize("off", [-90.0, 0.0, 90.0])
async def test_a_clock_that_is_off_costs_a_token_no_more_than_two_seconds(
    brokerd: Brokerd, listening: Listening, off: float
) -> None:
    """ends: Unix seconds beside the token; iso: the same as ISO 8601; jwt: exp and iat; bare: exp alone; old: a JWT
    that the provider made half an hour before and gives out until it ends."""
    now = time.time() + off
    dated = f"Date: {formatdate(now, usegmt=True)}"
    start = int(now)
    claims = {
        "jwt": {"iat": start, "exp": start + 3_600},
        "bare": {"exp": start + 3_600},
        "old": {"iat": start - 1_800, "exp": start + 1_800},
    }
    bodies = {
        "ends": f'{{"access_token": "test-only-ends", "end": {start + 3_600}}}',
        "iso": f'{{"access_token": "test-only-iso", "end": "{formatted(start + 3_600)}"}}',
        **{
            name: f'{{"access_token": "{jwt.encode({"sub": "app", **said}, KEY, algorithm="HS256")}"}}'
            for name, said in claims.items()
        },
    }
    brokerd.write(RECIPE, "recipes/dated.toml")
    grants, tables = {}, {}
    for name, body in bodies.items():
        endpoint = await listening(Endpoint(name))
        endpoint.fault = say(http(200, body.encode(), dated))
        tables[name] = {"dialect": "dated", "base_url": f"http://127.0.0.1:{endpoint.port}"}
        grants[name] = {"provider": name, "credentials": {"key": "test-only-key"}}
    brokerd.configure(grants, tables)
    await brokerd.start()
    for name in bodies:
        await brokerd.get(name)
        status = await brokerd.status(name)
        lifetime = status["expires_at"] - time.time()
        true = (1_800 if name == "old" else 3_600) - (time.time() + off - now)
        assert true - 2.5 <= lifetime <= true + 0.2, (name, lifetime, true)


def formatted(wall: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(wall))


RECIPE = """
credentials = ["key"]
[[issue]]
request = "POST /token"
json = { key = "{key}" }
[answer]
access_token = { at = "access_token", expires_at = "end" }
"""

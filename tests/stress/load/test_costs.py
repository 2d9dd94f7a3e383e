# No request costs more than its charge (law 9): for each method, the most expensive request of a user without rights
# and of one with some, on a daemon with many grants and rules. Work is counted in calls of functions, not in time.
from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import trio
from trio.testing import MockClock

from brokerd.broker import grant_status
from brokerd.core.access.admission import BURST, HASHED, Account
from brokerd.core.access.policy import Action, Evidence, Policy, Rule, Selector
from brokerd.server.methods.parameters import MANY
from brokerd.server.methods.table import methods
from tests.scenario.access.methods import PORTAL, Desk, Program, desk
from tests.scenario.laws.world import ISSUING

RULES = 3_000
GRANTS = 300  # besides app
NAMES = 1_024  # that one status can ask for
STRANGER = 5_000  # a uid that no rule names
MOST = (
    400  # calls for each request that is charged; a get of a living token takes some two hundred, as it is logged here
)
MADE_UP = [f"made-up-{number}" for number in range(NAMES)]

USED = {
    "proxy": "api",
    "method": "GET",
    "path": "/",
    "status": 200,
    "requests": 1,
    "up": 1,
    "down": 1,
    "first": 1,
    "last": 2,
}
MANY_GRANTS = ISSUING + "".join(
    f'[grants.g{number}]\nprovider = "idp"\ngrant_type = "client_credentials"\non_demand = true\n'
    f'credentials = {{ client_id = "app", client_secret = "test-only-secret" }}\n'
    for number in range(GRANTS)
)
ASKED: dict[str, dict[str, Any]] = {
    "hello": {},
    "get": {"grant": MADE_UP[0]},
    "get_many": {"grants": MADE_UP[:MANY]},
    "proof": {"grant": MADE_UP[0], "http_method": "GET", "url": "https://api.test/" + "x" * 60_000},
    "share": {"grant": MADE_UP[0]},
    "proxied": {"grant": MADE_UP[0], "uses": [USED] * MANY},
    "watch": {"grants": MADE_UP[:MANY]},
    "unwatch": {"grants": MADE_UP[:MANY]},
    "status": {"grants": MADE_UP},
    "overview": {"grants": MADE_UP[:MANY]},
    "fleet": {},
    "watch_status": {},
    "verify": {"grant": MADE_UP[0]},
    "explain": {"grant": MADE_UP[0]},
    "metrics": {},
    "live": {},
    "ready": {},
    "grant_ready": {"grant": MADE_UP[0]},
    "refresh": {"grant": MADE_UP[0]},
    "trace": {"grant": MADE_UP[0]},
    "revoke": {"grant": MADE_UP[0]},
    "forget": {"grant": MADE_UP[0]},
    "adopt": {},
    "trust": {"provider": "idp"},
    "import": {"grant": MADE_UP[0], "refresh_token": "x" * 60_000},
    "import_part": {"grant": MADE_UP[0], "part": "x" * 60_000},
    "login": {"grant": MADE_UP[0]},
    "login_answer": {"login": "x", "step": 0, "answer": dict.fromkeys(MADE_UP[:MANY], "x")},
    "login_wait": {"login": "x", "step": 0},
    "reload": {},
    "lock": {},
    "unlock": {"passphrase": "x" * 60_000},
    "rotate_key": {"full": True},
    "backup": {},
    "seal_audit": {},
    "log_level": {},
    "test_event": {"event": "bug"},
}
ALLOWED: dict[str, dict[str, Any]] = {  # by a rule with wildcards, whether they are there or not
    "get": {"grant": "app"},
    "share": {"grant": "app"},
    "get_many": {"grants": ["app"] * MANY},
    "watch": {"grants": [f"g{number}" for number in range(MANY)]},
    "unwatch": {"grants": [f"g{number}" for number in range(MANY)]},
    "status": {},
    "status of each": {"grants": [f"g{number % GRANTS}" for number in range(NAMES)]},
    "explain": {"grant": "app"},
}


@functools.cache
def rules() -> tuple[Rule, ...]:
    """Nearly all of them are about others; every tenth about whoever is in a unit, so that it could be anybody's."""
    others = [
        Rule(
            (f"g{number % GRANTS}", f"team-{number}-*"), (Selector(uid=number) if number % 10 else Selector(unit="x"),)
        )
        for number in range(10_000, 10_000 + RULES)
    ]
    own = Rule(("app", "g*"), (Selector(uid=PORTAL),), frozenset({Action.GET, Action.STATUS}))
    Policy((*others, own), owner=990).about("")  # Python compiles each pattern once in a process's life
    return (*others, own)


async def work_of(here: Desk, session: Any, method: str, params: dict[str, Any]) -> int:
    """How many functions are called from the request to its answer, and what that brings about."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        await here.ask(session, method, **params)
    finally:
        sys.setprofile(None)
    return calls


def charged(account: Account) -> float:
    """Requests, at a rate of one a second."""
    return account.delay(trio.current_time()) + BURST


def test_every_method_has_its_row() -> None:
    assert set(ASKED) == set(methods(*[Mock() for _ in signature(methods).parameters]))


@pytest.mark.parametrize("at_once", [True, False], ids=["seen at once", "looked at in a thread"])
@pytest.mark.parametrize(
    ("uid", "method", "params"),
    [
        *((STRANGER, method, params) for method, params in ASKED.items()),
        *((PORTAL, method.split()[0], params) for method, params in ALLOWED.items()),
    ],
    ids=[*(f"stranger-{method}" for method in ASKED), *(f"portal-{method}" for method in ALLOWED)],
)
async def test_a_request_costs_no_more_than_its_charge(
    autojump_clock: MockClock, tmp_path: Path, uid: int, method: str, params: dict[str, Any], at_once: bool
) -> None:
    async with desk(tmp_path, Policy(rules(), owner=990), MANY_GRANTS) as here:
        await here.ask(here.session(Program(uid=990)), "get", grant="app")
        account = Account(rate=1.0)
        account.charge(BURST + 1.0, trio.current_time())
        session = here.session(Program(uid, at_once=at_once), account)
        for _ in range(2):  # the first one sorts out the rules
            before = charged(account)
            calls = await work_of(here, session, method, params)
            cost = 1.0 + charged(account) - before  # the connection charges for the message itself
            assert calls <= MOST * cost, f"{calls} calls, charged as {cost:g} requests"
        here.dispatcher.end(session)


@pytest.mark.parametrize("method", ["explain", "get"])
async def test_who_has_a_large_executable_hashed_is_charged_for_it(
    autojump_clock: MockClock, tmp_path: Path, method: str
) -> None:
    """256 MiB take half a second of a processor, and a change of their mode has them hashed again."""
    named = Rule(("app",), (Selector(uid=STRANGER, sha256="x"),))
    size = 256 << 20
    async with desk(tmp_path, Policy((named,), owner=990), ISSUING) as here:
        account = Account(rate=1.0)
        account.charge(BURST + 1.0, trio.current_time())
        session = here.session(Program(STRANGER, Evidence(sha256="y", hashed=size), at_once=False), account)
        before = charged(account)
        await here.ask(session, method, grant="app")
        assert charged(account) - before > size / HASHED
        here.dispatcher.end(session)


class Walked(tuple[str, ...]):
    """Counts how often somebody goes through it."""

    __slots__ = ()
    walks = 0

    def __iter__(self) -> Iterator[str]:
        Walked.walks += 1
        return super().__iter__()

    def __contains__(self, name: object) -> bool:
        return any(name == each for each in self)


def test_status_goes_through_what_was_granted_once() -> None:
    """Thousands of names come from a provider, and dozens are asked for: 4 ms for each grant of each status."""
    asked = [f"asked-{number}" for number in range(50)]
    grant: Any = SimpleNamespace(settings=SimpleNamespace(settings={"scope": [*asked, "a,b"]}))
    token: Any = SimpleNamespace(scope=Walked(("asked-0", "b", "a", *map(str, range(1_000)))))
    assert [*grant_status._dropped(grant, token)] == asked[1:]
    assert Walked.walks == 1

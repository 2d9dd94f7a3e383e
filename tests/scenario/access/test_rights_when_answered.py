# Law 9: rights are checked when the answer is written, however long the request has waited. A denied grant causes the
# same work as an unknown one.
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.access.policy import Action, Policy, Rule, Selector
from tests.scenario.access.methods import EVIL, PORTAL, RIGHT, Desk, Program, allows, desk
from tests.scenario.laws.world import ISSUING

TAKES = 5.0  # seconds that the provider does
ALL = tuple(Action)
BY_UID = Selector(uid=PORTAL)
BY_PROGRAM = Selector(uid=PORTAL, exe="/opt/portal")
ASKED: dict[str, dict[str, Any]] = {
    "get": {"grant": "app"},
    "get_many": {"grants": ["app"]},
    "proof": {"grant": "app", "http_method": "GET", "url": "https://api.test/"},
    "refresh": {"grant": "app"},
}
VARIANT = {"grant": "app", "scope": ["read"]}


def takes_the_rule_away(here: Desk, _process: Program) -> None:
    here.dispatcher.rights.policy = Policy()


def executes_another_program(_here: Desk, process: Program) -> None:
    process.evidence = EVIL


def ends(_here: Desk, process: Program) -> None:
    process.ended = True


CHANGES = [takes_the_rule_away, executes_another_program]


@pytest.mark.parametrize("at_once", [True, False], ids=["seen at once", "looked at in a thread"])
@pytest.mark.parametrize("happens", CHANGES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("method", ASKED)
@pytest.mark.parametrize("fails", [False, True], ids=["a token comes", "none comes"])
async def test_who_may_not_have_it_any_more_gets_what_an_unknown_grant_gets(
    autojump_clock: MockClock,
    tmp_path: Path,
    method: str,
    happens: Callable[[Desk, Program], None],
    at_once: bool,
    fails: bool,
) -> None:
    text = ISSUING.replace("[grants.app]", "[grants.app]\ndpop = true") if method == "proof" else ISSUING
    async with desk(tmp_path, allows(BY_PROGRAM, actions=ALL[:-1]), text) as here, trio.open_nursery() as nursery:
        here.provider.takes = TAKES
        if fails:
            here.provider.answers = [(503, {})] * 20
        process = Program(at_once=at_once)
        session, found = here.session(process), []

        async def ask() -> None:
            found.append(await here.ask(session, method, **ASKED[method]))

        nursery.start_soon(ask)
        await trio.sleep(TAKES / 2)
        assert found == []
        happens(here, process)
        await trio.sleep(60.0)
        (answer,) = found
        if method == "get_many":
            answer = answer[0]["error"]["code"]
        assert answer == "unknown_grant"


async def test_a_downscoped_token_that_was_waited_for_is_not_given_to_another_program(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    rules = Policy((Rule(("app",), (BY_PROGRAM,), scope=("read",)),), owner=990)
    async with desk(tmp_path, rules) as here, trio.open_nursery() as nursery:
        here.provider.takes = TAKES
        process, found = Program(), []
        session = here.session(process)

        async def ask() -> None:
            found.append(await here.ask(session, "get", **VARIANT))

        nursery.start_soon(ask)
        await trio.sleep(TAKES / 2)
        process.evidence = EVIL
        await trio.sleep(60.0)
        assert found == ["unknown_grant"]
        process.evidence = RIGHT
        assert "value" in await here.ask(session, "get", **VARIANT)


async def test_a_rule_that_goes_while_the_caller_is_looked_at_gives_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with desk(tmp_path, allows(BY_PROGRAM)) as here:
        process = Program(at_once=False)
        others = allows(Selector(uid=PORTAL, sha256="0"))
        process.while_looking = lambda: setattr(here.dispatcher.rights, "policy", others)
        assert await here.ask(here.session(process), "get", grant="app") == "unknown_grant"
        assert [kind for kind, needs in process.steps if "sha256" in needs] == ["look"]


async def test_a_caller_that_ended_while_it_waited_is_refused(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with desk(tmp_path, allows(BY_PROGRAM)) as here, trio.open_nursery() as nursery:
        here.provider.takes = TAKES
        process, found = Program(), []
        session = here.session(process)

        async def ask() -> None:
            found.append(await here.ask(session, "get", grant="app"))

        nursery.start_soon(ask)
        await trio.sleep(TAKES / 2)
        ends(here, process)
        await trio.sleep(60.0)
        assert found == ["denied"]


@pytest.mark.parametrize("happens", CHANGES, ids=lambda each: each.__name__)
async def test_a_push_goes_to_who_may_have_it_now(
    autojump_clock: MockClock, tmp_path: Path, happens: Callable[[Desk, Program], None]
) -> None:
    async with desk(tmp_path, allows(BY_PROGRAM)) as here:
        process = Program()
        session = here.session(process)
        assert "value" in await here.ask(session, "get", grant="app")
        await here.ask(session, "watch", grants=["app"])
        await trio.sleep(1.0)
        assert [method for method, _ in here.pushed] == ["token"]
        happens(here, process)
        await here.broker.refresh("app")
        await trio.sleep(1.0)
        assert [(method, params.get("code")) for method, params in here.pushed[1:]] == [("gone", "unknown_grant")]
        here.dispatcher.end(session)


class Login:
    """One that goes on by itself after a while, as from another connection."""

    id, step, result, has_ended = "1", 1, None, False
    prompt = None

    def __init__(self, here: Desk) -> None:
        self.grant = here.broker.grants["app"]

    async def wait_past(self, _step: int, _wait: float) -> None:
        await trio.sleep(TAKES)

    def answer(self, _step: int, _values: object) -> None:
        pass


@pytest.mark.parametrize("happens", CHANGES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("method", ["login_wait", "login_answer"])
async def test_a_login_is_shown_to_who_may_log_in_now(
    autojump_clock: MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    happens: Callable[[Desk, Program], None],
) -> None:
    async with desk(tmp_path, allows(BY_PROGRAM, actions=ALL[:-1])) as here, trio.open_nursery() as nursery:
        monkeypatch.setattr(here.broker.logins, "find", lambda *_: Login(here))
        process, found = Program(), []
        session = here.session(process)
        more: dict[str, object] = {"answer": {"code": "x"}} if method == "login_answer" else {}

        async def ask() -> None:
            found.append(await here.ask(session, method, login="1", step=0, **more))

        await ask()
        assert found.pop()["login"] == "1"
        nursery.start_soon(ask)
        await trio.sleep(TAKES / 2)
        happens(here, process)
        await trio.sleep(60.0)
        assert found == ["unknown_grant"]


# -- denied and unknown

HIDDEN = Rule(("app",), (BY_PROGRAM,), frozenset(ALL[:-1]))
OWN = Rule(("own*",), (BY_UID,))
NAMED: dict[str, dict[str, Any]] = {
    **ASKED,
    "watch": {"grants": ["app"]},
    "status": {"grants": ["app"]},
    "explain": {"grant": "app"},
    "verify": {"grant": "app"},
    "revoke": {"grant": "app"},
    "login": {"grant": "app"},
    "import": {"grant": "app", "refresh_token": "test-only"},
    "unwatch": {"grants": ["app"]},
}


def renamed(params: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: name if value == "app" else [name] if value == ["app"] else value for key, value in params.items()}


@pytest.mark.parametrize("at_once", [True, False], ids=["seen at once", "looked at in a thread"])
@pytest.mark.parametrize("method", NAMED)
async def test_denied_and_unknown_take_the_same_steps(
    autojump_clock: MockClock, tmp_path: Path, method: str, at_once: bool
) -> None:
    """A rule names the caller's user and another program."""
    async with desk(tmp_path, Policy((HIDDEN, OWN), owner=990)) as here:
        assert "value" in await here.ask(here.session(Program(uid=990)), "get", grant="app")

        async def steps(name: str) -> list[Any]:
            process, found = Program(evidence=EVIL, at_once=at_once), []
            session = here.session(process)
            for _ in range(3):
                before = trio.current_time()
                answer = await here.ask(session, method, **renamed(NAMED[method], name))
                found.append((str(answer).replace(name, "app"), round(trio.current_time() - before, 6)))
            return [*found, *process.steps]

        denied = await steps("app")
        assert denied == await steps("qqq")
        assert len(denied) > 3 or method == "unwatch"

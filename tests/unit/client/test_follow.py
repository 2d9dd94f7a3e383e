# `follow` of the asynchronous clients: it begins with the state of every grant, also of those that may not be used.
from __future__ import annotations

from typing import Any

import pytest
from brokerd_client import Gone, Limit, NoDaemon, Revoked, Token, UnknownGrant
from brokerd_client.on_trio import Broker

from tests.unit.client.daemon import Daemon


def answers(daemon: Daemon, gone: set[str]) -> None:
    """Watching "nope" is refused; the grants in `gone` have no token."""

    def watch(params: dict[str, Any]) -> dict[str, Any]:
        if "nope" in params["grants"]:
            raise UnknownGrant("no grant nope", grant="nope")
        return daemon.watching(params)

    def get_many(params: dict[str, Any]) -> list[dict[str, Any]]:
        assert params["wait"] == 0
        error = {"code": "revoked", "message": "over"}
        return [
            {"error": {**error, "grant": grant}} if grant in gone else {"token": daemon.token({"grant": grant})}
            for grant in params["grants"]
        ]

    daemon.answers |= {"watch": watch, "get_many": get_many}


def kinds(events: list[Token | Gone]) -> dict[str, type]:
    return {event.grant: Token if isinstance(event, Token) else type(event.error) for event in events}


async def test_it_begins_with_the_state_of_every_grant(daemon: Daemon) -> None:
    answers(daemon, {"old"})
    async with Broker() as broker, broker.follow("ix", "old", "nope") as events:
        assert kinds([await anext(events) for _ in range(3)]) == {"ix": Token, "old": Revoked, "nope": UnknownGrant}
        daemon.notify("gone", {"grant": "ix", "code": "revoked", "message": "over"})
        event = await anext(events)
        assert isinstance(event, Gone)
        assert (event.grant, daemon.connections) == ("ix", 1)


async def test_a_lost_daemon_is_said_and_the_state_comes_again(daemon: Daemon) -> None:
    gone: set[str] = set()
    answers(daemon, gone)
    async with Broker() as broker, broker.follow("ix") as events:
        assert isinstance(await anext(events), Token)
        daemon.stop()
        with pytest.raises(NoDaemon):
            await anext(events)
        with pytest.raises(NoDaemon):
            await anext(events)
        gone.add("ix")  # while nobody looked
        daemon.start()
        assert kinds([await anext(events)]) == {"ix": Revoked}


async def test_what_says_nothing_about_a_grant_is_no_event(daemon: Daemon) -> None:
    def limited(_: object) -> None:
        raise Limit("too many", retry_after=1.0)

    daemon.answers["watch"] = limited
    async with Broker() as broker, broker.follow("ix") as events:
        with pytest.raises(Limit):
            await anext(events)

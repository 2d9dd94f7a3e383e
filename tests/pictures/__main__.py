# python -m tests.pictures [FOLDER]: makes the pictures of the page. Look at each of them before you commit it.
from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import trio

from tests.pictures import night
from tests.scenario.daemon.harness import (
    FIVE,
    IMPORTED,
    READY_WITHIN,
    ROOT,
    Brokerd,
    Executed,
    Serving,
    Table,
    at,
    remove,
    until,
)
from tests.scenario.logins.chromium import Chromium
from tests.scenario.logins.terminal import Terminal
from tests.servers import OAUTH2_CLIENT, OAUTH2_USER, OAuth2
from tests.servers.oauth2 import Settings

HOUR = 3_600.0
END = 1_795_921_800.0  # 2026-11-29 03:10 UTC, when somebody is woken up and looks
CORP, CRM, MAIL = "corp", "crm", "mail"
LIFE = {CORP: HOUR, CRM: 1_800.0, MAIL: 6 * HOUR}  # of access tokens
NAMES = ("billing", "contracts", "exports", "hr-sync", "invoices", "leads", "orders", "payroll", "portal", "reports",
         "search", "shop", "stock", "support", "tickets", "webhooks", "wiki")  # fmt: skip
DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
WIDE, PHONE = (1_180, 860), (390, 844)


class World(NamedTuple):
    brokerd: Brokerd
    providers: dict[str, OAuth2]


Stop = tuple[float, Callable[[World], Awaitable[None]]]  # seconds before END, and what happens then


class Night(Brokerd):
    """brokerd, begun so many seconds before END."""

    stops: tuple[float, ...] = (0.0,)
    control: Path

    def _begin(self, arguments: list[str], output: int, module: str = "brokerd.daemon.main") -> Executed:
        longest = max(self.stops)
        stops = ",".join(str(longest - each) for each in sorted(self.stops, reverse=True))
        os.environ.update(TZ="UTC", NIGHT_CONTROL=str(self.control), NIGHT_STOPS=stops, NIGHT_BEGIN=str(END - longest))
        return Executed(arguments, output, night.__name__)


@asynccontextmanager
async def lived(grants: dict[str, Table], stops: list[Stop]) -> AsyncIterator[World]:
    """A daemon with these grants, through all stops until END."""
    folder = Path(tempfile.mkdtemp(prefix="brokerd-"))
    async with trio.open_nursery() as nursery:
        serving = Serving(nursery)
        providers = {}
        for name, life in LIFE.items():
            settings = Settings(access_lifetime=life, refresh_lifetime=90 * 86_400.0, date_header=False)
            providers[name] = await serving(OAuth2(settings))
        brokerd = Night(folder, nursery)
        brokerd.stops, brokerd.control = tuple(before for before, _ in stops), folder / "control"
        brokerd.configure(grants, {name: at(each) for name, each in providers.items()}, http=True)
        world = World(brokerd, providers)
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        await listener.bind(str(brokerd.control))
        listener.listen()
        brokerd.launch()
        control, _ = await listener.accept()
        await until(lambda: "event=ready" in brokerd.log, READY_WITHIN)
        for _, happens in sorted(stops, key=lambda each: -each[0]):
            assert await control.recv(1) == b".", brokerd.log[-3_000:]
            await happens(world)
            await control.send(b".")
        yield world
        with trio.CancelScope(shield=True):
            await brokerd.stop()
        nursery.cancel_scope.cancel()
    remove(folder)


# -- nights


def many(number: int) -> dict[str, Table]:
    """Grants of three providers, with names as people give them."""
    found: dict[str, Table] = {}
    for each in range(number):
        provider = (CORP, CORP, CRM, MAIL)[each % 4]
        name = f"{NAMES[each % len(NAMES)]}-{('prod', 'test', 'eu', 'us')[each // len(NAMES) % 4]}"
        name = name if name not in found else f"{name}-{each // (4 * len(NAMES)) + 1}"
        found[name] = FIVE["oauth2"] | {"provider": provider}
    return found


async def nothing(_world: World) -> None:
    pass


async def begins(world: World) -> None:
    """A person has logged in for one grant."""
    token = world.providers[CORP].new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read",))
    await world.brokerd.call("import", grant="calendar", refresh_token=token.value)


def down(provider: str, value: bool) -> Callable[[World], Awaitable[None]]:
    async def happens(world: World) -> None:
        world.providers[provider].down = value

    return happens


async def login_ends(world: World) -> None:
    """Somebody has ended the session at the provider."""
    provider = world.providers[CORP]
    for token in provider.ledger.of_kind("refresh"):
        provider.ledger.revoke_family(token.family)


async def password_changes(world: World) -> None:
    world.providers[MAIL].settings.clients.clear()


async def revoked(world: World) -> None:
    await world.brokerd.call("revoke", grant="wiki-prod", wait=0)


async def looked_at(world: World) -> None:
    """Callers have fetched tokens."""
    for name in ("orders-prod", "shop-prod"):
        await world.brokerd.call("status", grants=[name])


BAD_NIGHT: list[Stop] = [
    (14 * HOUR, begins),
    (7.4 * HOUR, down(CORP, True)),
    (6.2 * HOUR, down(CORP, False)),
    (4.5 * HOUR, revoked),
    (2.6 * HOUR, login_ends),
    (1.7 * HOUR, down(CRM, True)),
    (1.4 * HOUR, password_changes),
    (0.0, looked_at),
]


# -- pictures


async def photographs(world: World, folder: Path, wanted: dict[str, dict[str, Any]]) -> None:
    profile = Path(tempfile.mkdtemp(prefix="chromium-"))
    brokerctl = Terminal(world.brokerd.socket, ("page", "--no-browser"), is_tty=False, environment={})
    browser = Chromium(profile)
    try:
        said = await brokerctl.until("It ends with Ctrl-C")
        await browser.attach()
        await browser.call("Page.enable")
        await browser.call("Emulation.setScrollbarsHidden", hidden=True)
        await browser.open(next(word for word in said.split() if word.startswith("http://127.0.0.1:")))
        await browser.until("document.getElementById('tools')?.hidden === false")
        for name, how in wanted.items():
            width, height = how.get("size", WIDE)
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            await browser.call("Emulation.setDeviceMetricsOverride", **size)
            features = [{"name": "prefers-color-scheme", "value": how.get("scheme", "light")}]
            await browser.call("Emulation.setEmulatedMedia", features=features)
            place = f"document.querySelector({how.get('at', 'body')!r})"
            await browser.run(f"scrollTo(0, {place}.getBoundingClientRect().top + scrollY - 8)")
            await browser.call("Runtime.evaluate", expression=DRAWN, awaitPromise=True)
            (folder / f"{name}.png").write_bytes(await browser.picture(optimizeForSpeed=False))
    finally:
        browser.close()
        brokerctl.close()
        remove(profile)


async def make(folder: Path) -> None:
    calendar = {"calendar": IMPORTED | {"provider": CORP}}
    async with lived({"reports": FIVE["oauth2"] | {"provider": CORP}}, [(9 * HOUR, nothing), (0.0, nothing)]) as world:
        await photographs(world, folder, {"page-1-grant": {"size": (WIDE[0], 700)}})
    async with lived(many(39) | calendar, BAD_NIGHT) as world:
        shots = {
            "page-bad-night": {},
            "page-bad-night-dark": {"scheme": "dark"},
            "page-40-grants": {"at": "#others"},
            "page-phone": {"size": PHONE},
            "page-providers-and-events": {"at": "#providers"},
        }
        await photographs(world, folder, shots)
    hours = [(4 * HOUR, nothing), (2.2 * HOUR, down(CRM, True)), (1.8 * HOUR, down(CRM, False)), (0.0, nothing)]
    async with lived(many(1_000), hours) as world:
        await photographs(world, folder, {"page-1000-grants": {}})


if __name__ == "__main__":
    trio.run(make, Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures")

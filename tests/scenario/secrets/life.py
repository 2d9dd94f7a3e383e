# A full life of an installation: everything that an operator, an application and a stranger can do, in the order in
# which it may happen. Each part leaves what it wrote and heard with the World.
from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import trio
from brokerd_client.wire import pack_request

from brokerd.edge.store import key_file
from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import Table, _session, until
from tests.scenario.secrets.echo import KINDS
from tests.scenario.secrets.world import ENV, ODD, SOURCES, World
from tests.servers import OAUTH2_CLIENT, OAUTH2_USER

RECIPE = """# A test's own.
credentials = ["username", "password"]

[[issue]]
request = "POST /nothing/{password}"
basic = ["{username}", "{password}"]
json    = { name = "{username}", password = "{password}", other = "{password}" }

[answer]
access_token  = "access"
"""


async def serving(world: World) -> None:
    """Started; asked, watched, renewed, with variants, by its socket and by brokerctl."""
    brokerd, fleet = world.brokerd, world.fleet
    await brokerd.start()
    async with brokerd.caller() as watcher:
        await watcher.call("watch", grants=list(world.grants)[:60])
        await world.ask("get_many", grants=[name for name in world.grants if name != "imported"], wait=20)
        imported = fleet.oauth2.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT).value
        await world.ask("import", grant="imported", refresh_token=imported)
        for name in world.grants:
            value = (await world.ask("get", grant=name)).get("value")
            assert value, f"{name} has no token"
        for source in SOURCES:
            await world.ask("refresh", grant=f"by-{source}")
            await world.ask("get", grant=f"by-{source}", scope=["read"])
        for name in ("ix", "oauth2-password", "imported", "treezor"):
            await world.ask("refresh", grant=name)
            await world.ask("get", grant=name, refused=world.new("refused"), wait=1)
        world.heard(*(event for event in watcher.events if event[0] == "gone"))
    await world.ask("status")
    for method in ("metrics", "ready", "live"):
        await world.ask(method)
    await world.ask("grant_ready", grant="by-text")
    await world.ask("overview")
    await world.ask("verify", grant="by-text")
    await world.ask("proof", grant="by-text", http_method="GET", url="https://x.example/")
    await commands(world)
    world.look("serving")


async def commands(world: World) -> None:
    """Every command of brokerctl that changes nothing, or nothing for long."""
    config, etc = world.brokerd.config, world.brokerd.etc
    lines = f"username = 'somebody'\npassword = {{ file = '{world.file('secrets/tried', world.new('tried', ODD))}' }}\n"
    tried = world.file("tried.toml", lines)
    recipe, base = world.file("own.toml", RECIPE), world.echo.url
    own = str(os.getpid())
    quiet: tuple[tuple[object, ...], ...] = (
        ("version",),
        ("status",),
        ("status", "--json"),
        ("status", "by-file", "--verify"),
        ("explain", "by-text"),
        ("explain", "by-text", "--pid", own),
        ("explain", "by-text", "--as", "nobody", "--json"),
        ("refresh", "by-env"),
        ("adopt",),
        ("trust", "oauth2"),
        ("reload",),
        ("forget", "by-env"),
        ("backup", world.brokerd.folder / "backup"),
        ("keygen", etc / "key"),
        ("keygen", world.brokerd.folder / "no-such-folder" / "key"),
        ("recipe", "list"),
        ("recipe", "show", "ix-api"),
        ("recipe", "check", recipe),
        *(
            ("recipe", "try", recipe, "--base-url", f"{base}/{kind}", "--credentials", tried)
            for kind in ("page", "code")
        ),
        ("audit", "tail", "-n", "1000", "--config", config),
        ("audit", "tail", "-n", "1000", "--json", "--config", config),
        ("audit", "verify", "--config", config),
        ("doctor", "--config", config),
        ("add", "--issuer", world.echo.url, "--config", config),
        ("revoke", "by-env"),
        ("get", "no-such-grant", "and", world.new("typed")),
    )
    async with trio.open_nursery() as nursery:
        for words in quiet:
            nursery.start_soon(world.ctl, *words)
        nursery.start_soon(lambda: world.ctl(*("get", "by-text"), tokens=True))
        nursery.start_soon(lambda: world.ctl(*("exec", "by-text", "--", "true"), tokens=True))
        nursery.start_soon(lambda: world.ctl(*("import", "by-text"), stdin=world.new("piped")))
        nursery.start_soon(lambda: world.ctl(*("import", "imported", world.new("typed"))))


async def strangers(world: World) -> None:
    """Another user of the machine, where we can be one, who may have one token, tries all that there is; and what is no
    request."""
    if os.geteuid() == 0:
        await denied(world, User(60_900, 60_900))
    for data in (b"\x94\x00\x01\xa3get\x91\x81\xa5grant\xc4\x05bytes", pack_request(1, "get", {})[:-1] + b"\xc1"):
        async with world.brokerd.caller() as caller:
            await caller.stream.send_all(data)
            world.heard(await caller.answer(None))


async def denied(world: World, user: User) -> None:
    async with user.connected(world.brokerd) as connection:
        given = world.new("strangers")
        for method, params in (
            ("get", {"grant": "ix"}),
            ("get", {"grant": "no-such-grant"}),
            ("get", {"grant": "by-text", "refused": given, "wait": 0}),
            ("get", {"grant": "by-text", "scope": ["admin"]}),
            ("status", {}),
            ("status", {"grants": ["ix"]}),
            ("explain", {"grant": "ix"}),
            ("explain", {"grant": "ix", "pid": world.brokerd.pid}),
            ("refresh", {"grant": "by-text"}),
            ("import", {"grant": "by-text", "refresh_token": given}),
            ("login", {"grant": "oauth2-password"}),
            ("unlock", {"passphrase": given}),
            ("rotate_key", {"passphrase": given}),
            ("backup", {}),
            ("lock", {}),
            ("reload", {}),
            ("get", {"grant": ["by-text"]}),
            ("no-such-method", {}),
        ):
            answer = await connection.call(method, **params)
            if "value" not in answer:
                world.heard(answer)


async def mistakes(world: World) -> None:
    """Files that are wrong, with secrets in the wrong places; a reload of each, and what the log says."""
    right = world.brokerd.config.read_text()

    def grant(credentials: str) -> str:
        return f'\n[grants.wrong]\nprovider = "oauth2"\ngrant_type = "password"\ncredentials = {credentials}\n'

    new = world.new
    wrong = (
        grant(f'{{ client_id = "x", client_secret = ["{new("array")}"] }}'),
        grant(f'{{ client_id = "x", client_secret = {{ text = "{new("text")}" }} }}'),
        grant(f'{{ client_id = "x", client_secret = {{ file = "{new("path")}" }} }}'),
        grant(f'{{ client_id = "x", client_secret = {{ command = "{new("command")}" }} }}'),
        grant(f'{{ client_id = "x", client_secret = {{ command = ["{new("program")}"] }} }}'),
        grant(f'{{ client_id = "x", client_secret = {{ credential = "../{new("credential")}" }} }}'),
        grant(f'{{ client_id = "x", secret = "{new("misnamed")}" }}'),
        grant(f'"{new("alone")}"'),
        grant(f'["{new("listed")}"]'),
        grant(f'{{ client_id = "x", client_secret = "{new("broken")}'),
        grant(f'{{ client_id = "x", client_secret = "{new("repeated")}", client_secret = "{new("repeated")}" }}'),
        f'\n[providers."{new("table")}\n',
        f'\n[providers.wrong]\ndialect = "oauth2"\ntoken_url = "https://me:{new("url")}@x.example/token"\n',
        f'\n[providers.wrong]\ndialect = "oauth2"\nissuer = "https://me:{new("issuer")}@x.example"\n',
        f'\n[providers.wrong]\ndialect = "oauth2"\ntoken_url = "https://x.example/"\nproxy = "http://a:{new("proxy")}@x"\n',
    )
    refused = 0
    for text in wrong:
        world.brokerd.write(right + text)
        refused += (await world.ask("reload")).get("code") == "misconfigured"
    assert refused >= len(wrong) - 1, "a proxy may have a password"
    world.brokerd.signal(signal.SIGHUP)
    world.brokerd.write(right)
    await world.ask("reload")


async def refusals(world: World) -> None:
    """Providers that refuse, fail and give back what they were sent."""
    fleet = world.fleet
    late = {f"late-{name}": grant for name, grant in world.grants.items()}
    late["headers"] = {**late["late-by-file"], "credentials": lines_in(world)}
    forget_everybody(world)
    echoing = world.echoing()
    world.configure({**late, **echoing})
    await world.ask("reload")
    for name in (*world.grants, *late, *echoing):
        await world.ask("refresh", grant=name, wait=1)
        await world.ask("get", grant=name, wait=1)
    world.heard(await until_heard(world))
    await world.ask("import", grant="imported", refresh_token=world.new("unknown"))
    await world.ask("get", grant="imported", wait=1)
    fleet.treezor.fail_with(503)
    await world.ask("import", grant="treezor", refresh_token=world.new("unknown"))
    await world.ask("get", grant="treezor", wait=1)
    await world.ask("status")
    await world.ask("overview")
    await world.ctl("status")
    world.look("refused")
    for name in echoing:
        await world.ask("revoke", grant=name, wait=1)


def lines_in(world: World) -> Table:
    """A secret that no header can carry."""
    return {"client_id": "by-file", "client_secret": world.new("lines", "\n\x1b\u202e")}


async def until_heard(world: World) -> object:
    """Every kind of echo was met."""
    await until(lambda: len({each.path for each in world.echo.requests}) >= len(KINDS))
    return await world.ask("status")


def forget_everybody(world: World) -> None:
    """Nobody's credentials are right any more, and no refresh token either."""
    fleet = world.fleet
    fleet.ix_api.settings.keys.clear()
    fleet.occam.settings.users.clear()
    fleet.occam.settings.keys.clear()
    fleet.treezor.settings.users.clear()
    fleet.click2mail.settings.clients.clear()
    fleet.oauth2.settings.clients.clear()
    for provider in fleet.by_name.values():
        for token in provider.ledger.tokens.values():
            token.revoked = True


async def keeping(world: World) -> None:
    """Keys: locked, unlocked, rotated, a passphrase; a backup that is put back."""
    brokerd = world.brokerd
    file = brokerd.folder / "backup-2"
    world.learn_data_keys(brokerd.key)
    await world.ctl("backup", file)
    await world.ctl("lock")
    world.look("locked")
    await world.ask("get", grant="by-text")
    await world.ctl("unlock")
    new = brokerd.etc / "key.new"
    key_file.create(new)
    world.secret(new.read_text().strip(), "key file")
    right = brokerd.config.read_text()
    ours = f'key = {{ "file" = "{brokerd.key}" }}'
    brokerd.write(right.replace(ours, f'key = {{ "file" = "{new}" }}\nprevious_{ours}'))
    assert "encrypted with the new key" in await world.ctl("key", "rotate")
    assert "with a new data key" in await world.ctl("key", "rotate", "--full")
    world.learn_data_keys(new)
    world.look("rotated")
    passphrase, wrong = world.new("passphrase", ODD), world.new("wrong-passphrase", ODD)
    brokerd.write(right.replace(ours, "key = { passphrase = true }"))
    await world.ask("rotate_key", passphrase=passphrase)
    await world.ask("backup")
    assert await brokerd.stop() == 0
    await brokerd.start()
    await world.ask("unlock", passphrase=wrong)
    await world.ctl("unlock", stdin=f"{wrong}\n")
    await world.ask("unlock", passphrase=passphrase, new=True)
    await brokerd.until_unlocked(passphrase)
    assert "unchanged" in await world.ctl("audit", "verify", "--config", brokerd.config, stdin=f"{passphrase}\n")
    world.look("unlocked by a passphrase")
    assert await brokerd.stop() == 0
    await world.ctl("restore", file, "--state-dir", brokerd.state, "--force")
    brokerd.own()
    brokerd.write(right)
    await brokerd.start()
    await world.ask("refresh", grant="by-text", wait=1)
    await world.ctl("adopt")
    world.look("restored")
    await core(world)


async def faults(world: World) -> None:
    """Bugs of brokerd's own, in every place where it catches them."""
    brokerd, numbers = world.brokerd, world.brokerd.folder / "metrics"
    settings = world.fleet.oauth2.settings
    for source in SOURCES:
        settings.clients[f"by-{source}"] = client_with(world, source)
    brokerd.module, brokerd.before = "tests.scenario.secrets.bugs", (str(numbers),)
    world.grants["asked"] = asked = {**world.grants["oauth2-password"]}
    asked["credentials"] = {name: each for name, each in asked["credentials"].items() if name != "password"}
    world.configure()
    await brokerd.start()
    with contextlib.suppress(EOFError, trio.BrokenResourceError):  # the first connection meets a bug
        await world.ask("status")
    await world.ask("login", grant="asked", wait=1)
    for name in world.grants:
        for _ in range(2):
            await world.ask("refresh", grant=name, wait=1)
    await world.ask("status")
    await world.ask("metrics")
    await world.ask("overview")
    for name in world.grants:
        await world.ask("revoke", grant=name, wait=1)
        await world.ask("get", grant=name)
    assert await brokerd.stop() == 0
    brokerd.module, brokerd.before = "brokerd.daemon.main", ()
    world.look("at its end")


def client_with(world: World, source: str) -> Any:
    """The provider knows the client again."""
    from tests.servers.oauth2 import Client

    credentials = world.grants[f"by-{source}"]["credentials"]
    given = credentials["client_secret"]
    if source == "env":
        given = dict(each.split("=", 1) for each in world.brokerd.its_environment)[ENV]
    elif source != "text":
        folder = world.brokerd.folder / "credentials"
        given = (
            folder / "its-secret" if source == "credential" else world.brokerd.etc / "secrets" / source
        ).read_text()
    return Client(credentials["client_id"], given)


async def core(world: World) -> None:
    """Killed as by a bug of an interpreter's, with no limit on cores: there is none."""
    brokerd = world.brokerd
    assert brokerd._process is not None
    brokerd.signal(signal.SIGABRT)
    with trio.fail_after(20):
        await trio.lowlevel.wait_readable(brokerd._process.end)
    ended = await trio.to_thread.run_sync(os.waitid, os.P_PID, brokerd.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert ended.si_code == os.CLD_KILLED, "it left a core"
    await until(lambda: _session(brokerd.pid) == [brokerd.pid])  # a command for a secret may have outlived it
    await brokerd.ended()


PARTS = (serving, strangers, mistakes, refusals, keeping, faults)

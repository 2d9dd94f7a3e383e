# Browser logins by the real brokerd and brokerctl at npm's oidc-provider, before the eyes of another user of the
# machine who wants their own account in somebody else's grant.
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from html import escape
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from brokerd_client import Denied

from brokerd.ctl.browser.loopback import Loopback
from tests.real.servers import LOGIN_SCOPE, OidcProvider, introspect
from tests.real.servers.browser import Arrived, Browser, Page, log_in
from tests.scenario.daemon.harness import SOON, Brokerd, Table, until
from tests.scenario.logins.terminal import Terminal

pytestmark = pytest.mark.real
Start = Callable[..., Terminal]
PKCE = {"client_id": "code-pkce"}


def provider(server: OidcProvider) -> Table:
    return {"dialect": "oauth2", "issuer": server.issuer, "ca_file": server.ca_file}


def by_urls(server: OidcProvider) -> Table:
    """The same without its metadata: nobody knows the issuer."""
    urls = {"token_url": server.token_url, "authorization_url": f"{server.url}/auth"}
    return {"dialect": "oauth2", "ca_file": server.ca_file, **urls}


def grant(credentials: Table = PKCE, **more: object) -> Table:
    scope = LOGIN_SCOPE.split()
    return {"provider": "op", "grant_type": "authorization_code", "scope": scope, "credentials": credentials, **more}


def ask(url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    """One request to the loopback port, with exactly these headers."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with contextlib.closing(HTTPConnection(parts.hostname, parts.port, timeout=10)) as connection:
        connection.putrequest(method, f"{parts.path}?{parts.query}", skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        with connection.getresponse() as response:
            assert response.headers["Cache-Control"] == "no-store"
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            return response.status, response.headers.get("Set-Cookie", "") + response.read().decode()


def answers(url: str) -> bool:
    """Whether anybody listens there."""
    try:
        ask(url)
    except OSError:
        return False
    return True


async def person(server: OidcProvider, url: str, user: str = "alice", *, deny: bool = False) -> Page:
    return await trio.to_thread.run_sync(lambda: log_in(Browser(server.ca_file), url, user=user, deny=deny))


async def start_url(terminal: Terminal) -> str:
    """What a person at `brokerctl login --json` is to open."""
    kinds = []
    while "open" not in (said := await terminal.json()):
        kinds.append(said["prompt"]["kind"])
    assert kinds == ["listen", "browser"]
    url = said["open"]
    assert isinstance(url, str)
    return url


async def test_a_person_logs_in_and_another_account_needs_his_word(
    brokerd: Brokerd, real_oidc: OidcProvider, terminal: Start
) -> None:
    brokerd.configure({"app": grant()}, {"op": provider(real_oidc)})
    await brokerd.start()
    first = terminal("login", "app", "--json")
    page = await person(real_oidc, await start_url(first))
    assert "Done" in page.text
    assert "alice" in page.text
    assert (await first.json())["done"] == {"generation": 1, "stored": True, "subject": "alice", "note": None}
    assert await first.end() == 0
    alice = await brokerd.get("app")
    assert introspect(real_oidc, alice)["sub"] == "alice"
    assert alice not in first.said + brokerd.log

    second = terminal("login", "app", "--json")
    page = await person(real_oidc, await start_url(second), "bob")
    assert "Go back to the terminal" in page.text
    assert (await second.json())["prompt"] == {"kind": "confirm", "waits": True, "was": "alice", "now": "bob"}
    assert await second.end() == 3
    assert "and now as bob." in second.said
    assert introspect(real_oidc, await brokerd.get("app"))["sub"] == "alice"
    await brokerd.until("app", lambda status: status["pending_revocations"] == 0)
    assert brokerd.log.count("operation=revoke outcome=done") == 2  # what bob was given

    asked = terminal("login", "app", is_tty=True)
    said = await asked.until("waiting for the browser")
    await person(real_oidc, next(word for word in said.split() if "/start/" in word), "bob")
    await asked.until("app was logged in as alice, and now as bob. Change the account? [y/N]")
    asked.type("y\n")
    assert await asked.end() == 0
    assert introspect(real_oidc, await brokerd.get("app"))["sub"] == "bob"

    ahead = terminal("login", "app", "--json", "--yes")
    await person(real_oidc, await start_url(ahead), "alice")
    assert await ahead.end() == 0
    assert introspect(real_oidc, await brokerd.get("app"))["sub"] == "alice"


async def test_another_user_of_the_machine_cannot_finish_the_login(
    brokerd: Brokerd, real_oidc: OidcProvider, terminal: Start
) -> None:
    brokerd.configure({"app": grant()}, {"op": by_urls(real_oidc)})
    await brokerd.start()
    mine = terminal("login", "app", "--json")
    assert (await mine.json())["prompt"]["kind"] == "listen"
    prompt = (await mine.json())["prompt"]
    url = (await mine.json())["open"]
    parts = urlsplit(url)
    back = f"http://{parts.netloc}/callback"
    asked = parse_qs(urlsplit(prompt["url"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [back]

    def hostile() -> None:
        # Without having seen the start page, and even where he knows `state`, he has no cookie.
        good = f"{back}?code=test-only-malory&state={prompt['state']}"
        assert ask(good)[0] == 403
        assert ask(good, Cookie=f"brokerctl_{parts.port}=test-only-guess")[0] == 403
        assert ask(url, Host="evil.example")[0] == 403
        assert ask(url, Host=f"localhost:{parts.port}")[0] == 403
        assert ask(f"http://{parts.netloc}/")[0] == 404
        assert ask(f"http://{parts.netloc}/start/test-only-guess")[0] == 404
        assert ask(url, "POST")[0] == 405
        assert ask(back, "PUT")[0] == 405
        status, seen = ask(url)
        assert (status, "HttpOnly" in seen, "SameSite=Lax" in seen) == (302, True, True)
        cookie = seen.split(";")[0]
        assert ask(url, Cookie=cookie)[0] == 302, "it goes on working for this browser"
        # A page elsewhere sends the right browser here with an answer of its own (login CSRF).
        assert ask(f"{back}?code=test-only-malory&state=test-only-malory", Cookie=cookie)[0] == 403
        assert ask(f"{back}?code=test-only-malory", Cookie=cookie)[0] == 403
        assert ask(f"{back}?code=a&code=b&state={prompt['state']}", Cookie=cookie)[0] == 403
        # The right browser with an account of his: what he got by a login of his own is bound to his own verifier.
        _, page = ask(f"{back}?code=test-only-malory&state={prompt['state']}", Cookie=cookie)
        assert "The login failed" in page
        end = time.monotonic() + SOON
        while answers(url):  # until brokerctl has said its last word
            assert time.monotonic() < end

    await trio.to_thread.run_sync(hostile)
    assert await mine.end() == 3
    assert (await brokerd.status("app"))["generation"] == 0


async def test_a_second_visitor_ends_the_login_with_an_alarm(
    brokerd: Brokerd, real_oidc: OidcProvider, terminal: Start
) -> None:
    brokerd.configure({"app": grant()}, {"op": provider(real_oidc)})
    await brokerd.start()
    mine = terminal("login", "app", is_tty=True)
    url = next(word for word in (await mine.until("waiting for the browser")).split() if "/start/" in word)
    assert (await trio.to_thread.run_sync(ask, url))[0] == 302
    status, page = await trio.to_thread.run_sync(ask, url)
    assert (status, "this login was ended" in page) == (410, True)
    assert await mine.end() == 3
    assert "opened in a second browser" in mine.said
    await brokerd.said("LOGIN ALARM")
    assert (await brokerd.status("app"))["generation"] == 0


async def test_the_account_is_named_before_anything_is_kept(
    brokerd: Brokerd, real_oidc: OidcProvider, terminal: Start
) -> None:
    brokerd.configure({"app": grant()}, {"op": provider(real_oidc)})
    await brokerd.start()
    mine = terminal("login", "app", is_tty=True)
    url = next(word for word in (await mine.until("waiting for the browser")).split() if "/start/" in word)
    await person(real_oidc, url)
    await mine.until("app: logged in as alice")
    named = mine.said.index("app: according to the provider, this is the account alice")
    assert named < mine.said.index("app: logged in as alice")


async def test_an_alarm_at_the_last_moment_keeps_nothing_and_gives_back(
    brokerd: Brokerd, real_oidc: OidcProvider
) -> None:
    """By the protocol, as any listener for the browser may say it."""
    brokerd.configure({"app": grant()}, {"op": provider(real_oidc)})
    await brokerd.start()
    async with brokerd.caller() as caller:

        async def answer(at: Table, said: dict[str, str]) -> Table:
            params = {"login": at["login"], "step": at["step"], "answer": said, "wait": SOON}
            next_one: Table = await caller.call("login_answer", **params)
            return next_one

        at = await caller.call("login", grant="app", account=True, wait=SOON)
        with contextlib.closing(Loopback(at["prompt"]["redirect_uri"], None)) as loopback:
            at = await answer(at, {"port": str(loopback.port)})
            loopback.ready(at["prompt"]["url"], at["prompt"]["state"])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(person, real_oidc, loopback.start_url)
                came = await trio.to_thread.run_sync(loopback.answers.get)
                came.show(b"seen")
        at = await answer(at, came.fields)
        assert at["prompt"] == {"kind": "account", "waits": True, "now": "alice"}
        with pytest.raises(Denied, match="second browser"):
            await answer(at, {"alarm": "second_visitor"})
    status = await brokerd.until("app", lambda status: status["pending_revocations"] == 0)
    assert (status["state"], status["expires_at"]) == ("needs_login", None), "nothing was kept"
    await brokerd.said("LOGIN ALARM")
    assert brokerd.log.count("operation=revoke outcome=done") == 2, "what was given was given back"


async def test_the_browsers_command_line_holds_no_address_that_grants_something(
    brokerd: Brokerd, real_oidc: OidcProvider, terminal: Start, tmp_path: Path
) -> None:
    """Both kinds: our own one-time address, and the provider's, whose `state` is what a pasted answer is known by."""
    elsewhere = grant(redirect_uri="https://client.test/cb")
    brokerd.configure({"app": grant(), "far": elsewhere}, {"op": by_urls(real_oidc)})
    await brokerd.start()
    seen = tmp_path / "seen"
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{seen}.new\nmv {seen}.new {seen}\n")
    browser.chmod(0o755)
    for name, end in (("app", "waiting for the browser"), ("far", "Paste its whole address here")):
        surroundings = {"BROWSER": str(browser), "XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(tmp_path)}
        mine = terminal("login", name, "--browser", is_tty=True, **surroundings)
        said = await mine.until(end)
        url = next(word for word in said.split() if "/start/" in word or word.startswith(f"{real_oidc.url}/auth"))
        await until(seen.exists)
        (argument,) = seen.read_text().split()
        file = Path(urlsplit(argument).path)
        assert argument == file.as_uri()
        assert file.is_relative_to(runtime)
        assert [each.stat().st_mode & 0o777 for each in (file, file.parent)] == [0o600, 0o700]
        assert f"0;url={escape(url)}" in await trio.Path(file).read_text(), "what the browser finds in the file"
        mine.interrupt()
        assert await mine.end() == 130
        assert not list(runtime.iterdir()), "the file goes with the login"
        seen.unlink()


async def test_what_a_person_denies_changes_nothing_and_what_is_missing_is_said(
    brokerd: Brokerd, real_oidc: OidcProvider, terminal: Start
) -> None:
    brokerd.configure({"app": grant(scope=["openid", "api:read"])}, {"op": by_urls(real_oidc)})
    await brokerd.start()
    denied = terminal("login", "app", "--json")
    page = await person(real_oidc, await start_url(denied), deny=True)
    assert "The login failed" in page.text
    assert "access_denied" in page.text
    assert await denied.end() == 3
    short = terminal("login", "app", "--json")
    await person(real_oidc, await start_url(short))
    assert "offline_access" in (await short.json())["done"]["note"]
    assert await short.end() == 0
    assert introspect(real_oidc, await brokerd.get("app"))["active"] is True
    status = await brokerd.until("app", lambda status: status["state"] == "needs_login")
    assert status["remedy"] == "brokerctl login app"


async def test_over_ssh_the_address_of_a_page_that_did_not_load_is_pasted(
    brokerd: Brokerd, real_oidc: OidcProvider, terminal: Start
) -> None:
    brokerd.configure({"app": grant()}, {"op": by_urls(real_oidc)})
    await brokerd.start()
    mine = terminal("login", "app", is_tty=True, SSH_CONNECTION="192.0.2.1 1 192.0.2.2 22")
    said = await mine.until("waiting for the browser")
    port = urlsplit(next(word for word in said.split() if "/start/" in word)).port
    assert f"ssh -L {port}:127.0.0.1:{port}" in said
    url = next(word for word in said.split() if word.startswith(f"{real_oidc.url}/auth"))
    with pytest.raises(HTTPError) as refused:  # by the port, which has never seen this browser
        await person(real_oidc, url)
    refused.value.close()
    mine.type(refused.value.url + "\n")
    await mine.until("app: logged in as alice")
    assert await mine.end() == 0
    assert introspect(real_oidc, await brokerd.get("app"))["sub"] == "alice"


async def test_an_address_elsewhere_is_pasted_too(brokerd: Brokerd, real_oidc: OidcProvider, terminal: Start) -> None:
    """A pushed request (RFC 9126) whose answer goes to a place that is not there, as the client is registered."""
    credentials = {"client_id": "code-par", "client_secret": real_oidc.clients["code-par"].secret}
    brokerd.configure(
        {"app": grant(credentials, redirect_uri="https://client.test/cb", pushed_request=True)},
        {"op": provider(real_oidc)},
    )
    await brokerd.start()
    mine = terminal("login", "app", is_tty=True)
    said = await mine.until("Paste its whole address here")
    url = next(word for word in said.split() if word.startswith(real_oidc.url))
    assert set(parse_qs(urlsplit(url).query)) == {"client_id", "request_uri"}
    with pytest.raises(Arrived) as arrived:
        await person(real_oidc, url)
    mine.type("https://client.test/cb?code=test-only-malory&state=test-only-malory\n")
    await mine.until("that is not the address at which this login ends")
    mine.type(arrived.value.url + "\n")
    await mine.until("app: logged in as alice")
    assert await mine.end() == 0
    assert introspect(real_oidc, await brokerd.get("app"))["sub"] == "alice"

# Browser logins by the real brokerd and brokerctl at npm's oidc-provider, before the eyes of another user of the
# machine who wants his own account in somebody else's grant.
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from http.client import HTTPConnection
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

import pytest
import trio

from tests.daemon.harness import SOON, Brokerd, Table
from tests.logins.terminal import Terminal
from tests.realservers import LOGIN_SCOPE, OidcProvider, introspect
from tests.realservers.browser import Arrived, Browser, Page, log_in

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
    assert "this login is bob's" in second.said
    assert introspect(real_oidc, await brokerd.get("app"))["sub"] == "alice"
    await brokerd.until("app", lambda status: status["pending_revocations"] == 0)
    assert brokerd.log.count("operation=revoke outcome=done") == 2  # what bob was given

    asked = terminal("login", "app", is_tty=True)
    said = await asked.until("waiting for the browser")
    await person(real_oidc, next(word for word in said.split() if "/start/" in word), "bob")
    await asked.until("app was logged in as alice; this login is bob's. Change it? [y/N]")
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
        assert ask(good, Cookie=f"brokerd_login_{parts.port}=test-only-guess")[0] == 403
        assert ask(url, Host="evil.example")[0] == 403
        assert ask(url, Host=f"localhost:{parts.port}")[0] == 403
        assert ask(f"http://{parts.netloc}/")[0] == 404
        assert ask(f"http://{parts.netloc}/start/test-only-guess")[0] == 404
        assert ask(url, "POST")[0] == 405
        assert ask(back, "PUT")[0] == 405
        status, seen = ask(url)
        assert (status, "HttpOnly" in seen, "SameSite=Lax" in seen) == (302, True, True)
        cookie = seen.split(";")[0]
        assert ask(url)[0] == 410, "the start page works for one browser"
        assert ask(url, Cookie=cookie)[0] == 302, "… and goes on working for that one"
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
    said = await mine.until("paste its whole address here")
    url = next(word for word in said.split() if word.startswith(real_oidc.url))
    assert set(parse_qs(urlsplit(url).query)) == {"client_id", "request_uri"}
    with pytest.raises(Arrived) as arrived:
        await person(real_oidc, url)
    mine.type("https://client.test/cb?code=test-only-malory&state=test-only-malory\n")
    await mine.until("that is not the address where this login ends")
    mine.type(arrived.value.url + "\n")
    await mine.until("app: logged in as alice")
    assert await mine.end() == 0
    assert introspect(real_oidc, await brokerd.get("app"))["sub"] == "alice"

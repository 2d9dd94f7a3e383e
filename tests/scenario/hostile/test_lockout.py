# A provider that locks an account after five wrong tries: each wrong password reaches it once, whatever restarts,
# reloads and rewritten files there are, and however many grants have it (law 7). Other refused secrets are tried again.
from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, Table, at
from tests.servers import (
    OAUTH2_CLIENT,
    OAUTH2_PASSWORD,
    OAUTH2_SECRET,
    OAUTH2_USER,
    OCCAM_PASSWORD,
    OCCAM_USER,
    OAuth2,
    Occam,
    occam,
)
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Refusal

RESTARTS = 20
TRIES = 5
WRONG = "test-only-wrong-password"


class Locking(Occam):
    """After five wrong passwords no password is right any more."""

    def wrong_credentials(self) -> None:
        super().wrong_credentials()
        if self.counts.wrong_credentials >= TRIES:
            self.settings.users.clear()


def with_password(file: Path) -> Table:
    return {"provider": "occam", "credentials": {"username": OCCAM_USER, "password": {"file": file}}}


async def refused(brokerd: Brokerd, name: str, *, by_hand: bool = False) -> None:
    error = await brokerd.error("refresh" if by_hand else "get", grant=name)
    assert error["code"] == "misconfigured", error


async def again(brokerd: Brokerd, number: int) -> None:
    """A restart, one way or the other."""
    if number % 2:
        await brokerd.restart()
    else:
        await brokerd.stop()
        await brokerd.start()


async def test_a_wrong_password_is_tried_once_over_restarts_reloads_and_rewritten_files(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(Locking())
    file = brokerd.write(WRONG, "password")
    brokerd.configure({"app": with_password(file)}, {"occam": at(provider)})
    await brokerd.start()
    await refused(brokerd, "app")
    for number in range(RESTARTS):
        await again(brokerd, number)
        await refused(brokerd, "app")
        file.write_text(f"{WRONG}\n")  # the same password, written again
        await brokerd.call("reload")
        await refused(brokerd, "app")
    assert provider.count() == 1
    file.write_text("test-only-wrong-as-well")
    await brokerd.call("reload")
    await refused(brokerd, "app")
    assert provider.count() == 2
    file.write_text(OCCAM_PASSWORD)
    await brokerd.call("reload")
    assert await brokerd.get("app")
    assert provider.statuses() == [400, 400, 200]


async def test_each_refresh_by_hand_is_one_try(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(Locking())
    brokerd.configure({"app": with_password(brokerd.write(WRONG, "password"))}, {"occam": at(provider)})
    await brokerd.start()
    await refused(brokerd, "app")
    for tries in (2, 3):
        await refused(brokerd, "app", by_hand=True)
        await refused(brokerd, "app")
        await brokerd.restart()
        await refused(brokerd, "app")
        assert provider.count() == tries


async def test_grants_with_the_same_password_try_it_once_together(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(Locking())
    file = brokerd.write(WRONG, "password")
    grants = [f"app{number}" for number in range(2 * TRIES)]
    brokerd.configure(dict.fromkeys(grants, with_password(file)), {"occam": at(provider)})
    await brokerd.start()
    for name in grants:
        await refused(brokerd, name)
    await brokerd.restart()
    for name in grants:
        await refused(brokerd, name)
    assert provider.count() == 1
    file.write_text(OCCAM_PASSWORD)
    await brokerd.call("reload")
    for name in grants:
        assert await brokerd.get(name)
    assert provider.counts.wrong_credentials == 1


async def test_a_password_that_was_changed_at_the_provider_is_tried_once(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(Locking(occam.Settings(access_lifetime=2, refresh_lifetime=4)))
    brokerd.configure({"app": FIVE["occam-password"]}, {"occam": at(provider)})
    await brokerd.start()
    value = await brokerd.get("app")
    provider.settings.users[OCCAM_USER] = "test-only-changed"
    for token in provider.ledger.tokens.values():
        token.revoked = True
    await brokerd.until("app", lambda status: status["state"] == "misconfigured")
    for number in range(3):
        await again(brokerd, number)
        assert (await brokerd.error("get", grant="app", refused=value))["code"] == "misconfigured"
    assert provider.counts.wrong_credentials == 1


async def test_a_file_that_cannot_be_read_for_a_while_does_not_make_a_refused_password_new(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(Locking())
    file = brokerd.write(WRONG, "password")
    brokerd.configure({"app": with_password(file)}, {"occam": at(provider)})
    await brokerd.start()
    await refused(brokerd, "app")
    for again_by in (brokerd.restart, lambda: brokerd.call("reload")):
        file.unlink()
        await again_by()
        assert "No such file" in (await brokerd.error("get", grant="app"))["message"]
        brokerd.write(WRONG, "password")
        await again_by()
        await refused(brokerd, "app")
    assert provider.count() == 1


async def test_what_changes_by_itself_beside_a_refused_password_does_not_make_it_new(
    brokerd: Brokerd, serving: Serving
) -> None:
    """A code of the minute, and a client's secret that a vault rotates."""
    provider = await serving(OAuth2())
    code, secret = brokerd.write("code-0", "code"), brokerd.write(OAUTH2_SECRET, "secret")
    credentials = {"client_id": OAUTH2_CLIENT, "client_secret": {"file": secret}, "username": OAUTH2_USER}
    grant = {"provider": "oauth2", "grant_type": "password", "credentials": {**credentials, "password": WRONG}}
    brokerd.configure({"app": {**grant, "request": {"issue": {"otp": {"file": code}}}}}, {"oauth2": at(provider)})
    await brokerd.start()
    await refused(brokerd, "app")
    for number in range(1, TRIES):
        code.write_text(f"code-{number}")
        secret.write_text(f"test-only-secret-{number}")
        await again(brokerd, number)
        await refused(brokerd, "app")
        await brokerd.call("reload")
        await refused(brokerd, "app")
    assert provider.count() == 1


class InItsOwnForm(OAuth2):
    """Refuses as web frameworks do, and not as RFC 6749 says."""

    status = 400

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        return json_response(self.status, {"detail": "Incorrect username or password"})


@pytest.mark.parametrize("status", [400, 422])
async def test_a_password_that_is_refused_in_no_form_of_the_protocols_is_sent_once_over_kill_9(
    brokerd: Brokerd, serving: Serving, status: int
) -> None:
    provider = await serving(InItsOwnForm())
    provider.status = status
    file = brokerd.write(WRONG, "password")
    credentials = {"client_id": OAUTH2_CLIENT, "client_secret": OAUTH2_SECRET, "username": OAUTH2_USER}
    grant = {"provider": "oauth2", "grant_type": "password", "credentials": {**credentials, "password": {"file": file}}}
    brokerd.configure({"app": grant}, {"oauth2": at(provider)})
    await brokerd.start()
    for _ in range(3):
        await refused(brokerd, "app")
        assert "Incorrect username or password" in (await brokerd.status("app"))["last_error"]
        await brokerd.call("reload")
        await refused(brokerd, "app")
        await brokerd.kill()
        await brokerd.start()
    assert provider.count() == 1
    file.write_text(OAUTH2_PASSWORD)
    await brokerd.call("reload")
    assert await brokerd.get("app")
    assert provider.count() == 2


async def test_a_code_of_the_minute_does_not_make_a_password_new_that_may_have_been_refused(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(InItsOwnForm())
    code = brokerd.write("code-0", "code")
    credentials = {"client_id": OAUTH2_CLIENT, "client_secret": OAUTH2_SECRET, "username": OAUTH2_USER}
    grant = {"provider": "oauth2", "grant_type": "password", "credentials": {**credentials, "password": WRONG}}
    brokerd.configure({"app": {**grant, "request": {"issue": {"otp": {"file": code}}}}}, {"oauth2": at(provider)})
    await brokerd.start()
    await refused(brokerd, "app")
    for number in range(1, TRIES):
        code.write_text(f"code-{number}")
        await again(brokerd, number)
        await refused(brokerd, "app")
    assert provider.count() == 1


@pytest.mark.parametrize("kind", ["issue", "renew"])
async def test_a_refused_client_secret_goes_on_with_its_backoff_over_restarts(
    brokerd: Brokerd, serving: Serving, kind: str
) -> None:
    provider = await serving(OAuth2())
    file = brokerd.write("test-only-typo", "secret")
    grant_type = "client_credentials" if kind == "issue" else "refresh_token"
    credentials = {"client_id": OAUTH2_CLIENT, "client_secret": {"file": file}}
    grant = {"provider": "oauth2", "grant_type": grant_type, "credentials": credentials}
    brokerd.configure({"app": grant}, {"oauth2": at(provider)})
    begun = trio.current_time()
    await brokerd.start()
    if kind == "renew":
        await brokerd.call("import", grant="app", refresh_token="test-only-imported")
    await brokerd.until("app", lambda status: status["state"] == "misconfigured")
    for number in range(TRIES):
        await again(brokerd, number)
        await brokerd.until("app", lambda status: status["state"] == "misconfigured")
        status = await brokerd.status("app")
        assert "invalid_client" in status["last_error"]
    tries = provider.count()
    assert 2 ** (tries - 1) - 1 <= trio.current_time() - begun, "a restart sends nothing before its time"
    assert set(provider.statuses()) == {401}
    await brokerd.call("reload")  # a person says: look again
    await brokerd.until("app", lambda status: provider.count() > tries and status["state"] == "misconfigured")
    await brokerd.stop()
    tries = provider.count()
    file.write_text(OAUTH2_SECRET)  # mended while it was down: seen at once
    await brokerd.start()
    if kind == "issue":
        assert await brokerd.get("app")
        assert provider.statuses()[tries:] == [200]
    else:
        assert (await brokerd.error("get", grant="app"))["code"] == "needs_login"
        assert provider.statuses()[tries:] == [400]

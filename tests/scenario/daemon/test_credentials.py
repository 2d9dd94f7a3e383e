# Credentials that the provider refuses: a password is sent once and not again until its bytes change (a locked account
# is worse than an outage), secret files are read again before anybody is called misconfigured (law 7).
from __future__ import annotations

import os

from tests.scenario.daemon.callers import Api
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, Table, at, every
from tests.servers import OAUTH2_CLIENT, OAUTH2_SECRET, OCCAM_KEY, OCCAM_PASSWORD, OCCAM_USER, OAuth2, Occam, oauth2

RESTARTS = 5
NEW_SECRET = "test-only-next-secret"


async def test_a_refused_password_is_sent_once_also_over_restarts_until_it_changes(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(Occam())
    file = brokerd.write("test-only-wrong-password\n", "password")
    grant = {**FIVE["occam-password"], "credentials": {"username": OCCAM_USER, "password": {"file": file}}}
    brokerd.configure({"app": grant}, {"occam": at(provider)})
    for _ in range(RESTARTS):
        await brokerd.start()
        error = await brokerd.error("get", grant="app")
        assert error["code"] == "misconfigured"
        assert "Invalid email or password" in error["message"]
        await brokerd.call("reload")
        assert (await brokerd.error("get", grant="app"))["code"] == "misconfigured"
        await brokerd.stop()
    assert provider.counts.wrong_credentials == 1
    assert provider.count() == 1
    file.write_text(OCCAM_PASSWORD)
    await brokerd.start()
    await brokerd.call("reload")
    assert await brokerd.get("app")
    assert provider.statuses() == [400, 200]


async def test_an_operator_may_say_that_a_refused_password_is_right_now(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(Occam())
    provider.settings.users[OCCAM_USER] = "test-only-not-yet"
    brokerd.configure({"app": FIVE["occam-password"]}, {"occam": at(provider)})
    await brokerd.start()
    assert (await brokerd.error("get", grant="app"))["code"] == "misconfigured"
    provider.settings.users[OCCAM_USER] = OCCAM_PASSWORD  # the other end was wrong
    await brokerd.call("reload")
    assert (await brokerd.error("get", grant="app"))["code"] == "misconfigured"
    assert provider.count() == 1
    await brokerd.call("refresh", grant="app")
    assert await brokerd.get("app", wait=0)


async def test_a_secret_file_that_was_missing_is_noticed_without_a_word(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    secret, name = brokerd.etc / "secret", brokerd.etc / "name"
    brokerd.etc.mkdir(exist_ok=True)
    known: Table = {**FIVE["oauth2"], "credentials": {"client_id": OAUTH2_CLIENT, "client_secret": {"file": secret}}}
    nameless: Table = {
        **FIVE["oauth2"],
        "credentials": {"client_id": {"file": name}, "client_secret": OAUTH2_SECRET},
    }
    brokerd.configure({"known": known, "nameless": nameless}, {"oauth2": at(provider)})
    await brokerd.start()
    for grant in ("known", "nameless"):
        error = await brokerd.error("get", grant=grant)
        assert (error["code"], "No such file" in error["message"]) == ("misconfigured", True)
        assert "write the secret there" in (await brokerd.status(grant))["last_error"]
    for path, text in ((secret, OAUTH2_SECRET), (name, OAUTH2_CLIENT)):
        path.touch(0o600)
        path.write_text(f"{text}\n")
    for grant in ("known", "nameless"):
        await brokerd.until(grant, lambda status: status["state"] == "ready" and status["renewals"] == 1)
    await brokerd.said("event=secret_readable grant=nameless")
    assert provider.counts.wrong_credentials == 0


async def test_a_secret_file_is_read_again_before_anybody_is_called_misconfigured(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    file = brokerd.write(f"{OAUTH2_SECRET}\n", "secret")
    grant: Table = {**FIVE["oauth2"], "credentials": {"client_id": OAUTH2_CLIENT, "client_secret": {"file": file}}}
    spends: Table = {
        **FIVE["oauth2-password"],
        "credentials": {**FIVE["oauth2-password"]["credentials"], "client_secret": {"file": file}},
    }
    brokerd.configure({"app": grant, "spends": spends}, {"oauth2": at(provider)})
    await brokerd.start()
    values = {name: await brokerd.get(name) for name in ("app", "spends")}
    provider.settings.clients[OAUTH2_CLIENT] = oauth2.Client(OAUTH2_CLIENT, NEW_SECRET)
    file.write_text(NEW_SECRET)  # rotated by somebody who tells nobody
    for name, value in values.items():
        assert await brokerd.get(name, refused=value) != value
        status = await brokerd.status(name)
        assert (status["state"], status["failures"], status["interrupted"]) == ("ready", 0, None)
    assert provider.statuses() == [200, 200, 401, 200, 401, 200]
    assert provider.counts.issued == 3  # the spending one went on by its refresh token


async def test_a_token_that_died_early_with_its_refresh_token_is_replaced_by_a_new_login_at_once(
    brokerd: Brokerd, serving: Serving, api: Api
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value = await brokerd.get("app")
    for token in provider.ledger.tokens.values():  # somebody ended the session at the provider
        token.revoked = True
    assert (await api.me(provider, value))[0] == 401
    fresh = await brokerd.get("app", refused=value)
    assert (await api.me(provider, fresh))[0] == 200
    assert provider.statuses() == [200, 400, 200]


async def test_refused_credentials_are_not_hammered_and_the_living_token_is_served(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value = await brokerd.get("app")
    provider.settings.clients[OAUTH2_CLIENT] = oauth2.Client(OAUTH2_CLIENT, NEW_SECRET)
    error = await brokerd.error("refresh", grant="app")
    assert (error["code"], "invalid_client" in error["message"]) == ("misconfigured", True)
    assert await brokerd.get("app", wait=0) == value
    await brokerd.restart()
    assert await brokerd.get("app", wait=0) == value
    status = await brokerd.status("app")
    assert status["state"] == "misconfigured"
    # an hour after the refusal, or where a restart lets them be tried again, not before the token's two thirds
    assert status["next_renewal_at"] - status["issued_at"] > 2_300
    assert provider.statuses() == [200, 401]


async def test_a_mended_configuration_is_tried_after_a_restart_too(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    wrong: Table = {**FIVE["oauth2"], "credentials": {"client_id": OAUTH2_CLIENT, "client_secret": "test-only-typo"}}
    brokerd.configure({"app": wrong}, {"oauth2": at(provider)})
    await brokerd.start()
    assert (await brokerd.error("get", grant="app"))["code"] == "misconfigured"
    await brokerd.stop()
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    assert await brokerd.get("app")
    assert provider.statuses() == [401, 200]


async def test_a_slow_secret_delays_its_own_grant_only(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    pipe = brokerd.etc / "pipe"
    os.mkfifo(pipe, 0o600)
    slow: Table = {
        **FIVE["oauth2"],
        "credentials": {"client_id": OAUTH2_CLIENT, "client_secret": {"command": ["/bin/cat", pipe]}},
    }
    brokerd.configure({"slow": slow, "other": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("other")
    assert (await brokerd.error("get", grant="slow", wait=0.3))["code"] == "unavailable"
    await brokerd.call("refresh", grant="other")
    pipe.write_text(OAUTH2_SECRET)
    assert await brokerd.get("slow")


async def test_secrets_that_cannot_be_read_cost_their_own_grant_and_say_what_to_do(
    brokerd: Brokerd, serving: Serving
) -> None:
    fleet = await serving.all(3600)
    missing = brokerd.etc / "missing"
    grants = {
        "missing": {"provider": "occam", "credentials": {"key": {"file": missing}}},
        "nameless": {
            **FIVE["oauth2"],
            "credentials": {"client_id": {"file": missing}, "client_secret": OAUTH2_SECRET},
        },
        "sound": FIVE["oauth2"],
    }
    brokerd.configure(grants, every(fleet.by_name))
    await brokerd.start()
    assert await brokerd.get("sound")
    for name in ("missing", "nameless"):
        error = await brokerd.error("get", grant=name)
        assert error["code"] == "misconfigured"
        assert f"{missing}: No such file or directory; " in error["message"]
        assert "write the secret there" in error["message"]
    for method in ("refresh", "revoke"):  # whose record it is cannot be known
        assert (await brokerd.error(method, grant="nameless"))["code"] == "misconfigured"
    missing.touch(0o600)
    missing.write_text(OAUTH2_CLIENT)
    await brokerd.call("reload")
    assert await brokerd.get("nameless")
    missing.write_text(OCCAM_KEY)
    await brokerd.call("refresh", grant="missing")
    assert await brokerd.get("missing")
    missing.chmod(0o644)
    await brokerd.call("reload")
    error = await brokerd.error("refresh", grant="missing")
    assert f"chmod o-rwx {missing}" in error["message"]

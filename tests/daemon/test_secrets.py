# Law 11 over a full run: everything that brokerd wrote, at debug, and everything that it answered but for the tokens
# themselves is searched for every secret there was, in the forms in which providers and programmers give them away.
from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote, quote_plus

from tests.daemon.harness import CONFIGURED_SECRETS, FIVE, IMPORTED, Brokerd, Serving, every
from tests.providers import OAUTH2_CLIENT, OAUTH2_USER, Fleet


async def test_nothing_that_was_written_or_said_holds_a_secret(brokerd: Brokerd, serving: Serving) -> None:
    fleet = await serving.all(3600)
    for provider in fleet.by_name.values():
        provider.settings.echo_input = True  # error texts repeat what was sent, as frameworks do
    brokerd.configure({**FIVE, "imported": IMPORTED}, every(fleet.by_name))
    await brokerd.start()
    said: list[object] = []
    imported = await a_full_life(brokerd, fleet, said)
    assert await brokerd.stop() == 0
    wrong = {"test-only-echoed-secret-1", "test-only-echoed-secret-2"}
    secrets = {*CONFIGURED_SECRETS, *imported, *wrong, brokerd.key.read_text().strip()}
    secrets = secrets.union(*(provider.secret_values() for provider in fleet.by_name.values()))
    assert len(secrets) > 25
    written = brokerd.log + json.dumps(said, ensure_ascii=False, default=str)
    assert "invalid_client" in written
    assert "Invalid email or password" in written
    assert "the provider answered 503" in written
    assert "input was: " in written, "nothing was echoed"
    assert "level=debug" in written
    assert [secret for secret in secrets if any(form in written for form in forms(secret))] == []


async def a_full_life(brokerd: Brokerd, fleet: Fleet, said: list[object]) -> set[str]:
    """All that can happen to a grant, and all that is said about it; the refresh tokens that were imported."""
    imported = {"test-only-imported-and-unknown"}
    grants = [*FIVE, "imported"]
    async with brokerd.caller() as watcher, brokerd.caller() as caller:

        async def ask(method: str, **params: Any) -> None:
            error, result = await caller.answer(await caller.send(method, **params))
            said.append(error)
            if method != "get":  # its result is the token
                said.append(result)

        await watcher.call("watch", grants=grants)
        await caller.call("get_many", grants=list(FIVE))
        for token in (*imported, fleet.oauth2.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT).value):
            await ask("import", grant="imported", refresh_token=token)
            await ask("get", grant="imported")
            imported.add(token)
        await ask("status")
        forget_everybody(fleet)
        late = {f"late-{name}": grant for name, grant in FIVE.items()}  # their credentials are never right
        brokerd.configure({**FIVE, "imported": IMPORTED, **late}, every(fleet.by_name))
        await ask("reload")
        grants += late
        for grant in grants:
            await ask("refresh", grant=grant, wait=1)
            await ask("get", grant=grant, wait=0)
            await ask("get", grant=grant, refused="test-only-echoed-secret-1", wait=0)
        await ask("status")
        await ask("import", grant="imported", refresh_token="test-only-echoed-secret-2")
        await ask("get", grant="imported", wait=1)
        fleet.treezor.fail_with(503)
        await ask("import", grant="treezor", refresh_token="test-only-echoed-secret-2")
        await ask("get", grant="treezor", wait=1)
        await ask("status")
        await ask("get", grant="test-only-no-grant")
        await ask("reload")
        fleet.occam.down = True
        await ask("refresh", grant="occam-key")
        for grant in grants:
            await ask("revoke", grant=grant, wait=1)
            await ask("get", grant=grant)
        await ask("status")
        brokerd.write(brokerd.config.read_text().replace("grant_type", "grant_typo"))
        await ask("reload")
        await caller.stream.send_all(b"\x94\x00\x01\xa3get\x91\x81\xa5grant\xc4\x05bytes")
        said.append(await caller.answer(None))
        said += [event for event in watcher.events if event[0] == "gone"]
    return imported


def forget_everybody(fleet: Fleet) -> None:
    """Nobody's credentials are right any more, and no refresh token either."""
    fleet.ix_api.settings.keys.clear()
    fleet.occam.settings.users.clear()
    fleet.occam.settings.keys.clear()
    fleet.treezor.settings.users.clear()
    fleet.click2mail.settings.clients.clear()
    fleet.oauth2.settings.clients.clear()
    for provider in fleet.by_name.values():
        for token in provider.ledger.tokens.values():
            token.revoked = True


def forms(secret: str) -> list[str]:
    """As it is, and as it is found in URLs, JSON, headers and reprs."""
    data = secret.encode()
    encoded = base64.b64encode(data).decode().rstrip("=")
    return [secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1], encoded]

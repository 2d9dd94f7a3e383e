# npm's oidc-provider gives a narrower token where a renewal names a scope in `[grants.NAME] request`.
from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.oauth2.test_client_auth_and_discovery import by_issuer
from tests.real.servers import OidcProvider, device_login, introspect
from tests.scenario.daemon.harness import Brokerd


@pytest.mark.real
async def test_a_login_is_renewed_for_the_scope_that_the_configuration_names(
    brokerd: Brokerd, real_oidc: OidcProvider, tmp_path: Path
) -> None:
    key = tmp_path / "field"
    key.touch(mode=0o600)
    key.write_text("test-only-field\n")
    secret = real_oidc.clients["dev-basic"].secret
    grant = {
        "provider": "op",
        "grant_type": "refresh_token",
        "credentials": {"client_id": "dev-basic", "client_secret": secret},
        "request": {"renew": {"scope": "api:read", "more": {"file": key}}},
    }
    provider = {**by_issuer(real_oidc), "token_url": f"{real_oidc.token_url}?p=flow"}
    brokerd.configure({"app": grant}, {"op": provider})
    await brokerd.start()
    await brokerd.call("import", grant="app", refresh_token=device_login(real_oidc))
    assert introspect(real_oidc, await brokerd.get("app"))["scope"] == "api:read"

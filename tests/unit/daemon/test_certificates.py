# When certificates end: the provider's as a real handshake showed it, and those in files.
from __future__ import annotations

from pathlib import Path

from brokerd.broker.gauges import of_providers
from brokerd.broker.provider import Provider
from brokerd.config.settings import ProviderSettings
from brokerd.core.timing.breaker import Breaker
from brokerd.daemon.certificates import look
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.edge.http.client import HttpClient
from brokerd.edge.system.clock import SystemClock
from brokerd.edge.system.entropy import SystemEntropy
from tests.unit.edge.http.fixtures import CA, ca_file, client, get, server_tls
from tests.unit.edge.http.servers import always_ok, serving

YEAR = 365 * 86_400


def provider(http: HttpClient, authority: Path, own: Path) -> Provider:
    settings = ProviderSettings("idp", OAuth2(issuer="https://idp.test"), ca_file=str(authority), cert_file=str(own))
    return Provider(settings, http, Breaker(), SystemClock(), SystemEntropy())


async def test_each_certificate_is_known_with_its_end(tmp_path: Path) -> None:
    authority, own = ca_file(tmp_path), tmp_path / "own.pem"
    CA.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(str(own))
    async with serving(always_ok, tls=server_tls("127.0.0.1")) as server, client(ca_file=authority) as http:
        made = provider(http, authority, own)
        await look(made)
        assert set(made.certificates) == {"client", "authority"}  # the server was not asked yet
        await http.send(get(server.url))
        await look(made)
    now = SystemClock().now()
    assert set(made.certificates) == {"server", "client", "authority"}
    assert all(ends > now.wall + YEAR / 2 for ends in made.certificates.values())
    text = of_providers([made], now)
    name = "brokerd_provider_certificate_expiration_timestamp_seconds"
    assert f'{name}{{provider="idp",certificate="client"}} {made.certificates["client"]:.0f}\n' in text


async def test_a_file_that_cannot_be_read_has_no_end(tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_text("test-only, no certificate")
    async with client() as http:
        made = provider(http, tmp_path / "away.pem", tmp_path / "own.pem")
        await look(made)
    assert made.certificates == {}

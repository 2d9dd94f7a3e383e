# What will expire is found in records and files, and said once: refresh tokens that only a person can replace, and
# certificates of providers.
from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import trio
from trio.testing import MockClock

from brokerd.alerts.expiry_watch import watch_expiries
from brokerd.core.events import Event
from brokerd.core.grant.record import Record
from brokerd.core.grant.state import State
from brokerd.core.grant.tokens import RefreshToken
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment

DAY, NOW = 86_400.0, Moment(2e9, 0.0, "boot")


def grant(
    name: str,
    days: float,
    *,
    issues: bool = False,
    state: State = State.READY,
    kept: bool = True,
    failures: int = 0,
    certificates: dict[str, float] | None = None,
) -> Any:
    """Its refresh token lives so many days."""
    token = RefreshToken(Secret("test-only-refresh"), NOW, days * DAY, 0.0, kept=kept)
    settings = SimpleNamespace(cert_file="/client.pem", ca_file="/ca.pem")
    provider = SimpleNamespace(name=f"idp-{name}", settings=settings, certificates=certificates or {})
    return SimpleNamespace(
        record=replace(Record(name), refresh_token=token, state=state, failures=failures),
        provider=provider,
        about={"grant": name},
        login_command=f"brokerctl login {name}",
        can_issue=lambda: issues,
    )


async def seen(grants: dict[str, Any], days: float) -> list[tuple[Event, dict[str, Any]]]:
    """What is said within so many days."""
    said: list[tuple[Event, dict[str, Any]]] = []
    begun = trio.current_time()
    clock: Any = SimpleNamespace(now=lambda: NOW.after(trio.current_time() - begun))
    events: Any = SimpleNamespace(say=lambda event, **fields: said.append((event, fields)))
    broker: Any = SimpleNamespace(grants=grants)
    with trio.move_on_after(days * DAY):
        await watch_expiries(broker, clock, events, refresh_token=7 * DAY, certificate=14 * DAY)
    return said


async def test_refresh_tokens_that_only_a_person_can_replace(autojump_clock: MockClock) -> None:
    grants = {
        "near": grant("near", 30),
        "far": grant("far", 90),
        "issues": grant("issues", 1, issues=True),
        "revoked": grant("revoked", 1, state=State.REVOKED),
        "rotated": grant("rotated", 1, kept=False),  # each renewal replaces it
    }
    said = await seen(grants, 31)
    assert [(event, fields["grant"]) for event, fields in said] == [(Event.REFRESH_TOKEN_EXPIRES, "near")] * 3
    assert said[0][1]["remedy"] == "brokerctl login near"
    assert (said[0][1]["left"], said[0][1]["expires"]) == ("6 days", "2033-06-17T03:33:20Z")


async def test_certificates_in_the_files_of_providers(autojump_clock: MockClock) -> None:
    """What a server presents is not ours to replace."""
    ends = {name: NOW.wall + days * DAY for name, days in {"client": 20, "authority": 90, "server": 1}.items()}
    grants = {"app": grant("app", 900, certificates=ends), "other": grant("other", 900, certificates={})}
    said = await seen(grants, 19.5)
    assert [fields["left"] for _, fields in said] == ["13 days", "23 h"]
    event, fields = said[0]
    assert (event, fields["provider"], fields["path"]) == (Event.CERTIFICATE_EXPIRES, "idp-app", "/client.pem")


async def test_one_that_renewals_would_replace_is_told_if_they_fail_and_a_short_life_late(
    autojump_clock: MockClock,
) -> None:
    said = await seen({"app": grant("app", 3, kept=False, failures=2)}, 2.5)
    assert [fields["left"] for _, fields in said] == ["23 h"]

# /metrics, /livez, /readyz at a real daemon: Prometheus' own judge has nothing to say, callers see what `status` shows
# them, and the port for scrapers answers nothing else.
from __future__ import annotations

import re
from typing import Any

import trio

from tests.promtool import complaints
from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.scenario.http.conftest import Answer, curl, with_http
from tests.servers import OAuth2


async def until(brokerd: Brokerd, path: str, words: str) -> Answer:
    with trio.fail_after(10):
        while words not in (answer := await curl(brokerd, path)).body.decode():
            await trio.sleep(0.02)
    return answer


def series(answer: Answer) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in answer.body.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_promtool_is_content_and_the_numbers_are_right(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    await brokerd.get("app")
    answer = await until(brokerd, "/metrics", 'state="ready"')
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert complaints("check", "metrics", stdin=answer.body.decode()) == ""
    found, status = series(answer), await brokerd.status("app")
    assert found['brokerd_grant_ready{grant="app",provider="oauth2",state="ready"}'] == 1
    for name, key in (("expiration", "expires_at"), ("renewal", "next_renewal_at")):
        assert abs(found[f'brokerd_grant_{name}_timestamp_seconds{{grant="app"}}'] - status[key]) < 1
    issued = 'brokerd_exchanges_total{provider="oauth2",operation="issue",outcome="issued"}'
    assert (found[issued], found['brokerd_provider_breaker_open{provider="oauth2"}']) == (1, 0)
    assert found['brokerd_gets_total{outcome="cached"}'] + found['brokerd_gets_total{outcome="waited"}'] == 1
    assert found["brokerd_store_commit_duration_seconds_count"] > 0
    assert found['brokerd_exchange_duration_seconds_count{provider="oauth2"}'] == 1
    assert {found[f"brokerd_{name}"] for name in ("ready", "store_up", "store_adopted", "audit_up")} == {1}
    assert found["process_resident_memory_bytes"] > 1_000_000
    assert any(name.startswith('brokerd_build_info{version="') for name in found)
    assert not any("failing_since" in name for name in found)


async def test_what_fails_is_there_with_since_when(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    provider.fail_with(503, times=None)
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)}, http=True)
    await brokerd.start()
    await until(brokerd, "/metrics", 'brokerd_provider_failing_since_timestamp_seconds{provider="oauth2"}')
    answer = await until(brokerd, "/metrics", 'brokerd_grant_failing_since_timestamp_seconds{grant="app"}')
    found, status = series(answer), await brokerd.status("app")
    assert found['brokerd_grant_ready{grant="app",provider="oauth2",state="retrying"}'] == 0
    since = found['brokerd_grant_failing_since_timestamp_seconds{grant="app"}']
    assert abs(since - status["failing_since"]) < 1
    not_ready = await curl(brokerd, "/readyz/app")
    assert not_ready.status == 503
    assert "503" in not_ready.json["message"]
    assert (await curl(brokerd, "/readyz")).status == 200  # one broken grant takes no other program's tokens away


async def test_a_caller_sees_what_status_shows_it(brokerd: Brokerd, serving: Serving, other_user: User) -> None:
    provider = await serving(OAuth2())
    other = await serving(OAuth2())
    allow: list[Any] = [{"grants": ["seen"], "caller": {"uid": other_user.uid}, "actions": ["status"]}]
    grants = {"seen": FIVE["oauth2"], "hidden": {**FIVE["oauth2"], "provider": "other"}}
    brokerd.configure(grants, {"oauth2": at(provider), "other": at(other)}, http=True, socket_mode="0666", allow=allow)
    await brokerd.start()
    whole = await until(brokerd, "/metrics", 'brokerd_grant_ready{grant="hidden",provider="other",state="ready"} 1')
    await until(brokerd, "/metrics", 'brokerd_grant_ready{grant="seen",provider="oauth2",state="ready"} 1')
    answer = await curl(brokerd, "/metrics", user=other_user)
    text = answer.body.decode()
    assert answer.status == 200
    assert "hidden" not in text
    assert 'provider="other"' not in text
    assert re.search(r'brokerd_exchanges_total\{provider="other"', whole.body.decode())
    assert 'brokerd_grant_ready{grant="seen"' in text
    assert "brokerd_gets_total" in text
    for path, status in (("/readyz/seen", 200), ("/readyz/hidden", 404), ("/readyz/nowhere", 404)):
        assert (await curl(brokerd, path, user=other_user)).status == status, path
    assert (await curl(brokerd, "/readyz", user=other_user)).status == 200


async def test_a_locked_brokerd_lives_and_is_not_ready(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    ready = await curl(brokerd, "/readyz?verbose")
    assert (ready.status, ready.body.decode().splitlines()[-1]) == (200, "ready")
    assert "[+]store-writable ok" in ready.body.decode()
    await brokerd.call("lock")
    answer = await curl(brokerd, "/readyz")
    assert answer.status == 503
    assert "[-]unlocked failed: brokerd is locked; brokerctl unlock" in answer.body.decode()
    assert (await curl(brokerd, "/livez")).status == 200
    assert (await curl(brokerd, "/readyz/app")).status == 423
    found = series(await curl(brokerd, "/metrics"))
    assert (found["brokerd_ready"], found["brokerd_locked"]) == (0, 1)

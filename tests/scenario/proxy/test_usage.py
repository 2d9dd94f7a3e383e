# Who used a proxy for what is in brokerd's audit log and in its metrics; without the query, and without the token.
from __future__ import annotations

import os

from tests.scenario.audit.logs import lines, written
from tests.scenario.daemon.harness import until
from tests.scenario.proxy.conftest import World

EXE = os.path.realpath("/proc/self/exe")
PROXIED = "brokerd_proxied_requests_total"


async def test_the_audit_log_says_who_used_which_proxy_for_what(world: World) -> None:
    token = await world.brokerd.get("app")
    for number in range(3):
        await world.proxy.get(f"/v2/things?secret={number}", method="POST", body=b"abc")
    await world.proxy.get("/v2/other", kind="tcp")
    await world.proxy.get("/../x")
    line = await written(world.brokerd, event="proxied", path="/v2/things")
    assert (line["proxy"], line["grant"], line["method"], line["status"]) == ("unix", "app", "POST", 200)
    assert (line["requests"], line["client"]["uid"], line["client"]["user"]) == (3, 0, "root")
    assert line["client"]["exe"] == EXE
    assert line["up"] > 3 * 60
    assert line["first"] <= line["last"]
    assert line["who"]["pid"] == world.proxy.pid
    other = await written(world.brokerd, event="proxied", path="/v2/other")
    assert (other["proxy"], other["client"]) == ("tcp", {"uid": 0, "user": "root"})
    refused = await written(world.brokerd, event="proxied", status=400)
    assert (refused["path"], refused["requests"]) == ("", 1)
    text = (await world.brokerd.call("metrics"))["text"]
    assert f'{PROXIED}{{grant="app",status="2xx"}} 4' in text
    assert f'{PROXIED}{{grant="app",status="4xx"}} 1' in text
    assert token not in str(lines(world.brokerd))
    assert "secret=" not in str(lines(world.brokerd))


async def test_what_was_not_told_yet_is_told_at_the_end_and_after_brokerd_was_away(world: World) -> None:
    await world.proxy.get("/one")
    await written(world.brokerd, event="proxied", path="/one")
    await world.proxy.get("/one")  # this kind is told again in a minute, or at the end
    await world.brokerd.stop()
    await world.proxy.get("/two")
    await world.brokerd.start()
    await written(world.brokerd, event="proxied", path="/two")
    await world.proxy.stop()
    await until(lambda: len(lines(world.brokerd, event="proxied", path="/one")) == 2)
    assert sum(line["requests"] for line in lines(world.brokerd, event="proxied")) == 3


async def test_only_who_may_have_the_token_can_say_that_it_was_used(world: World) -> None:
    use = {"proxy": "x", "method": "GET", "path": "/", "status": 200, "requests": 1}
    use |= {"up": 1, "down": 1, "first": 1.0, "last": 2.0}
    assert await world.brokerd.call("proxied", grant="app", uses=[use]) == {"noted": 1}
    for wrong in (
        {"path": "a\nb"},
        {"path": "a" * 300},
        {"status": "200"},
        {"status": 60_000},
        {"status": 99},
        {"requests": -1},
        {"first": float("nan")},
    ):
        error = await world.brokerd.error("proxied", grant="app", uses=[{**use, **wrong}])
        assert error["code"] == "bad_request"
    for uses in ([use] * 65, {}, [1], [{"proxy": "x"}], [{**use, "token": "x"}]):
        assert (await world.brokerd.error("proxied", grant="app", uses=uses))["code"] == "bad_request"
    assert (await world.brokerd.error("proxied", grant="other", uses=[use]))["code"] == "unknown_grant"

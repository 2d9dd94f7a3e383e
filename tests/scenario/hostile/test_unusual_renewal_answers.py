# A strict server with single-use refresh tokens answers a renewal in an undocumented form. brokerd reads the new
# refresh token and goes on with it; it never sends the old one again (law 3).
from __future__ import annotations

import gzip
import json
from collections.abc import Callable

import pytest
import trio

from tests.scenario.daemon.harness import Brokerd, ready
from tests.scenario.hostile.conftest import Listening
from tests.scenario.hostile.servers import Endpoint, Fault, http
from tests.unit.edge.http.servers import Peer

Form = Callable[[bytes], bytes]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def as_form(body: bytes) -> bytes:
    return http(200, "&".join(f"{name}={value}" for name, value in json.loads(body).items()).encode(), kind="text/html")


def with_fields(**fields: object) -> Form:
    return lambda body: http(200, json.dumps({**json.loads(body), **fields}).encode())


FORMS: dict[str, Form] = {
    "form": as_form,
    "gzip": lambda body: http(200, gzip.compress(body), "Content-Encoding: gzip"),
    "notice": lambda body: http(200, b"<br />\n<b>Notice</b>: Undefined index: x in <b>t.php</b> on line 3" + body),
    "nul": lambda body: http(200, body + b"\0"),
    "latin-1": lambda body: http(200, body[:-1] + b', "name": "M\xfcller"}'),
    "tab": lambda body: http(200, body[:-1] + b', "name": "a\tb"}'),
    "nan": lambda body: http(200, body[:-1] + b', "score": NaN}'),
    "array": lambda body: http(200, b"[" + body + b"]"),
    "text": lambda body: http(200, json.dumps(body.decode()).encode()),
    "bom": lambda body: http(200, b"\xef\xbb\xbf" + body),
    "identity": lambda body: HEAD + b"Transfer-Encoding: identity\r\n\r\n" + body,
    "blank-before-colon": lambda body: HEAD + b"Content-Length : %d\r\n\r\n" % len(body) + body,
    "long-length": lambda body: HEAD + b"Content-Length: 9999\r\n\r\n" + body,
    "no-last-chunk": lambda body: HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n",
    "256-kib": with_fields(access_token="t" * (256 << 10)),
}


KEPT: dict[str, Form] = {
    "newline": with_fields(access_token="test-only-a\nb"),
    "too-long": with_fields(access_token="t" * (300 << 10)),
    "no-access-token": with_fields(access_token=None),
    "tokens-in-500": lambda body: http(500, body),
}


def renewing(endpoint: Endpoint, form: Form) -> Fault:
    """It renews as always, answers in that form, and is gone."""

    async def fault(peer: Peer) -> None:
        endpoint.fault = None
        if (request := await peer.request()) and endpoint.answer(request):
            await peer.say(form(endpoint.body()))

    return fault


async def met(brokerd: Brokerd, listening: Listening, forms: dict[str, Form]) -> dict[str, Endpoint]:
    """Every form by a grant of its own, whose server answers in it once."""
    endpoints = {}
    for name, form in forms.items():
        endpoint = endpoints[name] = await listening(Endpoint(name))
        endpoint.fault = renewing(endpoint, form)
    grants = {name: endpoint.grant() for name, endpoint in endpoints.items()}
    brokerd.configure(grants, {name: endpoint.table() for name, endpoint in endpoints.items()})
    await brokerd.start()
    for name, endpoint in endpoints.items():
        await brokerd.call("import", grant=name, refresh_token=endpoint.secret("refresh", 0))
    return endpoints


async def test_a_login_goes_on_through_every_form_that_is_safe_to_read(brokerd: Brokerd, listening: Listening) -> None:
    endpoints = await met(brokerd, listening, FORMS)

    async def check(name: str, endpoint: Endpoint) -> None:
        status = await brokerd.until(name, ready)
        assert (status["interrupted"], status["last_error"]) == (None, None), name
        expected = "t" * (256 << 10) if name == "256-kib" else endpoint.access_token
        assert (await brokerd.get(name, wait=0) == expected) is True, name
        await brokerd.call("refresh", grant=name)
        assert (endpoint.renewed, endpoint.reused) == (2, 0), name

    async with trio.open_nursery() as nursery:
        for name, endpoint in endpoints.items():
            nursery.start_soon(check, name, endpoint)


async def test_what_is_odd_about_a_token_stands_in_status(brokerd: Brokerd, listening: Listening) -> None:
    odd: dict[str, dict[str, object]] = {
        "zero": {"expires_in": 0},
        "minus": {"expires_in": -1},
        "epoch": {"expires_in": 1_800_003_600},
        "milliseconds": {"expires_in": 3_600_000},
        "mac": {"token_type": "mac"},
    }
    endpoints = {name: await listening(Endpoint(name)) for name in odd}
    for name, fields in odd.items():
        endpoints[name].fields.update(fields)
    grants = {name: {**endpoint.grant(), "lifetime": "10m"} for name, endpoint in endpoints.items()}
    brokerd.configure(grants, {name: endpoint.table() for name, endpoint in endpoints.items()})
    await brokerd.start()
    for name, endpoint in endpoints.items():
        await brokerd.call("import", grant=name, refresh_token=endpoint.refresh_token)
        assert await brokerd.get(name) == endpoint.access_token
        status = await brokerd.status(name)
        (note,) = status["notes"]
        if name == "mac":
            assert "token_type is mac" in note
        else:
            assert note.endswith("the configured lifetime counts"), name
            assert status["expires_at"] is None
            assert 300 < status["next_renewal_at"] - status["issued_at"] < 600, name


async def test_a_scope_of_900_kb_leaves_status_small_and_says_that_it_was_cut(
    brokerd: Brokerd, listening: Listening
) -> None:
    endpoint = await listening(Endpoint("idp"))
    wide = " ".join(f"scope:{number:08}" for number in range(60_000))
    endpoint.fields["scope"] = wide
    assert len(wide) > 890_000
    names = [f"app{number}" for number in range(20)]
    brokerd.configure({name: {**endpoint.grant(), "scope": ["mine"]} for name in names}, {"idp": endpoint.table()})
    await brokerd.start()
    for name in names:
        await brokerd.call("import", grant=name, refresh_token=endpoint.refresh_token)
        assert await brokerd.get(name) == endpoint.access_token
    found = (await brokerd.call("status"))["grants"]
    assert [each["name"] for each in found] == sorted(names)
    assert len(json.dumps(found)) < 64 << 10
    for each in found:
        assert each["scope"][-1] == "…"
        assert each["scope_dropped"] == []
        assert any("too long, so it is cut" in note for note in each["notes"])


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_login_goes_on_where_only_the_refresh_token_can_be_used(
    brokerd: Brokerd, listening: Listening, restarts: bool
) -> None:
    endpoints = await met(brokerd, listening, KEPT)
    if restarts:
        for name in endpoints:  # what is seen is stored
            await brokerd.until(name, lambda status: status["failures"] + status["renewals"] > 0)
        await brokerd.restart()
    for name, endpoint in endpoints.items():
        if restarts:  # which spreads what is due over a minute, unless somebody asks
            await brokerd.call("refresh", grant=name)
        await brokerd.until(name, ready)
        assert await brokerd.get(name, wait=0) == endpoint.access_token
        assert (endpoint.renewed, endpoint.reused) == (2, 0), name

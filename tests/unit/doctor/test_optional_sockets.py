# doctor looks at the sockets for HTTP and credentials and at the port for metrics, where the configuration has them.
from __future__ import annotations

import re
import socket

from brokerd.doctor.finding import Finding, Level
from tests.scenario.daemon.harness import Brokerd
from tests.unit.doctor.look import findings
from tests.unit.doctor.test_broken_installation import PROVIDER, grant


async def about_http(brokerd: Brokerd) -> list[Finding]:
    return [each for each in await findings(brokerd, offline=True) if each.check == "http"]


def configured(brokerd: Brokerd, *, http: bool) -> None:
    secret = brokerd.write("test-only-secret", "secret")
    brokerd.configure({"app": grant({"file": secret})}, {"corp": PROVIDER}, http=http)


async def test_it_is_found_where_it_listens(brokerd: Brokerd) -> None:
    configured(brokerd, http=True)
    await brokerd.start()
    (found,) = await about_http(brokerd)
    assert (found.level, found.found.partition(":")[0]) == (Level.OK, str(brokerd.http_socket))


async def test_one_that_the_running_brokerd_does_not_have_is_found(brokerd: Brokerd) -> None:
    configured(brokerd, http=False)
    await brokerd.start()
    assert await about_http(brokerd) == []
    configured(brokerd, http=True)
    (found,) = await about_http(brokerd)
    assert (found.level, found.found) == (
        Level.PROBLEM,
        f"there is no socket at {brokerd.http_socket}; [http] is read when brokerd starts",
    )


async def test_the_socket_for_credentials_is_found_and_not_knocked_at(brokerd: Brokerd) -> None:
    secret = brokerd.write("test-only-secret", "secret")
    brokerd.configure({"app": grant({"file": secret})}, {"corp": PROVIDER}, credentials=True)
    await brokerd.start()
    (found,) = [each for each in await findings(brokerd, offline=True) if each.check == "credentials"]
    assert (found.level, found.found.partition(":")[0]) == (Level.OK, str(brokerd.credentials_socket))
    assert "bad input on a connection" not in brokerd.log


async def about_metrics(brokerd: Brokerd, address: str) -> list[tuple[Level, str]]:
    brokerd.configure({}, {}, metrics=address)
    found = await findings(brokerd, offline=True)
    return [(each.level, each.found) for each in found if each.check == "metrics"]


async def test_the_port_for_metrics_is_asked(brokerd: Brokerd) -> None:
    brokerd.configure({}, {}, metrics="127.0.0.1:0")
    await brokerd.start()
    port = re.search(r"event=ready .*metrics=\S+:(\d+)", brokerd.log)
    assert port is not None
    at = f"127.0.0.1:{port[1]}"
    assert await about_metrics(brokerd, at) == [(Level.OK, f"http://{at}/metrics answers")]
    open_to_all = await about_metrics(brokerd, f"0.0.0.0:{port[1]}")
    assert [level for level, _ in open_to_all] == [Level.WARNING, Level.OK]
    assert "other machines can read the names and states of grants there" in open_to_all[0][1]
    with socket.socket() as bound:  # and nothing listens
        bound.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{bound.getsockname()[1]}"
        words = f"nothing listens at {away}; [http] is read when brokerd starts"
        assert await about_metrics(brokerd, away) == [(Level.PROBLEM, words)]

# examples/prometheus with Debian's prometheus: promtool accepts the files and their tests pass; a real Prometheus that
# scrapes a real brokerd shows an alert with its remedy; and every query of the dashboard brings what it is to show.
from __future__ import annotations

import contextlib
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.free_port import free_port
from tests.project.test_docs import page, table, unquoted
from tests.promtool import complaints, program
from tests.scenario.daemon.conftest import brokerd, folder, serving
from tests.scenario.daemon.harness import FIVE, IMPORTED, Brokerd, Serving, at
from tests.servers import IxApi, OAuth2

__all__ = ["brokerd", "folder", "serving"]
pytestmark = pytest.mark.real
EXAMPLES = Path(__file__).parents[3] / "examples" / "prometheus"
WITHIN = 60.0  # seconds
EMPTY = {"brokerd started"}  # the annotation: it did not start again


class Prometheus:
    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}/api/v1"

    async def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer. Raises OSError."""
        url = f"{self._address}/{path}?{urllib.parse.urlencode(parameters)}"
        return await trio.to_thread.run_sync(partial(self._fetch, url))

    async def until(self, path: str, holds: Callable[[Any], bool], **parameters: str) -> Any:
        found = None
        with trio.move_on_after(WITHIN):
            while True:
                with contextlib.suppress(OSError):
                    found = await self.ask(path, **parameters)
                    if holds(found):
                        return found
                await trio.sleep(0.1)
        raise AssertionError(f"it never came to it: {path} {parameters}: {found}")

    @staticmethod
    def _fetch(url: str) -> Any:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 503:
                    raise OSError("it is starting") from None
                raise AssertionError(f"{url}: {error.read().decode()}") from None
        assert found["status"] == "success", found
        assert not found.get("warnings"), found
        return found["data"]


@contextlib.asynccontextmanager
async def prometheus(directory: Path, target: str) -> AsyncIterator[Prometheus]:
    """Debian's, with the example's files, which scrapes `target` and evaluates the rules each second."""
    text = (EXAMPLES / "prometheus.yml").read_text()
    for before, after in (("127.0.0.1:9464", target), ("_interval: 15s", "_interval: 500ms")):
        assert before in text
        text = text.replace(before, after)
    config = directory / "prometheus.yml"
    config.write_text(text)
    (directory / "brokerd.rules.yml").write_text((EXAMPLES / "brokerd.rules.yml").read_text())
    port = free_port()
    command = (
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.run_process, command, capture_stderr=True, check=False))
        yield Prometheus(port)
        nursery.cancel_scope.cancel()


def test_promtool_accepts_the_files() -> None:
    assert "SUCCESS" in _said("check", "config", EXAMPLES / "prometheus.yml")


def test_the_tests_of_the_rules_pass() -> None:
    assert complaints("test", "rules", EXAMPLES / "brokerd.rules.test.yml") == ""


def _said(*arguments: str | Path) -> str:
    found = complaints(*arguments)
    return found or "SUCCESS"


def alerts() -> dict[str, str]:
    """Name → severity, of the rules."""
    text = (EXAMPLES / "brokerd.rules.yml").read_text()
    names = re.findall(r"- alert: (\w+)", text)
    severities = re.findall(r"severity: (\w+) }", text)
    return dict(zip(names, severities, strict=True))


def test_every_alert_has_a_test_and_a_row_on_the_page() -> None:
    tested = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts", (EXAMPLES / "brokerd.rules.test.yml").read_text()))
    assert tested == set(alerts())
    rows = table(page("docs/monitoring.md").partition("\n## Alerts\n")[2])
    assert {unquoted(row["alert"])[0]: row["severity"] for row in rows} == alerts()


def queries() -> Iterator[tuple[str, str]]:
    """The title of each panel and annotation of the dashboard, and its queries."""
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for each in dashboard["annotations"]["list"]:
        yield each["name"], each["expr"]


async def test_an_alert_fires_and_every_query_of_the_dashboard_is_answered(brokerd: Brokerd, serving: Serving) -> None:
    provider, idp, away = await serving(IxApi()), await serving(OAuth2()), await serving(OAuth2())
    away.fail_with(503, times=None)
    grants = {"reports": FIVE["ix"], "crm": IMPORTED, "down": {**FIVE["oauth2"], "provider": "away"}}
    target = f"127.0.0.1:{free_port()}"
    brokerd.configure(grants, {"ix-api": at(provider), "oauth2": at(idp), "away": at(away)}, metrics=target)
    await brokerd.start()
    await brokerd.get("reports")
    async with prometheus(brokerd.folder, target) as server:
        firing = 'ALERTS{alertname="BrokerdGrantNeedsLogin", alertstate="firing"}'
        (found,) = (await server.until("query", lambda data: data["result"], query=firing))["result"]
        assert (found["metric"]["grant"], found["metric"]["severity"]) == ("crm", "critical")
        shown = [each for each in (await server.ask("alerts"))["alerts"] if each["state"] == "firing"]
        (alert,) = [each for each in shown if each["labels"]["alertname"] == "BrokerdGrantNeedsLogin"]
        assert f"The grant crm on {target} needs a person" in alert["annotations"]["summary"]
        assert "brokerctl login crm" in alert["annotations"]["description"]
        for title, query in queries():
            asked = query.replace("$__rate_interval", "10s").replace("$instance", ".*")
            assert "$" not in asked, title
            if title in EMPTY:
                await server.ask("query", query=asked)
            else:
                await server.until("query", lambda data: data["result"], query=asked)
    assert "Traceback" not in brokerd.log

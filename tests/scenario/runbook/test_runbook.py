# docs/runbook.md, case by case: each fault is made for real, and what brokerd shows is searched for its cause and its
# remedy: brokerctl status, the log, /metrics, the page, and the alert that Prometheus would raise.
from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import STDOUT
from typing import NamedTuple
from urllib.error import HTTPError

import pytest
import trio

from brokerd import ctl
from tests.did_not_run import did_not_run
from tests.real.etcd.cluster import Cluster
from tests.real.etcd.test_operators import copied
from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import CLIENT, FIVE, IMPORTED, ROOT, Brokerd, Serving, Table, at
from tests.scenario.disk.disks import Disk
from tests.scenario.hostile.faults import secured
from tests.scenario.hostile.servers import Endpoint
from tests.servers import OAUTH2_CLIENT, OAUTH2_SECRET, OAUTH2_USER, OAuth2
from tests.unit.edge.http.fixtures import ca_file, server_tls

PLACES = ("status", "log", "metrics", "page")
VISIBLE_WITHIN = 5.0  # seconds from the cause
RULES = ROOT / "examples" / "prometheus" / "brokerd.rules.yml"
STRANGER = 60_900  # uid
ENDS_WITHIN = 20.0  # seconds from its remedy: brokerd looks at a store that failed every few seconds
SAMPLE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>[0-9.e+-]+)")


@dataclass
class Stage:
    """A brokerd with the grant "app" and its provider; a case makes its fault here."""

    brokerd: Brokerd
    serving: Serving
    request: pytest.FixtureRequest
    provider: OAuth2 = field(default_factory=OAuth2)
    grants: dict[str, Table] = field(default_factory=lambda: {"app": {**FIVE["oauth2-password"], "on_demand": True}})
    providers: dict[str, Table] = field(default_factory=dict)
    allow: list[Table] = field(default_factory=list)
    store: Table | None = None  # of a fleet
    clusters: list[Cluster] = field(default_factory=list)  # of etcd
    endpoint: Endpoint = field(default_factory=lambda: Endpoint("oauth2", tls=server_tls("127.0.0.1")))

    async def start(self) -> None:
        if not self.providers:
            await self.serving(self.provider)
            self.providers = {"oauth2": at(self.provider)}
        self.configure()
        await self.brokerd.start()

    def configure(self) -> None:
        more: Table = {"allow": self.allow, "store": self.store}
        self.brokerd.configure(self.grants, self.providers, http=True, socket_mode="0666", **more)

    async def renew(self) -> None:
        """As a person or a caller whose token has died; how it ends is looked at elsewhere."""
        async with self.brokerd.caller() as caller:
            await caller.send("refresh", grant="app")
            await caller.send("status")
            with trio.move_on_after(0.5):
                await caller.answer(1)


class Case(NamedTuple):
    """`make`: begins after `start` and causes the fault. `cause`, `remedy`: what a person reads in status and
    log. `metric`: a line of /metrics. `alert`: of examples/prometheus. `silent`: what cannot show it, and why."""

    name: str
    make: Callable[[Stage], Awaitable[None]]
    cause: str
    remedy: str
    metric: str
    alert: str | None
    prepare: Callable[[Stage], Awaitable[None]] | None = None
    mend: Callable[[Stage], Awaitable[None]] | None = None
    over: str = "event=renewed grant=app"  # what the log then says
    silent: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = {}  # by place, if other words stand there


# -- the faults


async def provider_down(stage: Stage) -> None:
    stage.provider.down = True
    await stage.renew()


async def provider_well(stage: Stage) -> None:
    stage.provider.clear_faults()
    await stage.renew()


async def provider_slow(stage: Stage) -> None:
    stage.provider.hold()
    await stage.renew()


async def wrong_secret(stage: Stage) -> None:
    secret = stage.brokerd.write("test-only-wrong", "secret")
    stage.grants["app"]["credentials"] = {**CLIENT, "client_secret": {"file": secret}}
    stage.configure()
    await stage.brokerd.call("reload")
    await stage.renew()


async def right_secret(stage: Stage) -> None:
    stage.brokerd.write(OAUTH2_SECRET, "secret")
    await stage.brokerd.call("reload")
    await stage.renew()


async def no_token(stage: Stage) -> None:
    stage.grants = {"app": {**FIVE["oauth2"], "on_demand": True}}


async def imported(stage: Stage) -> None:
    stage.grants = {"app": IMPORTED}


async def refresh_token_dead(stage: Stage) -> None:
    token = stage.provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read",))
    token.revoked = True
    await stage.brokerd.call("import", grant="app", refresh_token=token.value)


async def login_again(stage: Stage) -> None:
    token = stage.provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read",))
    await stage.brokerd.call("import", grant="app", refresh_token=token.value)


async def clock_wrong(stage: Stage) -> None:
    stage.provider.settings.now = lambda: time.time() + 3600
    stage.provider.fail_with(
        401, body={"error": "invalid_client", "error_description": "assertion expired"}, times=None
    )
    await stage.renew()


async def clock_right(stage: Stage) -> None:
    stage.provider.settings.now = time.time
    await provider_well(stage)


async def limited(stage: Stage) -> None:
    stage.provider.fail_with(429, times=None)
    await stage.renew()


async def locked(stage: Stage) -> None:
    await stage.brokerd.call("lock")


async def unlocked(stage: Stage) -> None:
    await stage.brokerd.call("unlock")


async def small_disk(stage: Stage) -> None:
    stage.request.getfixturevalue("disk")


async def disk_full(stage: Stage) -> None:
    disk: Disk = stage.request.getfixturevalue("disk")
    disk.fill()
    await stage.renew()


async def room_on_disk(stage: Stage) -> None:
    disk: Disk = stage.request.getfixturevalue("disk")
    disk.make_room()


async def no_network(stage: Stage) -> None:
    stage.request.getfixturevalue("as_root")
    stage.brokerd.within = ("unshare", "--net")
    stage.grants = {"app": {**FIVE["oauth2"], "on_demand": True}}
    stage.providers = {"oauth2": {"dialect": "oauth2", "token_url": "https://idp.example/token"}}


async def dns_gone(stage: Stage) -> None:
    await stage.renew()


async def with_tls(stage: Stage) -> None:
    endpoint = stage.endpoint
    await stage.brokerd.nursery.start(endpoint.run)
    stage.providers = {"oauth2": endpoint.table(ca_file=ca_file(stage.brokerd.folder))}
    stage.grants = {"app": endpoint.grant()}


async def certificate_expired(stage: Stage) -> None:
    stage.endpoint.fault = secured(server_tls("127.0.0.1", expired=True))
    await stage.brokerd.call("import", grant="app", refresh_token=stage.endpoint.refresh_token)


async def new_certificate(stage: Stage) -> None:
    stage.endpoint.fault = None
    await stage.renew()


async def a_stranger(stage: Stage) -> None:
    stage.request.getfixturevalue("other_user")
    stage.allow = [{"grants": ["app"], "caller": {"user": "nobody"}}]


async def rules_too_tight(stage: Stage) -> None:
    user: User = stage.request.getfixturevalue("other_user")
    assert (await user.call(stage.brokerd, "get", grant="app"))["code"] == "unknown_grant"


async def more_rules(stage: Stage) -> None:
    stage.allow[0]["caller"] = {"uid": STRANGER}
    stage.configure()
    await stage.brokerd.call("reload")
    user: User = stage.request.getfixturevalue("other_user")
    assert "value" in await user.call(stage.brokerd, "get", grant="app")


async def key_missing(stage: Stage) -> None:
    await stage.brokerd.stop()
    stage.brokerd.key.rename(stage.brokerd.key.with_name("kept"))
    await stage.brokerd.refuses_to_start()


async def key_restored(stage: Stage) -> None:
    stage.brokerd.key.with_name("kept").rename(stage.brokerd.key)
    await stage.brokerd.start()


def in_fleet_at(cluster: Cluster) -> Table:
    return {"etcd": cluster.urls, "ca_file": str(cluster.ca_file), "fleet": "runbook", "name": "web-1"}


async def in_fleet(stage: Stage) -> None:
    stage.clusters = [stage.request.getfixturevalue("etcd_cluster")]
    stage.store = {**in_fleet_at(stage.clusters[0]), "fleet": stage.brokerd.folder.name[-20:]}


async def etcd_away(stage: Stage) -> None:
    for number in (0, 1):  # without a majority
        stage.clusters[0].kill(number)


async def etcd_back(stage: Stage) -> None:
    await stage.clusters[0].repair()


async def in_fleet_of_its_own(stage: Stage) -> None:
    """At an etcd that is small."""
    cluster = Cluster(stage.brokerd.folder / "etcd", flags=("--quota-backend-bytes=4000000",))
    stage.request.addfinalizer(cluster.stop)
    await trio.to_thread.run_sync(cluster.start)
    stage.clusters, stage.store = [cluster], in_fleet_at(cluster)


async def etcd_full(stage: Stage) -> None:
    large = {"key": base64.b64encode(b"x").decode(), "value": base64.b64encode(bytes(500_000)).decode()}
    try:
        while True:
            await stage.clusters[0].admin("/v3/kv/put", large)
    except HTTPError as refused:
        refused.close()
    await stage.renew()


async def etcd_has_space(stage: Stage) -> None:
    cluster = stage.clusters[0]
    status = await cluster.admin("/v3/maintenance/status", {})
    await cluster.compact(int(status["header"]["revision"]))
    for number in range(len(cluster.urls)):
        await trio.to_thread.run_sync(cluster.ask, number, "/v3/maintenance/defragment", {})
    for alarm in (await cluster.admin("/v3/maintenance/alarm", {"action": "GET"}))["alarms"]:
        await cluster.admin("/v3/maintenance/alarm", {**alarm, "action": "DEACTIVATE"})


async def etcd_restored(stage: Stage) -> None:
    """Another cluster, with what the first one had."""
    assert stage.store is not None
    before, other = stage.clusters[0], Cluster(stage.brokerd.folder / "restored")
    stage.request.addfinalizer(other.stop)
    await trio.to_thread.run_sync(other.start)
    await copied(before, other, f"/brokerd/{stage.store['fleet']}/".encode())
    await stage.brokerd.stop()
    stage.store = {**stage.store, "etcd": other.urls, "ca_file": str(other.ca_file)}
    stage.configure()
    await stage.brokerd.start()


async def adopted(stage: Stage) -> None:
    await stage.brokerd.call("adopt")


CASES = (
    Case(
        "provider down",
        provider_down,
        cause=r"connection refused",
        remedy=r"brokerctl doctor",
        metric=r'brokerd_provider_failing_since_timestamp_seconds\{provider="oauth2"\}',
        alert="BrokerdProviderDown",
        mend=provider_well,
    ),
    Case(
        "provider slow",
        provider_slow,
        cause=r"has not answered for \d",
        remedy=r"ask the provider(&#39;|&#x27;|')s operator whether it has a problem",
        metric=r'brokerd_provider_unanswered_since_timestamp_seconds\{provider="oauth2"\}',
        alert="BrokerdProviderSilent",
        mend=provider_well,
    ),
    Case(
        "wrong secret",
        wrong_secret,
        cause=r"invalid_client",
        remedy=r"check client_id, client_secret \(/\S*secret",
        metric=r'brokerd_grant_ready\{grant="app",provider="oauth2",state="misconfigured"\}',
        alert="BrokerdGrantFailing",
        mend=right_secret,
        prepare=no_token,
    ),
    Case(
        "refresh token dead",
        refresh_token_dead,
        cause=r"invalid_grant",
        remedy=r"brokerctl import (app|GRANT)",
        metric=r'brokerd_grant_ready\{grant="app",provider="oauth2",state="needs_login"\} 0',
        alert="BrokerdGrantNeedsLogin",
        mend=login_again,
        prepare=imported,
    ),
    Case(
        "clock wrong",
        clock_wrong,
        cause=r"clock",
        remedy=r"timedatectl",
        metric=r'brokerd_grant_ready\{grant="app",provider="oauth2",state="misconfigured"\}',
        alert="BrokerdGrantFailing",
        mend=clock_right,
        prepare=no_token,
    ),
    Case(
        "no token",
        limited,
        cause=r"answered 429",
        remedy=r"ask the provider(&#39;|&#x27;|')s operator for a higher limit",
        metric=r'brokerd_grant_ready\{grant="app",provider="oauth2",state="retrying"\} 0',
        alert="BrokerdGrantWithoutToken",
        mend=provider_well,
        prepare=no_token,
    ),
    Case(
        "locked",
        locked,
        cause=r"locked and serves nothing",
        remedy=r"brokerctl unlock",
        metric=r'brokerd_grant_ready\{grant="app",provider="oauth2",state="locked"\} 0',
        alert="BrokerdLocked",
        mend=unlocked,
        over="event=unlocked",
    ),
    Case(
        "disk full",
        disk_full,
        cause=r"disk is full",
        remedy=r"make room",
        metric=r"brokerd_store_up 0",
        alert="BrokerdStoreNotWritable",
        mend=room_on_disk,
        over="event=store_written_again",
        prepare=small_disk,
    ),
    Case(
        "DNS gone",
        dns_gone,
        cause=r"the name servers do not answer",
        remedy=r"brokerctl doctor",
        metric=r'brokerd_provider_failing_since_timestamp_seconds\{provider="oauth2"\}',
        alert="BrokerdProviderDown",
        prepare=no_network,
    ),
    Case(
        "certificate expired",
        certificate_expired,
        cause=r"the certificate expired on 20",
        remedy=r"ask the provider(&#39;|&#x27;|')s operator for a new certificate",
        metric=r'brokerd_provider_failing_since_timestamp_seconds\{provider="oauth2"\}',
        alert="BrokerdProviderDown",
        mend=new_certificate,
        prepare=with_tls,
    ),
    Case(
        "rules too tight",
        rules_too_tight,
        cause=r"no rule allows this caller the action get",
        remedy=r"brokerctl explain",
        metric=r"brokerd_denials_total [1-9]",
        alert=None,  # BrokerdManyDenials: more than 20 in ten minutes
        mend=more_rules,
        over="event=token_fetched grant=app",
        prepare=a_stranger,
        silent=("status", "page"),  # nothing is wrong with the grant
    ),
    Case(
        "key missing",
        key_missing,
        cause=r"there is no key at",
        remedy=r"put the store's own key there",
        metric=r"^$",
        alert="BrokerdDown",
        mend=key_restored,
        over="event=ready",
        silent=("page",),
        words={"status": (r"is brokerd running\?", r"see brokerctl doctor|systemctl status brokerd")},
    ),
    Case(
        "etcd away",
        etcd_away,
        cause=r"etcd cannot be reached",
        remedy=r"brokerctl doctor",
        metric=r"brokerd_fleet_etcd_up 0",
        alert="BrokerdFleetEtcdDown",
        mend=etcd_back,
        over="event=etcd_back",
        prepare=in_fleet,
    ),
    Case(
        "etcd full",
        etcd_full,
        cause=r"etcd has no space",
        remedy=r"etcdctl alarm disarm",
        metric=r"brokerd_fleet_etcd_full 1",
        alert="BrokerdFleetEtcdFull",
        mend=etcd_has_space,
        over="event=etcd_back",
        prepare=in_fleet_of_its_own,
        words={"log": (r"database space exceeded", r"etcdctl alarm disarm")},
    ),
    Case(
        "etcd restored",
        etcd_restored,
        cause=r"etcd is another one than before, or was restored from a snapshot",
        remedy=r"brokerctl adopt",
        metric=r"brokerd_store_adopted 0",
        alert="BrokerdStoreNotAdopted",
        mend=adopted,
        over="event=store_adopted",
        prepare=in_fleet_of_its_own,
    ),
)


# -- what is looked at


def brokerctl(brokerd: Brokerd, *words: str) -> str:
    """What it prints."""
    with pytest.MonkeyPatch.context() as patch, io.TextIOWrapper(io.BytesIO(), write_through=True) as output:
        patch.setenv("BROKERD_SOCKET", str(brokerd.socket))
        patch.setattr(sys, "argv", ["brokerctl", *words])
        patch.setattr(sys, "stdout", output)
        patch.setattr(sys, "stderr", output)
        ctl.main()
        assert isinstance(output.buffer, io.BytesIO)
        return output.buffer.getvalue().decode()


async def http(brokerd: Brokerd, path: str) -> str:
    """ "": nothing answers."""
    try:
        async with await trio.open_unix_socket(brokerd.http_socket) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: brokerd\r\nConnection: close\r\n\r\n".encode())
            return b"".join([bytes(part) async for part in stream]).decode()
    except OSError:
        return ""


@dataclass
class Seen:
    """When each place first showed it, in seconds from the cause."""

    case: Case
    brokerd: Brokerd
    since: float
    said_before: int
    at: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    async def look(self) -> None:
        self.texts = {
            "status": await trio.to_thread.run_sync(brokerctl, self.brokerd, "status"),
            "log": self.brokerd.log[self.said_before :],
            "metrics": await http(self.brokerd, "/metrics"),
            "page": await http(self.brokerd, "/"),
        }
        for place, text in self.texts.items():
            if place not in self.at and all(re.search(pattern, text) for pattern in self.patterns(place)):
                self.at[place] = trio.current_time() - self.since

    def patterns(self, place: str) -> tuple[str, ...]:
        if place == "metrics":
            return (self.case.metric,)
        return self.case.words.get(place, (self.case.cause, self.case.remedy))

    @property
    def missing(self) -> list[str]:
        return [place for place in PLACES if place not in self.at and place not in self.case.silent]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_is_wrong_and_what_to_do_is_seen_at_once(
    brokerd: Brokerd, serving: Serving, request: pytest.FixtureRequest, case: Case
) -> None:
    stage = Stage(brokerd, serving, request)
    if case.prepare is not None:
        await case.prepare(stage)
    await stage.start()
    seen = Seen(case, brokerd, trio.current_time(), len(brokerd.log))
    await case.make(stage)
    with trio.move_on_after(VISIBLE_WITHIN + 1):
        while seen.missing:
            await seen.look()
            await trio.sleep(0.05)
    if os.environ.get("SHOW"):
        for place, text in seen.texts.items():
            print(f"=== {case.name}: {place}\n{text if place != 'metrics' else ''}")
    print(f"{case.name}: " + ", ".join(f"{place} {at:.1f} s" for place, at in seen.at.items()))
    assert seen.missing == []
    assert max(seen.at.values()) < VISIBLE_WITHIN
    if case.mend is not None:
        said = len(brokerd.log)
        await case.mend(stage)
        with trio.fail_after(ENDS_WITHIN):
            while case.over not in brokerd.log[said:]:
                await trio.sleep(0.05)
    if case.alert is not None:
        await alert_fires(case.alert, seen.texts["metrics"], brokerd.folder)


async def alert_fires(alert: str, metrics: str, folder: Path) -> None:
    """Whether Prometheus, that goes on seeing these metrics for a quarter of an hour, raises the alert."""
    if shutil.which("promtool") is None:
        did_not_run("ALERTS OF THE RUNBOOK", "promtool is not installed (Debian: prometheus)")
    shutil.copy(RULES, folder / RULES.name)
    firing = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
    expected = {"expr": firing, "eval_time": "15m", "exp_samples": [{"labels": "{}", "value": 1}]}
    given = {"interval": "1m", "input_series": series(metrics), "promql_expr_test": [expected]}
    test = folder / "alert.test.yml"  # JSON is YAML
    test.write_text(json.dumps({"rule_files": [RULES.name], "evaluation_interval": "1m", "tests": [given]}))
    done = await trio.run_process(["promtool", "test", "rules", test], capture_stdout=True, check=False, stderr=STDOUT)
    assert done.returncode == 0, done.stdout.decode()


def series(metrics: str) -> list[dict[str, str]]:
    """The metrics as promtool reads them. Its time begins at 0, so times are made relative to now."""
    found = [{"series": 'up{job="brokerd",instance="db1"}', "values": f"{int(bool(metrics))}+0x30"}]
    for line in metrics.partition("\r\n\r\n")[2].splitlines():
        if (sample := SAMPLE.fullmatch(line)) is not None and sample["name"].startswith("brokerd_"):
            value = float(sample["value"]) - (time.time() if "_timestamp_seconds" in sample["name"] else 0.0)
            labels = ",".join(filter(None, (sample["labels"], 'job="brokerd"', 'instance="db1"')))
            found.append({"series": f"{sample['name']}{{{labels}}}", "values": f"{value}+0x30"})
    return found


HEADINGS = {
    "provider down": "The provider is down",
    "provider slow": "The provider is slow",
    "wrong secret": "A wrong secret",
    "refresh token dead": "The refresh token is dead",
    "clock wrong": "The clock is wrong",
    "no token": "A grant has no token",
    "locked": "brokerd is locked",
    "disk full": "The disk is full",
    "DNS gone": "DNS is gone",
    "certificate expired": "A certificate has expired",
    "rules too tight": "The rules are too tight",
    "key missing": "The key is missing",
    "etcd away": "The etcd of a fleet is away",
    "etcd full": "The etcd of a fleet has no space",
    "etcd restored": "The etcd of a fleet was restored",
}
PARTS = ("**What you see.**", "**Why.**", "**What to do.**", "**How to see that it is over.**")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_page_says_what_brokerd_says(case: Case) -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    section = page.partition(f"\n## {HEADINGS[case.name]}\n")[2].partition("\n## ")[0]
    assert [part for part in PARTS if part not in section] == []
    if case.alert is not None:
        assert f"`{case.alert}`" in section
    for place in ("log", "status"):
        for words in () if place in case.silent else case.words.get(place, (case.cause, case.remedy)):
            assert re.search(words, " ".join(section.split())), words

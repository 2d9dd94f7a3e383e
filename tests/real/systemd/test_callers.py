# Callers as a real systemd starts them, and what each gets: from brokerd as it is shipped, which sees no other user's
# /proc, and from one with DynamicUser= that may read what others execute.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.did_not_run import did_not_run
from tests.real.systemd.box import ROOT, Box, missing
from tests.real.systemd.installation import CONFIGURATION, installed

pytestmark = pytest.mark.real
CTL = "/opt/brokerd/bin/brokerctl"
ID = "a1" * 32  # a container
ALICE, BOB = 4_101, 4_102
SOCKETS = ("/run/brokerd/brokerd.sock", "/run/dynamic.sock")
GETS = 200
RULES = {
    "user": 'user = "alice"',
    "unit": 'unit = "portal.service"',
    "slice": 'slice = "apps.slice"',
    "user-unit": 'user = "alice", user_unit = "job.service"',
    "container": f'container = "{ID}"',
    "dynamic": 'user = "floating"',
    "program": f'unit = "portal.service", exe = "{Path("/usr/bin/python3").resolve()}"',
}
ASK = f"""\
#!/usr/bin/python3 -IS
import sys
sys.path[:0] = ["/opt/brokerd/lib/client", "/opt/brokerd/lib/packages"]
from brokerd_client import Broker, UnknownGrant
for path in {SOCKETS}:
    found = []
    with Broker(path) as broker:
        for grant in {tuple(RULES)}:
            try:
                found += [grant] if broker.get(grant).value else []
            except UnknownGrant:
                pass
    print(*found)
"""
LOAD = f"""\
import sys
sys.path[:0] = ["/opt/brokerd/lib/client", "/opt/brokerd/lib/packages"]
from brokerd_client import Broker
with Broker("{SOCKETS[1]}") as broker:
    for _ in range({GETS}):
        broker.get("program")
"""
DYNAMIC = """\
[Service]
User=
DynamicUser=yes
StateDirectory=
StateDirectory=dynamic
StateDirectoryMode=0700
RuntimeDirectory=
LoadCredentialEncrypted=
LoadCredential=key:/etc/dynamic/key
LoadCredential=app:/etc/brokerd/secrets/app
CapabilityBoundingSet=CAP_SYS_PTRACE
AmbientCapabilities=CAP_SYS_PTRACE
ExecStart=
ExecStart=/opt/brokerd/bin/brokerd --config /etc/dynamic/brokerd.toml
"""


def rules() -> str:
    like = CONFIGURATION.partition("[grants.app]")[2]
    return "\n".join(
        f'[grants.{grant}]{like}[[allow]]\ngrants = ["{grant}"]\ncaller = {{ {caller} }}'
        for grant, caller in RULES.items()
    )


def files() -> dict[str, str]:
    unit = (ROOT / "systemd" / "brokerd.service").read_text()
    daemon = '[daemon]\nkey = { credential = "key" }\n'
    whole = (daemon + CONFIGURATION + rules()).replace('file = "/etc/brokerd/secrets/app"', 'credential = "app"')
    return {
        "/etc/brokerd/conf.d/rules.toml": rules(),
        "/etc/systemd/system/brokerd.socket.d/all.conf": "[Socket]\nSocketMode=0666\n",
        "/etc/systemd/system/dynamic.socket": f"[Socket]\nListenStream={SOCKETS[1]}\nFileDescriptorName=brokerd\n",
        "/etc/systemd/system/dynamic.service": unit.replace("brokerd.socket", "dynamic.socket"),
        "/etc/systemd/system/dynamic.service.d/dynamic.conf": DYNAMIC,
        "/etc/dynamic/brokerd.toml": whole,
        "/opt/ask": ASK,
        "/usr/lib/sysusers.d/people.conf": f"u alice {ALICE}\nu bob {BOB}\n",
        "/usr/lib/tmpfiles.d/asked.conf": "d /run/asked 1777\n",
    }


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    if (reason := missing()) is not None:
        did_not_run("SYSTEMD TESTS", reason)
    with installed(tmp_path_factory.mktemp("callers")) as made:
        for path, text in files().items():
            made.write(path, text)
        made.run("chmod", "755", "/opt/ask", "/etc/dynamic/brokerd.toml")
        made.run("systemd-sysusers")
        made.run("systemd-tmpfiles", "--create")
        made.run(CTL, "keygen", "/etc/dynamic/key")
        made.run("systemctl", "daemon-reload")
        made.run("systemctl", "start", "brokerd.service", "dynamic.service")
        yield made


def in_unit(box: Box, name: str, *settings: str, command: Sequence[str] = ("/opt/ask",)) -> list[set[str]]:
    """What a unit of that name gets, from each brokerd."""
    said = ("Type=oneshot", f"StandardOutput=truncate:/run/asked/{name}", *settings)
    properties = [word for each in said for word in ("-p", each)]
    box.run("systemd-run", "--quiet", "--collect", f"--unit={name}", *properties, *command)
    return got(box.run("cat", f"/run/asked/{name}"))


def in_unit_of(box: Box, uid: int, name: str) -> list[set[str]]:
    """The same in that user's own systemd."""
    box.run("systemctl", "start", f"user@{uid}.service")
    output = f"/run/asked/{uid}-{name}"
    settings = ("-p", "Type=oneshot", "-p", f"StandardOutput=truncate:{output}")
    box.run(*as_user(uid), "systemd-run", "--user", "--quiet", "--collect", f"--unit={name}", *settings, "/opt/ask")
    return got(box.run("cat", output))


def as_user(uid: int) -> tuple[str, ...]:
    ids = (f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    return ("setpriv", *ids, "env", f"XDG_RUNTIME_DIR=/run/user/{uid}")


def got(said: str) -> list[set[str]]:
    return [set(line.split()) for line in said.splitlines()]


def each(*grants: str, read: str = "") -> list[set[str]]:
    """`read`: what the one gets besides that may read what others execute."""
    return [set(grants), {*grants, *read.split()}]


def test_a_daemon_with_a_dynamic_user_comes_from_boot_to_a_token(box: Box) -> None:
    assert box.property("dynamic", "StatusText") == f"{1 + len(RULES)} grants fresh"
    uid = int(box.run("stat", "-c", "%u", f"/proc/{box.property('dynamic', 'MainPID')}"))
    assert 61_184 <= uid <= 65_519
    assert box.run("stat", "-L", "-c", "%a %u", "/var/lib/dynamic").split() == ["700", str(uid)]
    assert box.run(CTL, "--socket", SOCKETS[1], "get", "app").strip()


@pytest.mark.parametrize(
    ("name", "settings", "served"),
    [
        ("portal.service", ("User=alice",), each("user", "unit", read="program")),
        ("portal.service", ("User=bob",), each("unit", read="program")),  # another cgroup of the same name
        ("portal.service", ("DynamicUser=yes", "User=floating"), each("unit", read="program")),
        ("floating.service", ("DynamicUser=yes", "User=floating"), each()),
        ("portal.service", ("User=bob", "Slice=apps.slice"), each("unit", "slice", read="program")),
        ("other.service", ("User=bob", "Slice=apps.slice"), each("slice")),
        ("other.service", ("User=bob", "Slice=apps-more.slice"), each()),
        ("portal@1.service", ("User=bob",), each()),
        ("job.service", ("User=alice",), each("user")),
    ],
)
def test_a_unit_gets_what_its_rules_say(box: Box, name: str, settings: Sequence[str], served: list[set[str]]) -> None:
    assert in_unit(box, name, *settings) == served


def test_a_users_own_systemd_has_units_of_its_own(box: Box) -> None:
    assert in_unit_of(box, ALICE, "job.service") == each("user", "user-unit")
    assert in_unit_of(box, ALICE, "portal.service") == each("user")  # named like the system's
    assert in_unit_of(box, BOB, "job.service") == each()
    refused = box.run(*as_user(ALICE), "systemd-run", "--quiet", "--unit=portal.service", "/opt/ask", check=False)
    assert "denied" in refused or "authentication required" in refused, refused


def test_a_session_without_a_unit_is_its_user(box: Box) -> None:
    assert got(box.run(*as_user(ALICE), "/opt/ask")) == each("user")
    assert got(box.run(*as_user(BOB), "/opt/ask")) == each()


def test_a_folder_below_a_delegated_cgroup_is_no_unit(box: Box) -> None:
    below = "/sys/fs/cgroup/system.slice/evil.service/portal.service"
    command = ("/bin/sh", "-c", f"mkdir {below} && echo 0 >{below}/cgroup.procs && exec /opt/ask")
    assert in_unit(box, "evil.service", "User=bob", "Delegate=yes", command=command) == each()


def test_root_in_another_pid_namespace_is_its_container_alone(box: Box) -> None:
    elsewhere = ("unshare", "--pid", "--fork", "/opt/ask")
    scope = ("systemd-run", "--quiet", "--scope", f"--unit=docker-{ID}.scope")
    assert got(box.run(*scope, *elsewhere)) == each("container")
    assert in_unit(box, "portal.service", command=elsewhere) == each()


def test_a_program_is_known_again_without_a_thread_in_the_sandbox_too(box: Box) -> None:
    pid = box.property("dynamic", "MainPID")
    threads = f"cat $(ls -d /proc/{pid}/task/* | grep -v /{pid}$ | sed s,$,/status,) | grep ^voluntary"
    before = sum(int(line.split()[1]) for line in box.run("sh", "-c", threads).splitlines())
    in_unit(box, "portal.service", "User=alice", command=("/usr/bin/python3", "-IS", "-c", LOAD))
    after = sum(int(line.split()[1]) for line in box.run("sh", "-c", threads).splitlines())
    assert after - before < GETS


def test_explain_says_why_a_program_cannot_be_told_and_what_would_help(box: Box) -> None:
    box.run("systemd-run", "--quiet", "--unit=portal.service", "-p", "User=alice", "sleep", "infinity")
    pid = box.property("portal", "MainPID")
    said = box.run(CTL, "explain", "program", "--pid", pid, check=False)
    assert "of alice (4101), groups alice" in said
    assert "unit: portal.service" in said
    assert "exe could not be read: for another user's process brokerd needs CAP_SYS_PTRACE" in said
    assert "docs/configuration.md" in said
    allowed = box.run(CTL, "--socket", SOCKETS[1], "explain", "unit", "--pid", pid)
    assert "unit: may get, status" in allowed
    box.run("systemctl", "stop", "portal")

# brokerctl install, init and uninstall under a real systemd: the life of one installation, from nothing through a token
# with a sealed key to nothing again. The tests follow each other.
from __future__ import annotations

import re

import pytest

from tests.real.systemd.box import Box
from tests.servers import IX_API_KEY, IX_API_SECRET

pytestmark = pytest.mark.real
CTL = "/opt/brokerd/bin/brokerctl"
PLACES = ("/etc", "/usr/local", "/run/brokerd", "/run/credstore.encrypted", "/var/lib/brokerd", "/var/lib/systemd")
# What comes and goes by itself: systemd's own, and the copies that who changes the list of users leaves.
OWN = re.compile(
    r"/var/lib/systemd/|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-|/etc/\.pwd\.lock|.*\.target\.wants$"
)
DROP_IN = "/etc/systemd/system/brokerd.service.d"


def files(box: Box) -> dict[str, str]:
    """Every file of these places with its mode and size, those of the configuration with their digests too."""
    script = 'find "$@" -type d -printf "%M:%u  %p\n"; find "$@" ! -type d -printf "%M:%u:%s:%l  %p\n"'
    script = f"({script}; find /etc -type f -exec sha256sum {{}} +) 2>/dev/null"
    found: dict[str, str] = {}
    for line in box.run("sh", "-c", script, "_", *PLACES, check=False).splitlines():
        what, _, path = line.partition("  ")
        if not OWN.match(path):
            found[path] = found.get(path, "") + what
    return found


@pytest.fixture(scope="module")
def before(bare: Box) -> dict[str, str]:
    return files(bare)


def test_a_dry_run_changes_nothing(bare: Box, before: dict[str, str]) -> None:
    said = bare.run(CTL, "install", "--system", "--dry-run")
    assert "/usr/local/lib/systemd/system/brokerd.service: would be written" in said
    assert "would run: systemd-sysusers" in said
    assert "key: would be sealed" in said
    assert files(bare) == before


def test_who_has_no_right_to_install_is_told(bare: Box, before: dict[str, str]) -> None:
    as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    assert "--system needs root" in bare.run(*as_nobody, CTL, "install", "--system", check=False)
    assert "you are root: use --system" in bare.run(CTL, "install", "--user", check=False)
    package = "/usr/lib/systemd/system/brokerd.service"
    bare.run("touch", package)
    for words in (["install"], ["uninstall", "--purge", "--yes"]):
        assert f"{package} belongs to a package" in bare.run(CTL, *words, "--system", check=False)
    bare.run("rm", package)
    assert files(bare) == before


def test_everything_is_put_in_place_once(bare: Box) -> None:
    said = bare.run(CTL, "install", "--system")
    assert "user brokerd, groups brokerd and brokerd-callers: made" in said
    assert "sealed as /etc/credstore.encrypted/brokerd.key with this machine's host key" in said
    after = files(bare)
    assert bare.run("stat", "-c", "%a %U:%G", "/etc/brokerd", "/etc/brokerd/brokerd.toml").split("\n")[:2] == [
        "751 root:brokerd",
        "640 root:brokerd",
    ]
    assert bare.run("systemctl", "cat", "brokerd.service").startswith("# /usr/local/lib/systemd/system/brokerd.service")
    again = bare.run(CTL, "install", "--system").partition("\nnext:")[0]
    assert re.findall(r"written|made|replaced|sealed", again) == []
    for what in re.findall(r"^([^:\n]+): (?:written|made)", said, re.MULTILINE):
        assert f"{what}: there already" in again
    assert files(bare) == after


def test_init_leads_to_a_token_under_the_sealed_key(bare: Box) -> None:
    for name, secret in (("key", IX_API_KEY), ("secret", IX_API_SECRET)):
        bare.run("sh", "-c", f"cat >/root/{name}", input=secret)
    given = [word for name in ("key", "secret") for word in ("--credential-file", f"api_{name}=/root/{name}")]
    said = bare.run(
        CTL, "init", "--recipe", "ix-api", "--base-url", "http://127.0.0.1:8080/ix/api/v2", *given, "--allow", "daemon"
    )
    assert "/etc/brokerd/conf.d/ix-api.toml: written" in said
    assert "the configuration is right: 1 provider, 1 grant, 1 rule" in bare.run("/usr/local/bin/brokerd", "--check")
    bare.run("systemctl", "enable", "--now", "brokerd.socket", "brokerd.service")
    assert bare.property("brokerd", "StatusText") == "1 grant fresh"
    by_rule = ("setpriv", "--reuid=daemon", "--regid=daemon", "--groups=brokerd-callers")
    assert bare.run(*by_rule, CTL, "get", "ix-api") == bare.run(CTL, "get", "ix-api")
    for secret in bare.run("find", "/etc/brokerd", "-type", "f").split():  # who may connect is not who may read those
        assert "Permission denied" in bare.run(*by_rule, "cat", secret, check=False), secret
    assert not bare.run("ls", "-A", "/etc/brokerd").count("key")
    assert "unchanged since they were written" in bare.run(
        CTL, "audit", "verify"
    )  # root may open the key outside of the unit as well


def test_a_key_that_is_missing_or_another_is_refused_and_the_store_left(bare: Box) -> None:
    token = bare.run(CTL, "get", "ix-api")
    store = "/etc/credstore.encrypted/brokerd.key"
    bare.run("mv", store, "/root/sealed")
    assert "there is no key at /etc/brokerd/key" in refused(bare)
    assert "key: MISSING, and not made, because there is a store" in bare.run(CTL, "install", "--system")
    bare.run("sh", "-c", f"{CTL} keygen /root/other && systemd-creds encrypt --name=brokerd.key /root/other {store}")
    assert "the key that it was made with" in refused(bare)
    bare.run("sh", "-c", f"echo c2VhbGVkIGJ5IHNvbWVib2R5IGVsc2U= > {store}")
    assert "Failed to set up credentials" in refused(bare, status="243")
    bare.run("mv", "/root/sealed", store)
    bare.run("systemctl", "start", "brokerd.service")
    assert bare.run(CTL, "get", "ix-api") == token


def refused(box: Box, status: str = "2") -> str:
    """What brokerd says when it does not start, and is not started again."""
    box.run("systemctl", "stop", "brokerd.socket", "brokerd.service")
    box.run("systemctl", "start", "brokerd.service", check=False)
    assert box.until("brokerd", "ActiveState", "failed") == "failed"
    assert box.property("brokerd", "ExecMainStatus") == status
    return box.journal(None).rpartition("Starting brokerd.service")[2]


def test_a_sealed_key_is_replaced_by_another(bare: Box) -> None:
    """As docs/systemd.md says it."""
    new = "/etc/credstore.encrypted/brokerd.key-2"
    made = f"umask 077; {CTL} keygen /run/key-2 && systemd-creds encrypt --name=brokerd.key-2 /run/key-2 {new}"
    bare.run("sh", "-c", f"{made} && rm /run/key-2")
    bare.write(f"{DROP_IN}/key.conf", "[Service]\nLoadCredentialEncrypted=brokerd.key-2\n")
    old = 'previous_key = { credential = "brokerd.key" }\n'
    bare.write("/etc/brokerd/conf.d/key.toml", '[daemon]\nkey = { credential = "brokerd.key-2" }\n' + old)
    bare.run("systemctl", "daemon-reload")
    bare.run("systemctl", "restart", "brokerd.service")
    token = bare.run(CTL, "get", "ix-api")
    assert "encrypted with the new key" in bare.run(CTL, "key", "rotate")
    bare.run("sed", "-i", "/previous_key/d", "/etc/brokerd/conf.d/key.toml")
    bare.run("systemctl", "restart", "brokerd.service")
    assert bare.run(CTL, "get", "ix-api") == token


def test_an_uninstall_leaves_what_is_the_operators_and_a_purge_nothing(bare: Box, before: dict[str, str]) -> None:
    bare.run(CTL, "uninstall", "--system")
    left = {path for path in files(bare).keys() - before.keys() if not path.startswith(DROP_IN)}
    ours = ("/etc/brokerd", "/var/lib/brokerd", "/etc/credstore.encrypted", "/run/brokerd")
    assert [path for path in left if not path.startswith(ours)] == []
    assert {"/etc/brokerd/conf.d/ix-api.toml", "/var/lib/brokerd/brokerd.db"} <= left
    assert bare.property("brokerd", "ActiveState") == "inactive"
    assert "add --yes" in bare.run(CTL, "uninstall", "--system", "--purge", check=False)
    bare.run(CTL, "install", "--system")  # with its key, its store and its user as they were
    bare.run("systemctl", "start", "brokerd.socket")
    assert bare.run(CTL, "get", "ix-api").strip()
    said = bare.run(CTL, "uninstall", "--system", "--purge", "--yes")
    assert "/var/lib/brokerd: deleted" in said
    bare.run("rm", "-r", DROP_IN, "/etc/credstore.encrypted")  # the operator's own
    assert files(bare) == before

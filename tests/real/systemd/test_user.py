# brokerd as a service of one user, in that user's own systemd: installed, started by the first connection, removed.
from __future__ import annotations

import pytest

from tests.real.systemd.box import Box
from tests.servers import IX_API_KEY, IX_API_SECRET

pytestmark = pytest.mark.real
CTL = "/opt/brokerd/bin/brokerctl"


@pytest.fixture(scope="module")
def alice(bare: Box) -> tuple[str, ...]:
    """What makes a command hers; her systemd runs."""
    bare.run("useradd", "--create-home", "alice")
    uid = bare.run("id", "-u", "alice").strip()
    bare.run("loginctl", "enable-linger", "alice")
    bare.until(f"user@{uid}.service", "ActiveState", "active")
    as_alice = ("setpriv", "--reuid=alice", "--regid=alice", "--init-groups")
    return (*as_alice, "env", "--chdir=/home/alice", "HOME=/home/alice", f"XDG_RUNTIME_DIR=/run/user/{uid}")


def test_a_user_has_a_brokerd_of_her_own(bare: Box, alice: tuple[str, ...]) -> None:
    for name, secret in (("key", IX_API_KEY), ("secret", IX_API_SECRET)):
        bare.run(*alice, "sh", "-c", f"umask 077; cat > {name}", input=secret)
    given = [word for name in ("key", "secret") for word in ("--credential-file", f"api_{name}={name}")]
    said = bare.run(*alice, CTL, "init", "--recipe", "ix-api", "--base-url", "http://127.0.0.1:8080/ix/api/v2", *given)
    assert "made as /home/alice/.config/brokerd/key" in said
    bare.run(*alice, "systemctl", "--user", "enable", "--now", "brokerd.socket")
    token = bare.run(*alice, CTL, "get", "ix-api").strip()  # who connects starts it
    assert token
    show = ("systemctl", "--user", "show", "--value", "--property", "StatusText", "brokerd")
    assert bare.run(*alice, *show).strip() == "1 grant fresh"
    bare.run(*alice, "systemctl", "--user", "restart", "brokerd.service")
    assert bare.run(*alice, CTL, "get", "ix-api").strip() == token  # from her store
    assert "get  ix-api  served  by alice" in bare.run(*alice, CTL, "audit", "tail")  # hers, not the system's
    assert "/home/alice/.config/brokerd/brokerd.toml: 1 provider" in bare.run(*alice, CTL, "doctor", check=False)
    hers = bare.run("find", "/home/alice", "-name", "brokerd*", "-o", "-name", "key", "-perm", "/077", "-type", "f")
    assert "/home/alice/.local/state/brokerd/brokerd.db" in hers
    assert "/home/alice/.config/brokerd/key" not in hers.split()


def test_her_own_units_load_tokens_as_credentials_and_need_no_rule(bare: Box, alice: tuple[str, ...]) -> None:
    switch = "systemctl --user enable brokerd-credentials.socket && systemctl --user restart brokerd"
    bare.run(*alice, "sh", "-c", switch)
    uid = bare.run("id", "-u", "alice").strip()
    loads = f"LoadCredential=ix-api:/run/user/{uid}/brokerd/credentials.sock"
    copies = "cat $CREDENTIALS_DIRECTORY/ix-api >/home/alice/loaded"
    bare.run(*alice, "systemd-run", "--user", "--quiet", "--wait", "-p", loads, "/bin/sh", "-c", copies)
    assert bare.run("cat", "/home/alice/loaded") == bare.run(*alice, CTL, "get", "ix-api").strip()


def test_nobody_else_reaches_it(bare: Box, alice: tuple[str, ...]) -> None:
    uid = bare.run("id", "-u", "alice").strip()
    socket = f"/run/user/{uid}/brokerd/brokerd.sock"
    as_daemon = ("setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups")
    assert "permission" in bare.run(*as_daemon, CTL, "--socket", socket, "get", "ix-api", check=False).lower()


def test_an_uninstall_leaves_her_configuration_and_a_purge_nothing(bare: Box, alice: tuple[str, ...]) -> None:
    said = bare.run(*alice, CTL, "uninstall", "--user")
    assert "kept: /home/alice/.config/brokerd, /home/alice/.local/state/brokerd" in said
    bare.run(*alice, CTL, "uninstall", "--user", "--purge", "--yes")
    assert bare.run("find", "/home/alice", "-name", "*brokerd*") == ""

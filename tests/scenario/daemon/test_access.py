# Default deny (law 9): who may do what, by the kernel's description of the caller. What a caller may not see looks like
# what does not exist.
from __future__ import annotations

import grp
import pwd
from typing import Any

import pytest

from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, Table, at
from tests.servers import OAuth2

pytestmark = pytest.mark.usefixtures("as_root")
METHODS: dict[str, Table] = {
    "get": {},
    "refresh": {},
    "revoke": {},
    "import": {"refresh_token": "test-only-stolen"},
    "import_part": {"part": "test-only-stolen"},
}
ADMINISTRATION: dict[str, Table] = {
    "reload": {},
    "adopt": {},
    "log_level": {},
    "test_event": {"event": "bug"},
    "forget": {"grant": "app"},
}
NOBODY = 65_534  # what the kernel shows for an id without a mapping


def somebody() -> User:
    """A user whom this machine knows by name."""
    known = next(each for each in pwd.getpwall() if 0 < each.pw_uid < 1_000)
    return User(known.pw_uid, known.pw_gid)


async def with_rules(brokerd: Brokerd, serving: Serving, *allow: Table) -> OAuth2:
    provider = await serving(OAuth2())
    grants = {"app": FIVE["oauth2"], "app-two": FIVE["oauth2"], "hidden": FIVE["oauth2"]}
    brokerd.configure(grants, {"oauth2": at(provider)}, allow=allow, socket_mode="0666")
    await brokerd.start()
    await brokerd.call("get_many", grants=list(grants))
    return provider


async def test_without_a_rule_nobody_else_gets_anything_and_denied_looks_like_unknown(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    provider = await with_rules(brokerd, serving)
    sent = provider.count()
    async with other_user.connected(brokerd) as caller:
        for method, params in METHODS.items():
            denied = await caller.call(method, grant="app", **params)
            unknown = await caller.call(method, grant="qqq", **params)
            assert denied["code"] == "unknown_grant"
            assert_alike(denied, unknown)
        for method in ("watch", "status"):
            assert_alike(await caller.call(method, grants=["app"]), await caller.call(method, grants=["qqq"]))
        many = await caller.call("get_many", grants=["app", "qqq"])
        assert_alike(*many)
        shown = await caller.call("status")
        assert (shown["grants"], shown["providers"]) == ([], [])
        for method, params in ADMINISTRATION.items():
            assert (await caller.call(method, **params))["code"] == "denied"
        assert (await caller.call("hello"))["protocol"] == 1
    assert provider.count() == sent
    assert (await brokerd.status("app"))["state"] == "ready"
    assert brokerd.log.count("event=denied") >= len(METHODS) + len(ADMINISTRATION)


def assert_alike(denied: dict[str, Any], unknown: dict[str, Any]) -> None:
    """The same answer but for the name that was asked for."""
    assert str(denied).replace("app", "qqq") == str(unknown)


def rules_of(user: User) -> dict[str, Table]:
    """A rule for each selector that describes this user, and a part of him that is not primary."""
    group = next(each for each in grp.getgrall() if each.gr_gid in user.groups)
    return {
        "user": {"user": pwd.getpwuid(user.uid).pw_name},
        "uid": {"uid": user.uid},
        "primary gid": {"gid": user.gid},
        "group": {"group": group.gr_name},
        "gid": {"gid": group.gr_gid},
        "all of them": {"user": pwd.getpwuid(user.uid).pw_name, "uid": user.uid, "group": group.gr_name},
    }


async def test_a_rule_names_callers_by_user_uid_group_and_gid(brokerd: Brokerd, serving: Serving) -> None:
    user = somebody()
    group = next(each for each in grp.getgrall() if each.gr_gid not in (0, user.gid))
    user = User(user.uid, user.gid, group.gr_gid)
    provider = await with_rules(brokerd, serving)
    grants = {"app": FIVE["oauth2"]}
    for what, selector in rules_of(user).items():
        brokerd.configure(
            grants, {"oauth2": at(provider)}, allow=[{"grants": ["app"], "caller": selector}], socket_mode="0666"
        )
        await brokerd.call("reload")
        assert "value" in await user.call(brokerd, "get", grant="app"), what
        stranger = User(60_900, 60_900)
        assert (await stranger.call(brokerd, "get", grant="app"))["code"] == "unknown_grant", what
    half = {"uid": user.uid, "group": next(each.gr_name for each in grp.getgrall() if each.gr_gid == 0)}
    brokerd.configure(grants, {"oauth2": at(provider)}, allow=[{"grants": ["app"], "caller": half}], socket_mode="0666")
    await brokerd.call("reload")
    assert (await user.call(brokerd, "get", grant="app"))["code"] == "unknown_grant", "one selector of two was enough"


async def test_a_rule_gives_what_it_says_and_no_more(brokerd: Brokerd, serving: Serving, other_user: User) -> None:
    caller = {"uid": other_user.uid}
    provider = await with_rules(
        brokerd,
        serving,
        {"grants": ["app*"], "caller": [{"user": "nobody-known"}, caller]},
        {"grants": ["app-two"], "caller": caller, "actions": ["refresh"]},
        {"grants": ["hidden"], "caller": caller, "actions": ["status"]},
    )
    async with other_user.connected(brokerd) as connection:
        assert "value" in await connection.call("get", grant="app")
        status = await connection.call("status")
        assert [each["name"] for each in status["grants"]] == ["app", "app-two", "hidden"]
        assert [each["name"] for each in status["providers"]] == ["oauth2"]
        assert (await connection.call("refresh", grant="app"))["code"] == "denied"
        assert (await connection.call("refresh", grant="app-two"))["grant"] == "app-two"
        assert (await connection.call("revoke", grant="app-two"))["code"] == "denied"
        assert (await connection.call("get", grant="hidden"))["code"] == "denied"
        assert (await connection.call("watch", grants=["app", "hidden"]))["code"] == "denied"
        many = await connection.call("get_many", grants=["app", "hidden", "no"])
        assert [each.get("error", {}).get("code") for each in many] == [None, "denied", "unknown_grant"]
        for method, params in ADMINISTRATION.items():
            assert (await connection.call(method, **params))["code"] == "denied"
    assert provider.count() == 4


async def test_admin_on_all_grants_may_administer_and_the_kernels_nobody_may_nothing(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    everybody: list[Table] = [
        {"grants": ["*"], "caller": {"uid": other_user.uid}, "actions": ["admin"]},
        {"grants": ["*"], "caller": {"user": "nobody"}, "actions": ["admin"]},
    ]
    await with_rules(brokerd, serving, *everybody)
    assert await other_user.call(brokerd, "reload") == {
        "added": [],
        "changed": [],
        "removed": [],
        "tables": [],
        "later": [],
        "restart": False,
        "unreadable": [],
    }
    assert "value" in await other_user.call(brokerd, "get", grant="app")
    nobody = User(NOBODY, NOBODY)
    assert (await nobody.call(brokerd, "get", grant="app"))["code"] == "unknown_grant"
    assert (await nobody.call(brokerd, "reload"))["code"] == "denied"


async def test_who_may_not_open_the_socket_does_not_get_that_far(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    provider = await serving(OAuth2())
    allow = [{"grants": ["app"], "caller": {"uid": other_user.uid}}]
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)}, allow=allow)
    await brokerd.start()
    assert brokerd.socket.stat().st_mode & 0o777 == 0o660
    assert (await other_user.call(brokerd, "get", grant="app"))["code"] == "no_daemon"
    group = next(each for each in grp.getgrall() if each.gr_gid not in (0, NOBODY))
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)}, allow=allow, socket_group=group.gr_name)
    await brokerd.restart()
    assert "value" in await User(other_user.uid, group.gr_gid).call(brokerd, "get", grant="app")

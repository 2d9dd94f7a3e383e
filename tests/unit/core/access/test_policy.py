# Default deny; rules add, and a selector that cannot be read matches nothing (law 9).
from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.access.policy import LONGEST_NAME, OVERFLOW_ID, Action, Caller, Policy, Rule, Selector
from brokerd.core.grant.target import Target

ROOT, DAEMON, PORTAL = 0, 990, 1_001
PORTAL_CALLER = Caller(4_242, PORTAL, frozenset({1_001, 44}), "portal", frozenset({"portal", "video"}))


def policy(*rules: Rule) -> Policy:
    return Policy(rules, owner=DAEMON)


def caller(uid: int, *gids: int, user: str | None = None, groups: frozenset[str] = frozenset()) -> Caller:
    return Caller(1, uid, frozenset(gids), user, groups)


def allow(*grants: str, actions: frozenset[Action] = frozenset({Action.GET}), **selector: object) -> Rule:
    return Rule(grants, (Selector(**selector),), actions)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", list(Action))
def test_without_a_rule_nobody_may_do_anything(action: Action) -> None:
    assert not policy().allows(PORTAL_CALLER, action, "reports")
    assert not policy().allows_administration(PORTAL_CALLER)


@pytest.mark.parametrize("uid", [ROOT, DAEMON])
@pytest.mark.parametrize("action", list(Action))
def test_root_and_the_user_of_the_daemon_may_do_everything(uid: int, action: Action) -> None:
    assert policy().allows(caller(uid), action, "reports")
    assert policy().allows_administration(caller(uid))


def test_a_rule_allows_what_it_says_to_whom_it_says_and_nothing_else() -> None:
    rules = policy(allow("reports", user="portal"))
    assert rules.allows(PORTAL_CALLER, Action.GET, "reports")
    assert not rules.allows(PORTAL_CALLER, Action.GET, "ledger")
    assert not rules.allows(PORTAL_CALLER, Action.REFRESH, "reports")
    assert not rules.allows(caller(PORTAL, user="mallory"), Action.GET, "reports")


@pytest.mark.parametrize(
    ("pattern", "grant", "matches"),
    [
        ("ix-*", "ix-prod", True),
        ("ix-*", "ix-", True),
        ("ix-*", "prod-ix-", False),
        ("*", "reports", True),
        ("ix-?", "ix-1", True),
        ("ix-?", "ix-10", False),
        ("ix-[12]", "ix-2", True),
        ("ix-[!12]", "ix-2", False),
        ("IX-*", "ix-prod", False),  # names are case sensitive
        ("reports", "reports2", False),
        ("report.", "reports", False),  # a glob, not a regular expression
        ("reports", "reports\n", False),
    ],
)
def test_grants_are_named_by_globs(pattern: str, grant: str, matches: bool) -> None:
    assert policy(allow(pattern, uid=PORTAL)).allows(PORTAL_CALLER, Action.GET, grant) is matches


def test_a_name_that_no_grant_can_have_is_compared_with_nothing() -> None:
    """A glob takes a millisecond for a name of 60,000 characters, which counts as 60 requests, for each rule."""
    globs = policy(*(allow(f"*-x{number}", uid=PORTAL) for number in range(100)), allow("*", uid=PORTAL))
    assert globs.allows(PORTAL_CALLER, Action.GET, "-" * LONGEST_NAME)
    assert not globs.allows(PORTAL_CALLER, Action.GET, "-" * (LONGEST_NAME + 1))
    assert globs.about("-" * 60_000) == []


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        (Selector(user="portal"), True),
        (Selector(uid=PORTAL), True),
        (Selector(group="video"), True),
        (Selector(gid=44), True),
        (Selector(user="portal", uid=PORTAL, group="video", gid=44), True),
        (Selector(user="portal", uid=7), False),
        (Selector(user="portal", group="wheel"), False),
        (Selector(group="video", gid=7), False),
        (Selector(user="mallory", gid=44), False),
        (Selector(), False),  # nothing said is nobody, not everybody
    ],
)
def test_all_that_a_selector_says_must_hold(selector: Selector, matches: bool) -> None:
    assert selector.matches(PORTAL_CALLER) is matches


@given(
    st.builds(
        Selector,
        user=st.none() | st.sampled_from(["portal", "other"]),
        uid=st.none() | st.sampled_from([PORTAL, 7]),
        group=st.none() | st.sampled_from(["video", "wheel"]),
        gid=st.none() | st.sampled_from([44, 7]),
    )
)
def test_saying_more_never_lets_more_in(selector: Selector) -> None:
    said = {name for name in ("user", "uid", "group", "gid") if getattr(selector, name) is not None}
    for name in said:
        alone = Selector(**{name: getattr(selector, name)})
        assert alone.matches(PORTAL_CALLER) or not selector.matches(PORTAL_CALLER)


def test_several_selectors_are_alternatives() -> None:
    rule = Rule(("reports",), (Selector(user="portal"), Selector(uid=7)))
    assert policy(rule).allows(PORTAL_CALLER, Action.GET, "reports")
    assert policy(rule).allows(caller(7), Action.GET, "reports")
    assert not policy(rule).allows(caller(8), Action.GET, "reports")


def test_several_rules_are_alternatives() -> None:
    rules = policy(allow("ledger", user="portal"), allow("reports", uid=7))
    assert rules.allows(PORTAL_CALLER, Action.GET, "ledger")
    assert rules.allows(caller(7), Action.GET, "reports")
    assert not rules.allows(caller(7), Action.GET, "ledger")


def test_a_name_that_could_not_be_looked_up_matches_nothing() -> None:
    nameless = caller(PORTAL, 44)
    assert not Selector(user="portal").matches(nameless)
    assert not Selector(group="video").matches(nameless)
    assert not Selector(user="None").matches(nameless)
    assert Selector(uid=PORTAL).matches(nameless)


@pytest.mark.parametrize("action", list(Action))
def test_a_user_without_a_mapping_here_is_nobody(action: Action) -> None:
    unmapped = caller(OVERFLOW_ID, OVERFLOW_ID, user="nobody", groups=frozenset({"nogroup"}))
    everything = frozenset(Action)
    rules = policy(allow("*", actions=everything, uid=OVERFLOW_ID), allow("*", actions=everything, user="nobody"))
    assert not rules.allows(unmapped, action, "reports")
    assert not rules.allows_administration(unmapped)
    assert not Policy(rules.rules, owner=OVERFLOW_ID).allows(unmapped, action, "reports")


def test_a_group_without_a_mapping_here_is_nobodys() -> None:
    """The kernel shows the overflow id for every group of another user namespace, so it says nothing."""
    in_a_container = caller(PORTAL, OVERFLOW_ID, user="portal")
    assert not Selector(gid=OVERFLOW_ID).matches(in_a_container)


GRANTED = {  # what a rule's action lets a caller do
    Action.GET: {Action.GET, Action.STATUS},
    Action.STATUS: {Action.STATUS},
    Action.REFRESH: {Action.REFRESH},
    Action.REVOKE: {Action.REVOKE},
    Action.LOGIN: {Action.LOGIN},
    Action.ADMIN: set(Action),
}


@pytest.mark.parametrize(("said", "asked"), list(itertools.product(Action, Action)))
def test_an_action_covers_what_the_contract_says(said: Action, asked: Action) -> None:
    rules = policy(allow("reports", actions=frozenset({said}), user="portal"))
    assert rules.allows(PORTAL_CALLER, asked, "reports") is (asked in GRANTED[said])


def test_several_actions_add_up() -> None:
    rules = policy(allow("reports", actions=frozenset({Action.REFRESH, Action.REVOKE}), user="portal"))
    assert {each for each in Action if rules.allows(PORTAL_CALLER, each, "reports")} == {Action.REFRESH, Action.REVOKE}


def test_only_admin_of_all_grants_concerns_the_whole_daemon() -> None:
    admin = frozenset({Action.ADMIN})
    assert policy(allow("*", actions=admin, user="portal")).allows_administration(PORTAL_CALLER)
    assert not policy(allow("ix-*", actions=admin, user="portal")).allows_administration(PORTAL_CALLER)
    assert not policy(allow("*", actions=frozenset(Action) - admin, user="portal")).allows_administration(PORTAL_CALLER)
    assert not policy(allow("*", actions=admin, user="mallory")).allows_administration(PORTAL_CALLER)


# Downscoped tokens


READ, BOTH = Target(("read",)), Target(("read", "write"))


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        ({}, [], [READ, Target(audience="a"), Target(resource="urn:r")]),
        ({"scope": ("read",)}, [READ], [BOTH, Target(("read",), "a"), Target(audience="a"), Target(resource="urn:r")]),
        ({"scope": ("r*", "write")}, [READ, BOTH], [Target(("admin", "read"))]),
        ({"audience": ("a*",)}, [Target(audience="api")], [READ, Target(audience="b"), Target(("read",), "api")]),
        ({"resource": ("urn:r",)}, [Target(resource="urn:r")], [Target(resource="urn:r2"), READ]),
        ({"scope": ("read",), "audience": ("a",)}, [Target(("read",), "a")], [READ, Target(audience="a")]),
    ],
)
def test_a_downscoped_token_names_exactly_what_a_rule_names_and_lies_within(
    rule: dict[str, tuple[str, ...]], allowed: list[Target], refused: list[Target]
) -> None:
    rules = policy(replace(allow("reports", uid=PORTAL), **rule))  # type: ignore[arg-type]
    assert [each for each in (*allowed, *refused) if rules.allows_downscoped(PORTAL_CALLER, "reports", each)] == allowed
    assert not rules.allows_downscoped(PORTAL_CALLER, "other", (*allowed, *refused)[0])
    assert not rules.allows_downscoped(caller(PORTAL + 1), "reports", (*allowed, *refused)[0])
    assert rules.allows_downscoped(caller(ROOT), "reports", refused[0])
    assert not rules.allows_downscoped(caller(OVERFLOW_ID), "reports", (*allowed, *refused)[0])
    assert rules.allows(PORTAL_CALLER, Action.GET, "reports") is (not rule), "the grant's own token may be more"
    assert rules.allows(PORTAL_CALLER, Action.STATUS, "reports")


def test_what_the_provider_granted_has_to_lie_within_the_rule() -> None:
    rules = policy(replace(allow("reports", uid=PORTAL), scope=("read",)))
    assert rules.allows_downscoped(PORTAL_CALLER, "reports", READ, ("read",))
    assert rules.allows_downscoped(PORTAL_CALLER, "reports", READ, None)
    assert rules.allows_downscoped(PORTAL_CALLER, "reports", READ, ())
    assert not rules.allows_downscoped(PORTAL_CALLER, "reports", READ, ("read", "write"))
    assert rules.allows_downscoped(caller(ROOT), "reports", READ, ("read", "write"))


def test_two_rules_are_never_put_together_for_one_downscoped_token() -> None:
    rules = policy(
        replace(allow("reports", uid=PORTAL), scope=("read",)), replace(allow("reports", uid=PORTAL), scope=("write",))
    )
    assert rules.allows_downscoped(PORTAL_CALLER, "reports", READ)
    assert not rules.allows_downscoped(PORTAL_CALLER, "reports", BOTH)


def test_an_action_that_includes_get_is_bounded_as_well() -> None:
    rules = policy(replace(allow("*", actions=frozenset({Action.ADMIN}), uid=PORTAL), scope=("read",)))
    assert not rules.allows(PORTAL_CALLER, Action.GET, "reports")
    assert rules.allows(PORTAL_CALLER, Action.REVOKE, "reports")
    assert rules.allows_administration(PORTAL_CALLER)


def test_the_ground_of_a_permission_is_the_first_rule_that_gives_it() -> None:
    portal = Caller(pid=1, uid=1000, gids=frozenset({1000}), user="portal")
    rules = (
        Rule(("other",), (Selector(user="portal"),), place="allow[0]"),
        Rule(("a*",), (Selector(user="portal"),), frozenset({Action.STATUS}), place="allow[1]"),
        Rule(("a*",), (Selector(user="portal"),), scope=("read",), place="allow[2]"),
        Rule(("a*",), (Selector(uid=1), Selector(uid=1000)), place="allow[3]"),
        Rule(("*",), (Selector(user="portal"),), place="allow[4]"),
    )
    policy = Policy(rules, owner=500)
    assert policy.ground(portal, "app") == "allow[3]"
    assert policy.ground(portal, "app", READ) == "allow[2]"
    assert policy.ground(portal, "other") == "allow[0]"
    assert Policy(rules[:3]).ground(portal, "app") == ""
    assert policy.ground(Caller(1, 0, frozenset()), "app") == "root"
    assert policy.ground(Caller(1, 500, frozenset()), "app") == "the daemon's own user"

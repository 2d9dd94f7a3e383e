# The [[allow]] tables: what they become, and each mistake with its whole message.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.core.access.policy import Action, Rule, Selector
from tests.unit.config.files import (
    GRANT,
    error_of,
    loaded,
)


@pytest.mark.parametrize(
    ("caller", "selectors"),
    [
        ("{ uid = 0 }", (Selector(uid=0),)),
        ('{ user = "a", group = "b", gid = 5 }', (Selector(user="a", group="b", gid=5),)),
        ('[{ user = "a" }, { user = "b" }]', (Selector(user="a"), Selector(user="b"))),
    ],
)
def test_a_caller_is_one_table_or_a_list_of_alternatives(
    main: Path, caller: str, selectors: tuple[Selector, ...]
) -> None:
    found = loaded(main, f'{GRANT}[[allow]]\ngrants = ["*"]\ncaller = {caller}\nactions = ["refresh", "admin"]')
    assert found.rules == (Rule(("*",), selectors, frozenset({Action.REFRESH, Action.ADMIN})),)


def test_a_rule_is_for_get_where_it_names_no_action(main: Path) -> None:
    found = loaded(main, f'{GRANT}[[allow]]\ngrants = ["g"]\ncaller = {{ uid = 5 }}')
    assert found.rules[0].actions == {Action.GET}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { uid = 5 }\nscope = []',
            "CONFIG: allow[0].scope: expected an array of names or globs; leave it out for the grant's own token, "
            "found an empty array",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { uid = 5 }\nactions = ["status"]\nresource = ["a"]',
            "CONFIG: allow[0].resource: this key limits which tokens may be fetched, but actions lacks get; "
            "add it, or remove this key",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = {}',
            "CONFIG: allow[0].caller: an empty caller would match everybody; name one or more of user, "
            "uid, group, gid, exe, sha256, unit, slice, user_unit, container",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = [{ uid = 5 }, {}]',
            "CONFIG: allow[0].caller[1]: an empty caller would match everybody; name one or more of user, "
            "uid, group, gid, exe, sha256, unit, slice, user_unit, container",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = []',
            'CONFIG: allow[0].caller: expected a caller such as { user = "portal" }, found an empty array',
        ),
        (GRANT + '[[allow]]\ngrants = ["*"]', "CONFIG: allow[0].caller: this key is required and missing"),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = "portal"',
            'CONFIG: allow[0].caller: expected a table, found "portal"',
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { usr = "portal" }',
            "CONFIG: allow[0].caller.usr: unknown key; did you mean user?",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { uid = "portal" }',
            'CONFIG: allow[0].caller.uid: expected a whole number, found "portal"',
        ),
        (GRANT + "[[allow]]\ncaller = { uid = 5 }", "CONFIG: allow[0].grants: this key is required and missing"),
        (
            GRANT + "[[allow]]\ngrants = []\ncaller = { uid = 5 }",
            'CONFIG: allow[0].grants: expected an array of grant names or globs, such as ["ix-*"], found an empty '
            "array",
        ),
        (
            GRANT + '[[allow]]\ngrants = "*"\ncaller = { uid = 5 }',
            'CONFIG: allow[0].grants: expected an array, found "*"',
        ),
        (
            GRANT + '[[allow]]\ngrants = ["gg"]\ncaller = { uid = 5 }',
            'CONFIG: allow[0].grants: expected a grant of this configuration (g) or a glob, found "gg"',
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { uid = 5 }\nactions = []',
            "CONFIG: allow[0].actions: expected one or more of get, status, refresh, revoke, login, admin, found an "
            "empty array",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { uid = 5 }\nactions = ["get", "renew"]',
            "CONFIG: allow[0].actions[1]: expected one of get, status, refresh, revoke, login, admin, found \"renew\"",
        ),
        (
            GRANT + '[[allow]]\ngrants = ["*"]\ncaller = { uid = 5 }\n[[allow]]\ngrant = ["*"]',
            "CONFIG: allow[1].grant: unknown key; did you mean grants?",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_key_expected_and_found(main: Path, text: str, message: str) -> None:
    assert error_of(main, text) == message

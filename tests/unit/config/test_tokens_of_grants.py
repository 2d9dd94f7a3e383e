# Credentials that are tokens of other grants: where they may stand, and circles of grants that need each other.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.broker.reload import fingerprints
from brokerd.core.secret import SecretSource
from brokerd.dialects.oauth2.grant_types import SUBJECT_GRANT, Subject
from tests.unit.config.files import CORP, GRANT, IX, error_of, loaded

URI = "urn:ietf:params:oauth:token-type:"


def exchanging(name: str, credentials: str = "", more: str = "") -> str:
    """A grant that exchanges a token."""
    head = f'[grants.{name}]\nprovider = "corp"\ngrant_type = "token_exchange"\n'
    return f'{head}{more}\ncredentials = {{ client_id = "c", client_secret = "s"{credentials} }}\n'


def of(grant: str) -> str:
    return f', subject_token = {{ grant = "{grant}" }}'


BASE = (
    '[grants.base]\nprovider = "corp"\ngrant_type = "refresh_token"\ncredentials = { client_id = "c" }\n'
    'fields = ["id_token", "assertion"]\n'
)


@pytest.mark.parametrize(
    ("source", "found", "kind"),
    [
        ('{ grant = "base" }', SecretSource(grant="base"), "access_token"),
        ('{ grant = "base", field = "id_token" }', SecretSource(grant="base", field="id_token"), "id_token"),
        ('{ grant = "base", field = "assertion" }', SecretSource(grant="base", field="assertion"), "jwt"),
        ('{ file = "/token" }', SecretSource(file="/token"), "jwt"),
    ],
)
def test_a_credential_may_be_another_grants_token(main: Path, source: str, found: SecretSource, kind: str) -> None:
    grant = loaded(main, CORP + BASE + exchanging("app", f", subject_token = {source}")).grants["app"]
    assert grant.credentials["subject_token"] == found
    assert grant.has_tokens_of_grants == (found.grant is not None)
    subject = grant.settings["subject"]
    assert isinstance(subject, Subject)
    assert subject.token_type == URI + kind


def test_a_subject_of_another_grant_is_a_credential_too_and_stays_who_it_was(main: Path) -> None:
    by_subject = loaded(main, CORP + BASE + exchanging("app", more='subject = { grant = "base" }'))
    assert by_subject.grants["app"].credentials[SUBJECT_GRANT] == SecretSource(grant="base")
    assert [key for key, source in by_subject.grants["app"].sources if source.grant] == ["subject.grant"]
    first = fingerprints(by_subject)["app"]
    by_credential = loaded(main, CORP + BASE + exchanging("app", of("base")))
    assert fingerprints(by_credential)["app"] == first
    other = loaded(main, CORP + BASE + BASE.replace("base", "more") + exchanging("app", of("more")))
    assert fingerprints(other)["app"] != first


HERE = "CONFIG: grants.app.credentials.subject_token"
MISTAKES = {
    "an unknown grant": (
        exchanging("app", of("nobody")),
        f'{HERE}.grant: expected a grant of this configuration, found "nobody"',
    ),
    "itself": (
        exchanging("app", of("app")),
        f"{HERE}.grant: these grants need each other's token: app needs app; let one of them have another credential",
    ),
    "a field of a file": (
        exchanging("app", ', subject_token = { file = "/t", field = "id_token" }'),
        f"{HERE}.field: only a token of another grant has fields; write grant too, or remove field",
    ),
    "a field that the other grant has not": (
        exchanging("app", ', subject_token = { grant = "base", field = "saml" }'),
        f"{HERE}.field: expected a field of the grant base (id_token, assertion), found saml; name it in the fields of "
        "that grant",
    ),
    "a grant and a file": (
        exchanging("app", ', subject_token = { grant = "base", file = "/t" }'),
        f"{HERE}: expected exactly one of file, credential, env, command, grant; found file and grant: write "
        'credentials.subject_token = { file = "…" }',
    ),
    "who the client is": (
        exchanging("app", of("base")).replace('client_id = "c"', 'client_id = { grant = "base" }'),
        "CONFIG: grants.app.credentials.client_id: it says whose tokens the grant has, so it cannot come from another "
        "grant; write it here",
    ),
    "an assertion that others signed, in the wrong table": (
        exchanging("app", of("base"), more='client_assertion = { file = "/t" }'),
        "CONFIG: grants.app.client_assertion.file: this table says how brokerd signs; for an assertion that others "
        'signed, write credentials = { client_assertion = { file = "…" } }',
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_its_place(main: Path, mistake: str) -> None:
    text, message = MISTAKES[mistake]
    assert error_of(main, CORP + BASE + text) == message


def test_grants_in_a_circle_are_named_each_once(main: Path) -> None:
    around = exchanging("a", of("b")) + exchanging("b", of("c")) + exchanging("c", more='subject = { grant = "a" }')
    message = error_of(main, CORP + around + exchanging("beside", of("a")))
    assert "grants.a.credentials.subject_token.grant: " in message
    assert "these grants need each other's token: a needs b needs c needs a; " in message
    assert "beside needs" not in message


def test_only_the_keys_of_brokerd_itself_cannot_be_another_grants_token(main: Path) -> None:
    message = error_of(main, f'[daemon]\nkey = {{ grant = "g" }}\n{GRANT}')
    assert message.startswith("CONFIG: daemon.key.grant: unknown key")
    of_recipe = IX + '[grants.g]\nprovider = "ix"\ncredentials = { api_key = "k", api_secret = { grant = "base" } }\n'
    assert loaded(main, CORP + BASE + of_recipe).grants["g"].credentials["api_secret"] == SecretSource(grant="base")


STATIC = """
[providers.key]
dialect = "static"
[grants.key]
provider = "key"
credentials = { token = { file = "/s" }, account = "a" }
"""


@pytest.mark.parametrize("field", [None, "account"])
def test_a_static_token_may_be_a_credential_and_cannot_have_one(main: Path, field: str | None) -> None:
    source = '{ grant = "key" }' if field is None else '{ grant = "key", field = "account" }'
    found = loaded(main, CORP + STATIC + exchanging("app", f", subject_token = {source}")).grants["app"]
    assert found.credentials["subject_token"] == SecretSource(grant="key", field=field)
    message = error_of(main, CORP + BASE + STATIC.replace('{ file = "/s" }', '{ grant = "base" }'))
    assert message.startswith(
        "CONFIG: grants.key.credentials.token.grant: a static token is one that somebody wrote down"
    )
    message = error_of(main, CORP + STATIC + exchanging("app", ', subject_token = { grant = "key", field = "token" }'))
    assert "expected a field of the grant key (account), found token" in message

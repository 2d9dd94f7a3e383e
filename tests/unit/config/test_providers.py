# The [providers.NAME] tables: what they become, and each mistake with its whole message.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.setup.installation import http_settings
from tests.unit.config.files import (
    A_DURATION,
    CORP,
    DIALECTS,
    GRANT,
    IX,
    error_of,
    loaded,
)


def test_how_long_an_answer_is_waited_for_is_a_providers_setting(main: Path) -> None:
    assert loaded(main, GRANT).grants["g"].provider.answer_timeout is None
    slow = loaded(main, GRANT.replace("[grants", 'answer_timeout = "10m"\n[grants')).grants["g"].provider
    assert http_settings(slow).timeouts(sends_stored=True).answer == 600
    assert http_settings(slow).timeouts(sends_stored=False).answer == 600


STATIC = '[providers.s]\ndialect = "static"\n'


def test_a_static_provider_can_say_how_its_token_is_sent(main: Path) -> None:
    assert loaded(main, STATIC).providers["s"].dialect.present("Bearer") == "Authorization: Bearer {access_token}"
    own = loaded(main, STATIC + 'present = "X-Api-Key: {access_token}"').providers["s"]
    assert own.dialect.present("Bearer") == "X-Api-Key: {access_token}"


@pytest.mark.parametrize("wrong", ["Host", "authorization", "Content-Type", "X Id", "X-Id: 1\\r\\nX", "é"])
def test_a_request_id_goes_into_no_header_that_the_request_needs(main: Path, wrong: str) -> None:
    words = 'expected the name of a header that the request does not use, such as "X-Request-ID", or "" for none, found'
    assert words in error_of(main, f'{IX}\nrequest_id_header = "{wrong}"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[providers.ix]", "CONFIG: providers.ix.dialect: this key is required and missing"),
        (
            '[providers.ix]\ndialect = "ix"',
            f'CONFIG: providers.ix.dialect: expected one of {DIALECTS}, found "ix"',
        ),
        (
            '[providers.ix]\ndialect = "../../etc/passwd"',
            f"CONFIG: providers.ix.dialect: expected one of {DIALECTS}, found "
            '"../../etc/passwd"',
        ),
        (
            '[providers.ix]\ndialect = "ix-api"',
            'CONFIG: providers.ix.base_url: this key is required and missing, for example "https://idp.example/…"',
        ),
        (
            '[providers.ix]\ndialect = "oauth2"',
            "CONFIG: providers.ix.token_url: this key is required and missing; write it, or write issuer, "
            "and brokerd finds the URLs",
        ),
        (IX + 'bse_url = "x"', "CONFIG: providers.ix.bse_url: unknown key; did you mean base_url?"),
        (
            IX.replace("https:", "ftp:"),
            "CONFIG: providers.ix.base_url: expected an https:// URL without user, query and fragment, found "
            '"ftp://api.ix.example/api/v2"',
        ),
        (
            IX.replace("/v2", "/v2?key=5"),
            "CONFIG: providers.ix.base_url: expected an https:// URL without user, query and fragment, found text",
        ),
        (
            IX.replace("https://", "https://me:hunter2@"),
            "CONFIG: providers.ix.base_url: expected an https:// URL without user, query and fragment, found text",
        ),
        (
            IX.replace(".example", ".example:port"),
            "CONFIG: providers.ix.base_url: expected an https:// URL without user, query and fragment, found "
            '"https://api.ix.example:port/api/v2"',
        ),
        (
            IX + 'token_url = "https://idp.example"',
            "CONFIG: providers.ix.token_url: ix-api is a recipe, which does not use token_url; write base_url instead",
        ),
        (
            CORP + 'base_url = "https://idp.example"',
            "CONFIG: providers.corp.base_url: dialect oauth2 does not use base_url; write issuer or token_url instead",
        ),
        (
            CORP + "settings = { a = 1 }",
            "CONFIG: providers.corp.settings: dialect oauth2 has no table of settings; remove it",
        ),
        (
            IX + "settings = { a = 1 }",
            "CONFIG: providers.ix.settings.a: recipe ix-api has no such setting; it has: none",
        ),
        (IX + "concurrency = 0", "CONFIG: providers.ix.concurrency: expected a whole number of 1 or more, found 0"),
        (IX + 'concurrency = "8"', 'CONFIG: providers.ix.concurrency: expected a whole number, found "8"'),
        (
            IX + 'answer_timeout = "2h"',
            "CONFIG: providers.ix.answer_timeout: expected a duration from one second to one hour, found 7200.0",
        ),
        (
            IX + 'reuse_grace = "soon"',
            f'CONFIG: providers.ix.reuse_grace: expected {A_DURATION}, found '
            '"soon"',
        ),
        (
            IX + 'ca_file = "/nowhere/ca.pem"',
            'CONFIG: providers.ix.ca_file: expected the absolute path of a file that exists, found "/nowhere/ca.pem"',
        ),
        (
            IX + 'key_file = "/nowhere/k.pem"',
            "CONFIG: providers.ix.key_file: key_file needs cert_file too; add cert_file, or remove key_file",
        ),
        (
            STATIC + 'base_url = "https://api.example"',
            "CONFIG: providers.s.base_url: dialect static sends no request, so it has no such key; remove it",
        ),
        (
            STATIC + "insecure_http = true",
            "CONFIG: providers.s.insecure_http: dialect static sends no request, so it has no such key; remove it",
        ),
        (
            STATIC + 'present = "X-Api-Key"',
            'CONFIG: providers.s.present: expected a header line such as "Authorization: Bearer {access_token}", found '
            '"X-Api-Key"',
        ),
        (
            CORP + 'present = "X: {access_token}"',
            "CONFIG: providers.corp.present: only dialect static uses this key; remove it",
        ),
        (IX + "insecure_http = 1", "CONFIG: providers.ix.insecure_http: expected true or false, found 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_key_expected_and_found(main: Path, text: str, message: str) -> None:
    assert error_of(main, text) == message

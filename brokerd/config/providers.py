# The [providers.NAME] tables: where requests go and how.
from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from brokerd.config.recipes import Recipes
from brokerd.config.settings import CONCURRENCY, REUSE_GRACE, ProviderSettings
from brokerd.config.toml_files import is_there
from brokerd.core.exchange.request_ids import HEADER
from brokerd.core.secret import Secret
from brokerd.core.timing.duration import Duration
from brokerd.core.validation import ConfigError, convert, expected
from brokerd.dialects import static
from brokerd.dialects.dialect import Dialect
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.dialects.recipe.dialect import RecipeDialect
from brokerd.dialects.recipe.file import check_present

LONGEST_ANSWER = 3_600.0  # seconds; a stop of brokerd waits for an answer that may bring a new refresh token
HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,252}")
VISIBLE = re.compile(r"[!-\[\]-~]+")  # RFC 3986: nothing but ASCII, without blanks and backslashes
HEADER_NAME = re.compile(
    r"(?!(?i:host|authorization|content-.*|connection|te|.*-encoding|upgrade|expect)\Z)[A-Za-z0-9-]{1,64}"
)
OAUTH2_URLS = (
    *("token_url", "revocation_url", "introspection_url", "device_authorization_url", "authorization_url", "issuer"),
)


class ProviderFile(msgspec.Struct, forbid_unknown_fields=True):
    dialect: str
    base_url: str | None = None
    issuer: str | None = None
    token_url: str | None = None
    revocation_url: str | None = None
    introspection_url: str | None = None
    device_authorization_url: str | None = None
    authorization_url: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    proxy: str | None = None
    insecure_http: bool = False
    reuse_grace: Duration = Duration(REUSE_GRACE)
    concurrency: int = CONCURRENCY
    answer_timeout: Duration | None = None
    request_id_header: str = HEADER
    present: str | None = None
    settings: dict[str, Any] = {}


def read_provider(name: str, recipes: Recipes, exposed: ConfigError | None, raw: Any) -> ProviderSettings:
    table = convert(raw, ProviderFile)
    if table.concurrency < 1:
        raise expected("a whole number of 1 or more", table.concurrency, key="concurrency")
    if table.answer_timeout is not None and not 1 <= table.answer_timeout <= LONGEST_ANSWER:
        raise expected("a duration from one second to one hour", float(table.answer_timeout), key="answer_timeout")
    if table.request_id_header and not HEADER_NAME.fullmatch(table.request_id_header):
        words = f'the name of a header that the request does not use, such as "{HEADER}", or "" for none'
        raise expected(words, table.request_id_header, key="request_id_header")
    if table.key_file and not table.cert_file:
        raise ConfigError("key_file needs cert_file too; add cert_file, or remove key_file", key="key_file")
    if exposed and table.proxy and "@" in table.proxy:
        raise exposed.within("proxy")
    for key in ("ca_file", "cert_file", "key_file"):
        if (path := getattr(table, key)) and not (path.startswith("/") and is_there(Path(path))):
            raise expected("the absolute path of a file that exists", path, key=key)
    return ProviderSettings(
        name=name,
        dialect=_dialect(table, recipes),
        ca_file=table.ca_file,
        cert_file=table.cert_file,
        key_file=table.key_file,
        proxy=None if table.proxy is None else Secret(table.proxy),
        insecure_http=table.insecure_http,
        reuse_grace=float(table.reuse_grace),
        concurrency=table.concurrency,
        answer_timeout=None if table.answer_timeout is None else float(table.answer_timeout),
        request_id_header=table.request_id_header,
    )


def _dialect(table: ProviderFile, recipes: Recipes) -> Dialect:
    if table.dialect == static.NAME:
        return _static(table)
    if table.present is not None:
        raise ConfigError("only dialect static uses this key; remove it", key="present")
    if table.dialect == "oauth2":
        if table.base_url is not None:
            raise ConfigError("dialect oauth2 does not use base_url; write issuer or token_url instead", key="base_url")
        if table.settings:
            raise ConfigError("dialect oauth2 has no table of settings; remove it", key="settings")
        if table.issuer is None and table.token_url is None:
            words = "this key is required and missing; write it, or write issuer, and brokerd finds the URLs"
            raise ConfigError(words, key="token_url")
        given = {key: value for key in OAUTH2_URLS if (value := getattr(table, key)) is not None}
        urls = {key: _url(value, key, query=key != "issuer") for key, value in given.items()}
        return OAuth2(**urls, has_certificate=table.cert_file is not None)
    recipe = recipes.get(table.dialect)
    for key in OAUTH2_URLS:
        if getattr(table, key) is not None:
            raise ConfigError(f"{table.dialect} is a recipe, which does not use {key}; write base_url instead", key=key)
    for key in table.settings:
        if key not in recipe.settings:
            known = ", ".join(recipe.settings) or "none"
            raise ConfigError(f"recipe {recipe.name} has no such setting; it has: {known}", key=f"settings.{key}")
    return RecipeDialect(recipe, _url(table.base_url, "base_url").rstrip("/"), table.settings)


def _static(table: ProviderFile) -> Dialect:
    for key in ProviderFile.__struct_fields__:
        if key not in ("dialect", "present") and getattr(table, key) != getattr(ProviderFile(table.dialect), key):
            raise ConfigError("dialect static sends no request, so it has no such key; remove it", key=key)
    if table.present is None:
        return static.Static()
    check_present(table.present)
    return static.Static(table.present)


def _url(value: str | None, key: str, *, query: bool = False) -> str:
    """`query`: it may have one, as the endpoints of Azure AD B2C do."""
    if value is None:
        raise ConfigError('this key is required and missing, for example "https://idp.example/…"', key=key)
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(HOST.fullmatch(parts.hostname or "")) and parts.port != 0
    except ValueError:
        valid = False
    strange = not valid or parts.fragment or parts.username or parts.password or not VISIBLE.fullmatch(value)
    if strange or (parts.query and not query):
        wanted = f"an https:// URL without user{'' if query else ', query'} and fragment"
        raise expected(wanted, value, key=key, show=not set(value) & set("@?"))
    return value

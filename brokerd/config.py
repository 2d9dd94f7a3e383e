# Reads the configuration: brokerd.toml, conf.d/*.toml and recipes beside it, into checked settings.
# Nothing here reaches for the network or reads a secret: a secret is named here and read by edge/secrets.py.
from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import tomli

from brokerd.core.admission import Limits
from brokerd.core.duration import Duration
from brokerd.core.policy import Action, Rule, Selector
from brokerd.core.renewal import Pace
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.typed import ConfigError, convert, expected
from brokerd.dialects.dialect import Dialect
from brokerd.dialects.oauth2 import OAuth2
from brokerd.dialects.oauth2 import settings as oauth2
from brokerd.dialects.recipe import IDENTIFYING, RecipeDialect
from brokerd.dialects.recipe_file import Recipe, read_recipe

DEFAULT_CONFIG = "/etc/brokerd/brokerd.toml"
BUILT_IN_RECIPES = Path(__file__).parent / "dialects" / "recipes"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
DEFAULT_KEY = SecretSource(file="/etc/brokerd/key")
NOT_ASKED = ("client_auth", "client_assertion")  # how a client shows who it is changes nothing about its tokens
PUBLIC = frozenset(IDENTIFYING) - {"api_key"}  # credentials that may stand where everybody can read
HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,252}")
VISIBLE = re.compile(r"[!-\[\]-~]+")  # RFC 3986: nothing but ASCII, without blanks and backslashes
LIMITS = ("max_connections", "max_connections_per_user", "max_waiting_per_user", "max_rate_per_user")  # as in Limits


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    socket: str | None = None  # None: systemd's, $XDG_RUNTIME_DIR's, or the default
    state_dir: str | None = None
    key: SecretSource = DEFAULT_KEY
    socket_mode: int = 0o660
    socket_group: str | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Where requests go and how. `concurrency`: requests in flight at once; times in seconds."""

    name: str
    dialect: Dialect
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    proxy: Secret | None = None
    insecure_http: bool = False
    reuse_grace: float = 0.0
    concurrency: int = 8


@dataclass(frozen=True, slots=True)
class GrantSettings:
    name: str
    provider: ProviderSettings
    credentials: Mapping[str, SecretSource]
    settings: Mapping[str, object]
    pace: Pace

    @property
    def asked(self) -> str:
        """What its tokens are asked for, as text to compare: where it changes, a new token is got (law 14)."""
        return repr(sorted((key, value) for key, value in self.settings.items() if key not in NOT_ASKED))


@dataclass(frozen=True, slots=True)
class Configuration:
    path: str
    daemon: DaemonSettings = DaemonSettings()
    providers: Mapping[str, ProviderSettings] = field(default_factory=dict)
    grants: Mapping[str, GrantSettings] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()


def load(path: str | Path) -> Configuration:
    """The whole configuration, or ConfigError: all or nothing (law 14)."""
    main = Path(path)
    tables = _Tables()
    for file in (main, *sorted((main.parent / "conf.d").glob("*.toml"))):
        tables.take(file)
    recipes = _Recipes(main.parent / "recipes")
    providers = {}
    for name, (file, raw) in tables.named["providers"].items():
        with _Within(file, f"providers.{name}"):
            providers[name] = _provider(name, raw, recipes, tables.exposed.get(file))
    grants = {}
    for name, (file, raw) in tables.named["grants"].items():
        with _Within(file, f"grants.{name}"):
            grants[name] = _grant(name, raw, providers, tables.exposed.get(file))
    for check in (_check_subjects, _check_keys):
        for name, error in check(grants):
            raise error.within(f"grants.{name}", str(tables.named["grants"][name][0]))
    rules = []
    for file, index, raw in tables.allow:
        with _Within(file, f"allow[{index}]"):
            rules.append(_rule(raw, grants))
    return Configuration(str(main), _daemon(tables.daemon, main), providers, grants, tuple(rules))


# -- the tables as they are written


class SourceFile(msgspec.Struct, forbid_unknown_fields=True):
    file: str | None = None
    credential: str | None = None
    env: str | None = None
    command: list[str] | None = None


class KeyFile(SourceFile):
    passphrase: bool | None = None


class DaemonFile(msgspec.Struct, forbid_unknown_fields=True):
    socket: str | None = None
    state_dir: str | None = None
    key: dict[str, Any] | None = None
    socket_mode: str | None = None
    socket_group: str | None = None
    max_connections: int = 4_096
    max_connections_per_user: int | None = None
    max_waiting_per_user: int = 4_096
    max_rate_per_user: float = 5_000.0


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
    reuse_grace: Duration = Duration(0.0)
    concurrency: int = 8
    settings: dict[str, Any] = {}


class GrantFile(msgspec.Struct, forbid_unknown_fields=True):
    provider: str
    credentials: dict[str, Any] = {}
    grant_type: str | None = None
    client_auth: str | None = None
    scope: list[str] = []
    audience: str | None = None
    resource: str | None = None
    dpop: bool = False
    assertion: oauth2.AssertionFile | None = None
    client_assertion: oauth2.ClientAssertionFile | None = None
    subject: oauth2.SubjectFile | None = None
    on_demand: bool = False
    lifetime: Duration = Duration(3_600.0)
    settings: dict[str, Any] = {}


class SelectorFile(msgspec.Struct, forbid_unknown_fields=True):
    user: str | None = None
    uid: int | None = None
    group: str | None = None
    gid: int | None = None


class AllowFile(msgspec.Struct, forbid_unknown_fields=True):
    grants: list[str]
    caller: Any
    actions: list[Action] = msgspec.field(default_factory=lambda: [Action.GET])


OAUTH2_URLS = (
    *("token_url", "revocation_url", "introspection_url", "device_authorization_url", "authorization_url", "issuer"),
)
OAUTH2_KEYS = ("grant_type", "client_auth", "dpop", "assertion", "client_assertion", "subject")
DEFAULT_AUTH = {"client_secret": "client_secret_basic", "private_key": "private_key_jwt"}


class _Within:
    """Adds file and key to every ConfigError raised inside."""

    def __init__(self, file: Path, key: str) -> None:
        self._file, self._key = file, key

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, ConfigError):
            raise error.within(self._key, str(self._file)) from None


class _Tables:
    """All files' tables, each with the file that it came from. A name stands in one file only."""

    def __init__(self) -> None:
        self.daemon: list[tuple[Path, Any]] = []
        self.named: dict[str, dict[str, tuple[Path, Any]]] = {"providers": {}, "grants": {}}
        self.allow: list[tuple[Path, int, Any]] = []
        self.exposed: dict[Path, ConfigError] = {}  # files that everybody can read, and why that may be a mistake

    def take(self, file: Path) -> None:
        raw = _toml(file)
        if stat.S_IMODE(file.stat().st_mode) & 0o004:
            words = f"a secret stands in a file that everybody can read; chmod o-r {file}"
            self.exposed[file] = ConfigError(words)
        with _Within(file, ""):
            for key in raw:
                if key not in ("daemon", "providers", "grants", "allow"):
                    raise ConfigError("unknown table; known: [daemon], [providers.…], [grants.…], [[allow]]", key=key)
            if "daemon" in raw:
                self.daemon.append((file, raw["daemon"]))
            for kind, taken in self.named.items():
                for name, table in convert(raw.get(kind, {}), dict[str, Any], kind).items():
                    if not NAME.fullmatch(name):
                        words = "a name of up to 128 letters, digits, dots, dashes and underscores"
                        raise expected(words, name, key=kind)
                    if name in taken:
                        raise ConfigError(f"stands in {taken[name][0]} too; keep one of them", key=f"{kind}.{name}")
                    taken[name] = (file, table)
            self.allow += [(file, n, each) for n, each in enumerate(convert(raw.get("allow", []), list[Any], "allow"))]


class _Recipes:
    """Recipes by name: the operator's own, beside the configuration, win over those that come with brokerd."""

    def __init__(self, own: Path) -> None:
        self._folders = (own, BUILT_IN_RECIPES)
        self._read: dict[str, Recipe] = {}

    def get(self, name: str) -> Recipe:
        if name not in self._read:
            files = (folder / f"{name}.toml" for folder in self._folders) if NAME.fullmatch(name) else ()
            file = next(filter(_is_there, files), None)
            if file is None:
                raise expected(f"one of {', '.join(self._names())}", name, key="dialect")
            with _Within(file, ""):
                self._read[name] = read_recipe(name, _toml(file))
        return self._read[name]

    def _names(self) -> Iterator[str]:
        yield "oauth2"
        yield from sorted({file.stem for folder in self._folders for file in folder.glob("*.toml")})


# -- from tables to settings


def _daemon(tables: list[tuple[Path, Any]], main: Path) -> DaemonSettings:
    merged: dict[str, Any] = {}
    for file, raw in tables:
        with _Within(file, "daemon"):
            convert(raw, DaemonFile)
            if twice := sorted(set(merged) & set(raw)):
                raise ConfigError("stands in another file too; keep one of them", key=twice[0])
        merged.update(raw)
    file = tables[-1][0] if tables else main
    with _Within(file, "daemon"):
        table = convert(merged, DaemonFile)
        mode = table.socket_mode or "0660"
        if not re.fullmatch(r"0?[0-7]{3}", mode):
            raise expected('an octal mode as text, such as "0660"', mode, key="socket_mode")
        for key in ("socket", "state_dir"):
            if (value := merged.get(key)) and not value.startswith("/"):
                raise expected("an absolute path", value, key=key)
        for key in LIMITS:
            if (number := getattr(table, key)) is not None and number < 1:
                raise expected("a number of 1 or more", number, key=key)
        limits = Limits(*(getattr(table, key) for key in LIMITS))
        key_source = DEFAULT_KEY if table.key is None else _key(table.key)
        return DaemonSettings(table.socket, table.state_dir, key_source, int(mode, 8), table.socket_group, limits)


def _key(raw: dict[str, Any]) -> SecretSource:
    table = convert(raw, KeyFile, "key", secret=True)
    if table.passphrase is not None:
        words = 'a passphrase is not supported by this version; use key = { file = "…" }'
        raise ConfigError(words, key="key.passphrase")
    return _source(table, "key", 'key = { file = "/etc/brokerd/key" }')


def _provider(name: str, raw: Any, recipes: _Recipes, exposed: ConfigError | None) -> ProviderSettings:
    table = convert(raw, ProviderFile)
    if table.concurrency < 1:
        raise expected("a whole number of 1 or more", table.concurrency, key="concurrency")
    if table.key_file and not table.cert_file:
        raise ConfigError("a key_file needs its cert_file", key="key_file")
    if exposed and table.proxy and "@" in table.proxy:
        raise exposed.within("proxy")
    for key in ("ca_file", "cert_file", "key_file"):
        if (path := getattr(table, key)) and not (path.startswith("/") and _is_there(Path(path))):
            raise expected("the absolute path of a file that is there", path, key=key)
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
    )


def _dialect(table: ProviderFile, recipes: _Recipes) -> Dialect:
    if table.dialect == "oauth2":
        if table.base_url is not None:
            raise ConfigError("oauth2 takes issuer, or token_url, in the place of base_url", key="base_url")
        if table.settings:
            raise ConfigError("oauth2 has no further settings", key="settings")
        if table.issuer is None and table.token_url is None:
            raise ConfigError("this key is required and missing; or name an issuer, to have it found", key="token_url")
        urls = {key: _url(value, key) for key in OAUTH2_URLS if (value := getattr(table, key)) is not None}
        return OAuth2(**urls, has_certificate=table.cert_file is not None)
    recipe = recipes.get(table.dialect)
    for key in OAUTH2_URLS:
        if getattr(table, key) is not None:
            raise ConfigError(f"{table.dialect} is a recipe and takes base_url in the place of {key}", key=key)
    for key in table.settings:
        if key not in recipe.settings:
            known = ", ".join(recipe.settings) or "none"
            raise ConfigError(f"{recipe.name} knows no such setting; known: {known}", key=f"settings.{key}")
    return RecipeDialect(recipe, _url(table.base_url, "base_url").rstrip("/"), table.settings)


def _grant(
    name: str, raw: Any, providers: Mapping[str, ProviderSettings], exposed: ConfigError | None
) -> GrantSettings:
    table = convert(raw, GrantFile)
    provider = providers.get(table.provider)
    if provider is None:
        known = ", ".join(sorted(providers)) or "none is configured"
        raise expected(f"a provider of this configuration ({known})", table.provider, key="provider")
    if table.lifetime < 1:
        raise expected("a duration of a second or more", float(table.lifetime), key="lifetime")
    credentials = {key: _secret(value, f"credentials.{key}") for key, value in table.credentials.items()}
    for key, source in credentials.items():
        if exposed and source.text is not None and key not in PUBLIC:
            raise exposed.within(f"credentials.{key}")
    settings: dict[str, object] = dict(table.settings)
    settings.update({k: v for k in ("scope", "audience", "resource") if (v := getattr(table, k))})
    if type(provider.dialect) is OAuth2:  # isinstance is slow where a Protocol is among the bases
        settings.update(_oauth2(table, provider.dialect, frozenset(credentials)))
    else:
        for key in OAUTH2_KEYS:
            if getattr(table, key):
                raise ConfigError("only oauth2 has this; a recipe says itself what is sent", key=key)
    provider.dialect.check(frozenset(credentials), settings)
    pace = Pace(float(table.lifetime), table.on_demand, provider.reuse_grace)
    return GrantSettings(name, provider, credentials, settings, pace)


def _oauth2(table: GrantFile, dialect: OAuth2, credentials: frozenset[str]) -> dict[str, object]:
    if table.settings:
        raise ConfigError("oauth2 has no further settings", key="settings")
    offered = ("auto",) if dialect.issuer else ()
    by_credential = [method for name, method in DEFAULT_AUTH.items() if name in credentials]
    settings: dict[str, object] = {"grant_type": table.grant_type}
    settings["client_auth"] = table.client_auth or (*offered, *by_credential, "none")[0]
    if table.dpop:
        settings["dpop"] = True
    if table.assertion:
        settings["assertion"] = oauth2.assertion(table.assertion)
    if table.client_assertion:
        settings["client_assertion"] = oauth2.client_assertion(table.client_assertion)
    if table.subject or table.grant_type == "token_exchange":
        settings["subject"] = oauth2.subject(table.subject or oauth2.SubjectFile())
    return settings


def _check_subjects(grants: Mapping[str, GrantSettings]) -> Iterator[tuple[str, ConfigError]]:
    """Grants whose tokens are got with another one's: it is there, and no grant waits for itself."""
    subject = {name: each.provider.dialect.needs(each.settings).subject for name, each in grants.items()}
    for name, other in subject.items():
        if other is None:
            continue
        if other not in grants:
            yield name, expected("a grant of this configuration", other, key="subject.grant")
        seen = [name]
        while other is not None and other in grants and other not in seen:
            seen.append(other)
            other = subject[other]
        if other == name:
            words = f"grants are each other's subject: {' needs '.join([*seen, name])}"
            yield name, ConfigError(words, key="subject.grant")


def _check_keys(grants: Mapping[str, GrantSettings]) -> Iterator[tuple[str, ConfigError]]:
    """One private key for one provider: what is signed for one must be worth nothing at another."""
    users: dict[SecretSource, str] = {}
    for name, grant in grants.items():
        source = grant.credentials.get("private_key")
        if source is not None and users.setdefault(source, grant.provider.name) != grant.provider.name:
            words = f"this key is that of provider {users[source]} too; every provider needs a key of its own"
            yield name, ConfigError(words, key="credentials.private_key")


def _rule(raw: Any, grants: Mapping[str, GrantSettings]) -> Rule:
    table = convert(raw, AllowFile)
    if not table.grants:
        raise expected('an array of grant names or globs, such as ["ix-*"]', table.grants, key="grants")
    for pattern in table.grants:
        if not set(pattern) & set("*?[") and pattern not in grants:
            known = ", ".join(sorted(grants)) or "none is configured"
            raise expected(f"a grant of this configuration ({known}) or a glob", pattern, key="grants")
    callers = table.caller if isinstance(table.caller, list) else [table.caller]
    if not callers:
        raise expected('a caller such as { user = "portal" }', table.caller, key="caller")
    if not table.actions:
        raise expected(f"one or more of {', '.join(Action)}", table.actions, key="actions")
    selectors = tuple(
        _selector(each, "caller" if len(callers) == 1 else f"caller[{n}]") for n, each in enumerate(callers)
    )
    return Rule(tuple(table.grants), selectors, frozenset(table.actions))


def _selector(raw: Any, key: str) -> Selector:
    table = convert(raw, SelectorFile, key)
    said = {name: value for name in table.__struct_fields__ if (value := getattr(table, name)) is not None}
    if not said:
        raise ConfigError("an empty caller would let everybody in; name a user, uid, group or gid", key=key)
    return Selector(**said)


def _secret(raw: object, key: str) -> SecretSource:
    if isinstance(raw, str):
        if not raw:
            raise ConfigError("an empty secret", key=key)
        return SecretSource(text=Secret(raw))
    if not isinstance(raw, dict):
        raise expected("text, or a table with one of file, credential, env, command", raw, key=key, show=False)
    return _source(convert(raw, SourceFile, key, secret=True), key, f'{key} = {{ file = "…" }}')


def _source(table: SourceFile, key: str, example: str) -> SecretSource:
    said = {name: value for name in SourceFile.__struct_fields__ if (value := getattr(table, name)) is not None}
    if len(said) != 1:
        found = " and ".join(said) or "none"
        words = f"expected exactly one of file, credential, env, command; found {found}: write {example}"
        raise ConfigError(words, key=key)
    if table.file is not None and not table.file.startswith("/"):
        raise expected("an absolute path", table.file, key=f"{key}.file")
    if table.command is not None and not (table.command and table.command[0].startswith("/")):
        raise expected("a command whose program is an absolute path", table.command, key=f"{key}.command")
    if table.credential is not None and ("/" in table.credential or table.credential in ("", ".", "..")):
        raise expected("the name of a systemd credential", table.credential, key=f"{key}.credential")
    return SecretSource(None, table.file, table.credential, table.env, tuple(table.command) if table.command else None)


def _url(value: str | None, key: str) -> str:
    if value is None:
        raise ConfigError('this key is required and missing, for example "https://idp.example/…"', key=key)
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(HOST.fullmatch(parts.hostname or "")) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or parts.username or parts.password or not VISIBLE.fullmatch(value):
        raise expected(
            "an https:// URL without user, query and fragment", value, key=key, show=not set(value) & set("@?")
        )
    return value


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # too long a name, or a folder that may not be looked into
        return False


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomli.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        words = f"there is no such file; name one with --config FILE (without it: {DEFAULT_CONFIG})"
        raise ConfigError(words, file=str(file)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(file)) from None
    except (tomli.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"this is not TOML: {error}", file=str(file)) from None
    except ValueError:  # Python's own limit, whose text speaks to programmers
        raise ConfigError("this is not TOML: a number has thousands of digits", file=str(file)) from None

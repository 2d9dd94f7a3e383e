# FILE.toml of brokerd-proxy: the [proxies.NAME] and [metadata.NAME] tables as checked values, all or nothing. It opens
# nothing but that file.
from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from brokerd.config.errors import Errors
from brokerd.config.loopback import is_loopback
from brokerd.config.metadata import EndpointSettings, read_endpoint
from brokerd.config.proxy_places import ProxyPlace, read_callers, read_listen
from brokerd.config.token_files import Source
from brokerd.config.toml_files import DEFAULT_CONFIG, NAME, read_toml
from brokerd.core.access.policy import Selector
from brokerd.core.http.forwarding import NEVER, Allowed, Upstream
from brokerd.core.validation import ConfigError, convert, expected

FOLDER = Path(DEFAULT_CONFIG).parent / "proxies"  # of the files that units have
METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
UPSTREAM = "a URL such as https://api.example/v2, without user, query and fragment"
EXAMPLE = (
    'expected [proxies.NAME] tables, such as: [proxies.ix] grant = "ix" upstream = "https://api.ix.example" '
    'listen = "127.0.0.1:8081" caller = { user = "portal" }'
)


class ProxyTable(msgspec.Struct, forbid_unknown_fields=True):
    grant: str
    upstream: str
    caller: Any
    socket: str | None = None
    listen: str | None = None
    methods: list[str] | None = None
    paths: list[str] | None = None
    scope: list[str] | None = None
    audience: str | None = None
    resource: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure_http: bool = False
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """One proxy. `url`: of the upstream. `timeout`: seconds that the upstream's answer may take to begin.

    Many attributes: each is a key of the configuration."""

    name: str
    source: Source
    place: ProxyPlace
    callers: tuple[Selector, ...]
    url: str
    upstream: Upstream
    allowed: Allowed
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure_http: bool = False
    timeout: float = 60.0


def read(path: Path) -> tuple[tuple[ProxySettings | EndpointSettings, ...], Sequence[ConfigError]]:
    """The tables without mistakes, and all mistakes."""
    errors, found = Errors(), dict[ProxyPlace, ProxySettings | EndpointSettings]()
    raw = errors.tried(path, "", None, lambda _: read_toml(path))
    if raw is None:
        return (), errors
    for key in raw:
        if key not in READERS:
            known = "[proxies.NAME], [metadata.NAME]"
            errors.append(ConfigError(f"unknown table; known: {known}", key=key, file=str(path)))
    if not raw:
        errors.append(ConfigError(EXAMPLE, file=str(path)))
    for kind, reader in READERS.items():
        tables = errors.tried(path, kind, raw.get(kind, {}), lambda raw: convert(raw, dict[str, Any]))
        for name, table in (tables or {}).items():
            key = f"{kind}.{name}"
            each = errors.tried(path, key, table, partial(_named, reader, name))
            if each is not None and each.place in found:
                words = f"is the place of {found[each.place].name} too; name another"
                key = f"{key}.{'socket' if each.place.path else 'listen'}"
                errors.append(ConfigError(words, key=key, file=str(path)))
            elif each is not None:
                found[each.place] = each
    return tuple(found.values()), errors


def _named(reader: Reader, name: str, raw: Any) -> ProxySettings | EndpointSettings:
    if not NAME.fullmatch(name):
        raise expected("a name of up to 128 letters, digits, dots, dashes and underscores", name)
    return reader(name, raw)


def _read_table(name: str, raw: Any) -> ProxySettings:
    table = convert(raw, ProxyTable)
    if not table.grant:
        raise expected("the name of a grant", table.grant, key="grant")
    if not 0 < table.timeout <= 3_600:
        raise expected("seconds, at most 3600", table.timeout, key="timeout")
    place = _place(table)
    callers = read_callers(table.caller, place)
    return ProxySettings(
        name,
        Source(table.grant, None if table.scope is None else tuple(table.scope), table.audience, table.resource),
        place,
        callers,
        table.upstream,
        _upstream(table),
        _allowed(table),
        _file(table.ca_file),
        _file(table.cert_file),
        _file(table.key_file),
        table.insecure_http,
        table.timeout,
    )


def _file(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _place(table: ProxyTable) -> ProxyPlace:
    if (table.socket is None) == (table.listen is None):
        raise ConfigError('expected one of socket = "/run/…" and listen = "127.0.0.1:PORT"', key="socket")
    if table.socket is not None:
        if not table.socket.startswith("/"):
            raise expected("an absolute path", table.socket, key="socket")
        return ProxyPlace(table.socket)
    return read_listen(table.listen or "")


def _upstream(table: ProxyTable) -> Upstream:
    wrong = expected(UPSTREAM, table.upstream, key="upstream")
    try:
        parts = urlsplit(table.upstream)
        host = parts.netloc
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.port == 0:
            raise wrong
    except ValueError:
        raise wrong from None
    if "@" in host or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", table.upstream):
        raise wrong
    if parts.scheme == "http" and not (is_loopback(parts.hostname) or table.insecure_http):
        words = "the token would cross the network in the clear; use https://, or set insecure_http = true"
        raise ConfigError(words, key="upstream")
    return Upstream(f"{parts.scheme}://{host}", host, parts.path.rstrip("/"))


def _allowed(table: ProxyTable) -> Allowed:
    for method in table.methods or ():
        if not METHOD.fullmatch(method) or method.encode() in NEVER:
            raise expected("methods such as GET; CONNECT and TRACE are never forwarded", method, key="methods")
    for path in table.paths or ():
        if not path.startswith("/") or not path.isascii() or not path.isprintable():
            raise expected('paths that begin with a slash, such as "/v2/*"', path, key="paths")
    for key in ("methods", "paths"):
        if getattr(table, key) == []:
            raise expected("at least one; leave the key out to allow all", [], key=key)
    methods = None if table.methods is None else frozenset(each.encode() for each in table.methods)
    return Allowed(methods, None if table.paths is None else tuple(table.paths))


Reader = Callable[[str, Any], ProxySettings | EndpointSettings]
READERS: Mapping[str, Reader] = {"proxies": _read_table, "metadata": read_endpoint}

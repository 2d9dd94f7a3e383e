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

from brokerd.config.errors import Errors, Keys
from brokerd.config.loopback import is_loopback
from brokerd.config.metadata import EndpointSettings, read_endpoint
from brokerd.config.proxy_places import ProxyPlace, read_callers, read_listen
from brokerd.config.token_files import Source
from brokerd.config.toml_files import DEFAULT_CONFIG, NAME, is_there, read_toml
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
    keys = Keys(raw, ProxyTable)
    source = keys.of(_source, "grant", "scope", "audience", "resource")
    place = keys.of(_place, "socket", "listen")
    callers = keys.of(partial(read_callers, place=place), "caller")
    upstream = keys.of(_upstream, "upstream", "insecure_http")
    allowed = Allowed(keys.of(_methods, "methods"), keys.of(_paths, "paths"))
    files = {key: keys.of(_file, key) for key in ("ca_file", "cert_file", "key_file")}
    keys.of(_pair, "key_file", "cert_file")
    keys.of(_timeout, "timeout")
    keys.end()
    assert source is not None
    assert place is not None
    assert callers is not None
    assert upstream is not None
    table = convert(raw, ProxyTable)
    return ProxySettings(
        name,
        source,
        place,
        callers,
        table.upstream,
        upstream,
        allowed,
        **files,
        insecure_http=table.insecure_http,
        timeout=table.timeout,
    )


def _source(grant: str, scope: list[str] | None, audience: str | None, resource: str | None) -> Source:
    if not grant:
        raise expected("the name of a grant", grant)
    return Source(grant, None if scope is None else tuple(scope), audience, resource)


def _timeout(seconds: float) -> None:
    if not 0 < seconds <= 3_600:
        raise expected("seconds, at most 3600", seconds)


def _file(text: str | None) -> Path | None:
    if text is not None and not (text.startswith("/") and is_there(Path(text))):
        raise expected("the absolute path of a file that exists", text)
    return None if text is None else Path(text)


def _pair(key_file: str | None, cert_file: str | None) -> None:
    if key_file is not None and cert_file is None:
        raise ConfigError("key_file needs cert_file too; add cert_file, or remove key_file")


def _place(path: str | None, listen: str | None) -> ProxyPlace:
    if (path is None) == (listen is None):
        raise ConfigError('expected one of socket = "/run/…" and listen = "127.0.0.1:PORT"')
    if path is None:
        return read_listen(listen or "")
    if not path.startswith("/"):
        raise expected("an absolute path", path)
    return ProxyPlace(path)


def _upstream(url: str, insecure_http: bool) -> Upstream:
    wrong = expected(UPSTREAM, url)
    try:
        parts = urlsplit(url)
        host = parts.netloc
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.port == 0:
            raise wrong
    except ValueError:
        raise wrong from None
    if "@" in host or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", url):
        raise wrong
    if parts.scheme == "http" and not (is_loopback(parts.hostname) or insecure_http):
        raise ConfigError("the token would cross the network in the clear; use https://, or set insecure_http = true")
    return Upstream(f"{parts.scheme}://{host}", host, parts.path.rstrip("/"))


def _methods(methods: list[str] | None) -> frozenset[bytes] | None:
    if methods is None:
        return None
    for method in methods:
        if not METHOD.fullmatch(method) or method.encode() in NEVER:
            raise expected("methods such as GET; CONNECT and TRACE are never forwarded", method)
    return frozenset(each.encode() for each in _filled(methods))


def _paths(paths: list[str] | None) -> tuple[str, ...] | None:
    if paths is None:
        return None
    for path in paths:
        if not path.startswith("/") or not path.isascii() or not path.isprintable():
            raise expected('paths that begin with a slash, such as "/v2/*"', path)
    return tuple(_filled(paths))


def _filled(texts: list[str]) -> list[str]:
    if not texts:
        raise expected("at least one; leave the key out to allow all", [])
    return texts


Reader = Callable[[str, Any], ProxySettings | EndpointSettings]
READERS: Mapping[str, Reader] = {"proxies": _read_table, "metadata": read_endpoint}

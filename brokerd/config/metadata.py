# The [metadata.NAME] tables of brokerd-proxy's FILE.toml: endpoints at which SDKs of clouds ask for credentials
# (docs/metadata.md), as checked values.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from brokerd.config.errors import Keys
from brokerd.config.proxy_places import ProxyPlace, read_callers, read_listen
from brokerd.config.token_files import Source
from brokerd.core.access.policy import Selector
from brokerd.core.validation import ConfigError, check_one_of, convert, expected

# By kind: the keys that belong to it. Those with True must be there.
KINDS: Mapping[str, Mapping[str, bool]] = {
    "aws-container": {"authorization_file": False},
    "aws-imds": {"role": False, "region": False},
    "gce": {"email": True, "project": False, "scopes": False},
    "azure": {"resource": True, "header_file": False},
}
OF_KINDS = tuple(dict.fromkeys(key for keys in KINDS.values() for key in keys))
WORD_FILES = ("authorization_file", "header_file")
WITHOUT_SLASH = ("role", "region", "email", "project")  # they stand in paths


class EndpointTable(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    grant: str
    listen: str
    caller: Any
    authorization_file: str | None = None
    role: str | None = None
    region: str | None = None
    email: str | None = None
    project: str | None = None
    scopes: list[str] | None = None
    resource: str | None = None
    header_file: str | None = None


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """One endpoint. `values`: the keys of its kind. `word_file`: holds what the client must say.

    Its `source` and `callers` are like those of a proxy."""

    name: str
    source: Source
    place: ProxyPlace
    callers: tuple[Selector, ...]
    kind: str
    values: Mapping[str, Any]
    word_file: Path | None = None


def read_endpoint(name: str, raw: Any) -> EndpointSettings:
    """Raises ConfigError."""
    keys = Keys(raw, EndpointTable)
    kind = keys.of(_kind, "kind")
    grant = keys.of(_grant, "grant")
    place = keys.of(read_listen, "listen")
    callers = keys.of(partial(read_callers, place=place), "caller")
    for key in WITHOUT_SLASH:
        keys.of(_without_slash, key)
    word_files = [keys.of(_absolute, key) for key in WORD_FILES]
    if kind is not None:
        for key in OF_KINDS:
            keys.of(partial(_belongs, kind, key), key)
    keys.end()
    assert kind is not None
    assert grant is not None
    assert place is not None
    assert callers is not None
    table = convert(raw, EndpointTable)
    values = {key: getattr(table, key) for key in KINDS[kind] if key not in WORD_FILES}
    word_file = next((Path(each) for each in word_files if each is not None), None)
    return EndpointSettings(name, Source(grant), place, callers, kind, values, word_file)


def _kind(kind: str) -> str:
    check_one_of(kind, KINDS, "kind")
    return kind


def _grant(grant: str) -> str:
    if not grant:
        raise expected("the name of a grant", grant)
    return grant


def _belongs(kind: str, key: str, value: Any) -> None:
    """Whether a key may or must be there."""
    if value is not None and key not in KINDS[kind]:
        kinds = " and ".join(each for each, known in KINDS.items() if key in known)
        raise ConfigError(f"belongs to {kinds}, not to {kind}; remove it")
    if not value and KINDS[kind].get(key):
        raise ConfigError(f"an endpoint of the kind {kind} needs this key")


def _without_slash(text: str | None) -> None:
    if text is not None and ("/" in text or not text.isprintable()):
        raise expected("a name without slashes", text)


def _absolute(path: str | None) -> str | None:
    if path is not None and not path.startswith("/"):
        raise expected("an absolute path", path)
    return path
